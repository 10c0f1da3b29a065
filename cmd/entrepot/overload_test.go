package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// crowdedUpstream has as many blobs as are asked for, each of its own content. It
// counts how many it sends at once.
type crowdedUpstream struct {
	*httptest.Server
	pause time.Duration // before it answers
	size  int

	mu      sync.Mutex
	content map[string][]byte

	now, most atomic.Int64
}

func newCrowdedUpstream(t *testing.T, size int, pause time.Duration) *crowdedUpstream {
	u := &crowdedUpstream{pause: pause, size: size, content: map[string][]byte{}}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

// blob is the path of another blob, and its content.
func (u *crowdedUpstream) blob(name string) (path string, content []byte) {
	seed := sha256.Sum256([]byte(name))
	content = []byte(strings.Repeat(string(seed[:]), u.size/len(seed)))
	path = fmt.Sprintf("/v2/app/blobs/sha256:%x", sha256.Sum256(content))
	u.mu.Lock()
	defer u.mu.Unlock()
	u.content[path] = content
	return path, content
}

func (u *crowdedUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := u.now.Add(1)
	defer u.now.Add(-1)
	for most := u.most.Load(); now > most && !u.most.CompareAndSwap(most, now); most = u.most.Load() {
	}
	u.mu.Lock()
	content, ok := u.content[r.URL.Path]
	u.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	select { // an upstream is some way off
	case <-time.After(u.pause):
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = w.Write(content)
}

// clientAt makes requests from a loopback address, on a connection each.
func clientAt(address string) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
}

// answer is how a request went.
type answer struct {
	status     int
	retryAfter string
	body       []byte
	took       time.Duration
	err        error
}

func ask(ctx context.Context, c *http.Client, url string) (a answer) {
	start := time.Now()
	defer func() { a.took = time.Since(start) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return answer{err: err}
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After"), body: body, err: err}
}

// metric is the sum of a metric's series that have a text in their labels.
func (p *served) metric(t *testing.T, name, labels string) (sum float64) {
	t.Helper()
	_, text := get(t, "http://"+p.admin+"/metrics")
	for line := range strings.Lines(text) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if bare, _, _ := strings.Cut(series, "{"); bare == name && strings.Contains(series, labels) {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// files is how many files the process has open.
func (p *served) files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Skip("this system does not say which files a process has open")
	}
	return len(entries)
}

// eventually waits for something that happens by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

func TestAColdStampedeStaysWithinItsLimitsWhileHitsAreServed(t *testing.T) {
	const blobs, fills = 5000, 24
	up := newCrowdedUpstream(t, 16<<10, 10*time.Millisecond)
	p := start(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
log: {access: false}
node:
  listen: 127.0.0.1:0
  store: {dir: store}
  max_fills: %d
  max_fill_wait: 3s
  upstreams: {up.example: {urls: [%q]}}`, fills, up.URL))
	base := "http://" + p.node
	warm, warmContent := up.blob("warm")
	// On one connection: it is the node's time that counts, not that of 5,000 handshakes.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}
	warmClient := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	defer warmClient.CloseIdleConnections()
	if a := ask(t.Context(), warmClient, base+warm); a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}

	var crowd sync.WaitGroup
	answers := make(chan answer, blobs)
	begin := make(chan struct{})
	for i := range blobs {
		// Two thirds of it are one client's.
		from := "127.0.0.2"
		if i%3 == 0 {
			from = fmt.Sprintf("127.0.1.%d", i%100+1)
		}
		path, content := up.blob(fmt.Sprint(i))
		crowd.Go(func() {
			<-begin
			a := ask(t.Context(), clientAt(from), base+path)
			if a.status == http.StatusOK && a.err == nil && string(a.body) != string(content) {
				a.err = errors.New("wrong bytes")
			}
			answers <- a
		})
	}
	close(begin)
	over := make(chan struct{})
	go func() { crowd.Wait(); close(over) }()

	hits, files, heap := 0, 0, 0.0
	for running := true; running; {
		select {
		case <-over:
			running = false
		default:
		}
		a := ask(t.Context(), warmClient, base+warm)
		if a.err != nil || a.status != http.StatusOK || string(a.body) != string(warmContent) {
			t.Errorf("a hit during the stampede: status %d in %v, %v", a.status, a.took, a.err)
		}
		hits++
		files = max(files, p.files(t))
		heap = max(heap, p.metric(t, "go_memstats_heap_inuse_bytes", "")+p.metric(t, "go_memstats_stack_inuse_bytes", ""))
	}
	count := map[int]int{}
	for range blobs {
		a := <-answers
		count[a.status]++
		switch {
		case a.err != nil:
			t.Errorf("a client got %d and %v", a.status, a.err)
		case a.status == http.StatusOK:
		case a.status != http.StatusTooManyRequests && a.status != http.StatusServiceUnavailable || a.retryAfter == "":
			t.Errorf("a client got %d with Retry-After %q: %s", a.status, a.retryAfter, a.body)
		}
	}
	t.Logf("answers %v, %d hits, at most %d downloads, %d files, %.0f MiB", count, hits, up.most.Load(), files, heap/(1<<20))
	if most := up.most.Load(); most > fills {
		t.Errorf("upstream sent %d at once, and max_fills is %d", most, fills)
	}
	if count[http.StatusOK] < fills || hits < 3 {
		t.Errorf("%d were served, and %d hits meanwhile", count[http.StatusOK], hits)
	}
	// A connection each, and those of fills.
	if limit := blobs + handlesOfFill*fills + handlesBesides; files > limit {
		t.Errorf("%d files were open, more than %d", files, limit)
	}
	if heap > 512<<20 {
		t.Errorf("%.0f MiB of memory were in use", heap/(1<<20))
	}
	eventually(t, "everything is released", func() bool {
		return p.metric(t, "entrepot_fills_in_progress", "")+p.metric(t, "entrepot_fills_waiting", "")+
			p.metric(t, "entrepot_requests_in_flight", "") == 0 && p.files(t) < 200
	})
}

func TestOneColdBlobDoesNotWaitBehindAThousandOfAnotherClient(t *testing.T) {
	up := newCrowdedUpstream(t, 4<<10, 100*time.Millisecond)
	p := start(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
log: {access: false}
node:
  listen: 127.0.0.1:0
  store: {dir: store}
  max_fills: 8
  upstreams: {up.example: {urls: [%q], max_concurrent: 4}}`, up.URL))
	ctx, giveUp := context.WithCancel(t.Context())
	var greedy sync.WaitGroup
	for i := range 1000 { // which take 25 s, or are refused before
		path, _ := up.blob(fmt.Sprint("greedy", i))
		greedy.Go(func() { ask(ctx, clientAt("127.0.0.2"), "http://"+p.node+path) })
	}
	eventually(t, "many downloads wait", func() bool { return p.metric(t, "entrepot_fills_waiting", "") > 500 })
	for i := range 3 {
		path, content := up.blob(fmt.Sprint("modest", i))
		a := ask(t.Context(), clientAt("127.0.0.3"), "http://"+p.node+path)
		if a.status != http.StatusOK || string(a.body) != string(content) || a.took > 3*time.Second {
			t.Errorf("another client's blob: %d in %v, %v", a.status, a.took, a.err)
		}
	}
	// One that the greedy client asked for long ago, and that waits at the end of its line.
	path, _ := up.blob("greedy999")
	if a := ask(t.Context(), clientAt("127.0.0.3"), "http://"+p.node+path); a.status != http.StatusOK || a.took > 3*time.Second {
		t.Errorf("a blob that both want: %d in %v, %v", a.status, a.took, a.err)
	}
	if n := p.metric(t, "entrepot_fills_waiting", ""); n < 100 {
		t.Errorf("only %v downloads still wait: the test shows nothing", n)
	}
	giveUp()
	greedy.Wait()
}

// rolesWithShortLimits runs all roles with limits that a test can wait for.
func rolesWithShortLimits(t *testing.T, upstream string) (p *served, address map[string]string) {
	t.Helper()
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := writeFile(t, dir, "htpasswd", "pusher:"+string(hash)+"\n")
	const limits = `{header_timeout: 1s, idle_timeout: 1s, min_rate: 4MiB, max_header_size: 16KiB}`
	p = start(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: 127.0.0.1:0
  limits: %[1]s
  store: {dir: %[2]q}
  upstreams: {up.example: {urls: [%[4]q]}}
origin:
  listen: 127.0.0.1:0
  limits: %[1]s
  store: {dir: %[3]q}
  htpasswd: %[5]q
router:
  listen: 127.0.0.1:0
  limits: %[1]s
  mirrors: [{name: a, urls: ["https://a.example.org"], tier: origin, country: DE}]
`, limits, filepath.Join(dir, "node"), filepath.Join(dir, "origin"), upstream, users))
	line := p.waitFor(t, "serving")
	address = map[string]string{}
	for _, role := range []string{"node", "origin", "router"} {
		address[role] = fmt.Sprint(line[role])
	}
	return p, address
}

// connect opens a connection that ends with the test.
func connect(t *testing.T, address string) net.Conn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// drip sends a text byte by byte, until the test ends or nobody takes it.
func drip(t *testing.T, c net.Conn, text string) {
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i = (i + 1) % len(text) {
			if _, err := c.Write([]byte{text[i]}); err != nil {
				return
			}
			<-tick.C
		}
	}()
}

// ends waits until the server ends a connection, and returns what it said.
func ends(t *testing.T, c net.Conn) string {
	t.Helper()
	said, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still open after %v", patience)
	}
	return string(said)
}

func TestSlowClientsAreCutOffAtEveryRole(t *testing.T) {
	up := newCrowdedUpstream(t, 32<<20, 0)
	blob, content := up.blob("large")
	p, address := rolesWithShortLimits(t, up.URL)
	for role, at := range address {
		t.Run(role, func(t *testing.T) {
			t.Run("who sends headers byte by byte", func(t *testing.T) {
				t.Parallel()
				c := connect(t, at)
				drip(t, c, "GET / HTTP/1.1\r\nHost: example.org\r\nX-Drip: "+strings.Repeat("x", 1000))
				if said := ends(t, c); strings.Contains(said, " 200 ") {
					t.Errorf("it was answered: %s", said)
				}
			})
			t.Run("who says nothing", func(t *testing.T) {
				t.Parallel()
				ends(t, connect(t, at))
			})
			t.Run("who does nothing between requests", func(t *testing.T) {
				t.Parallel()
				c := connect(t, at)
				_, _ = io.WriteString(c, "HEAD /v2/ HTTP/1.1\r\nHost: example.org\r\n\r\n")
				if said := ends(t, c); !strings.HasPrefix(said, "HTTP/1.1 ") {
					t.Errorf("it was not answered first: %q", said)
				}
			})
			t.Run("who sends a body byte by byte that nobody wants", func(t *testing.T) {
				t.Parallel()
				c := connect(t, at)
				_, _ = io.WriteString(c, "PATCH /v2/ HTTP/1.1\r\nHost: example.org\r\nContent-Length: 200000\r\n\r\n")
				drip(t, c, "x")
				ends(t, c)
			})
		})
	}
	t.Run("who pushes byte by byte", func(t *testing.T) {
		c := connect(t, address["origin"])
		_, _ = io.WriteString(c, "PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: example.org\r\nAuthorization: Basic cHVzaGVyOnBhc3M=\r\n"+
			"Content-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: 1000\r\n\r\n")
		drip(t, c, "x")
		if said := ends(t, c); !strings.HasPrefix(said, "HTTP/1.1 408 ") {
			t.Errorf("it was told %.200q, want 408", said)
		}
	})
	t.Run("who takes a blob byte by byte", func(t *testing.T) {
		c := connect(t, address["node"])
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		_, _ = io.WriteString(c, "GET "+blob+" HTTP/1.1\r\nHost: example.org\r\n\r\n")
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		var err error
		for b := make([]byte, 1); err == nil; <-tick.C {
			if _, err = c.Read(b); p.metric(t, "entrepot_requests_in_flight", `role="node"`) == 0 {
				break
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("it is still served")
		}
	})
	t.Run("and all others are served", func(t *testing.T) {
		if a := ask(t.Context(), clientAt("127.0.0.3"), "http://"+address["node"]+blob); a.status != http.StatusOK || string(a.body) != string(content) {
			t.Errorf("%d, %v", a.status, a.err)
		}
	})
}

func TestWhatIsTooLargeIsRefusedAtEveryRole(t *testing.T) {
	_, address := rolesWithShortLimits(t, "http://127.0.0.1:1")
	for role, at := range address {
		c := connect(t, at)
		go func() {
			_, _ = io.WriteString(c, "GET /v2/ HTTP/1.1\r\nHost: example.org\r\nX-Large: "+strings.Repeat("x", 2<<20)+"\r\n\r\n")
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s answered a header of 2 MiB with %v, %v; want 431", role, resp, err)
		}
	}
	for _, length := range []int64{5 << 20, -1} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+address["origin"]+"/v2/app/manifests/v1", io.LimitReader(zeros{}, 5<<20))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		req.SetBasicAuth("pusher", "pass")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("a manifest of 5 MiB, of length %d: got %d, want 413", length, resp.StatusCode)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestEveryRoleRefusesWhatIsOverItsLimits(t *testing.T) {
	dir := t.TempDir()
	const limits = `{max_connections: 8, max_connections_per_client: 2}`
	p := start(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: 127.0.0.1:0
  limits: %[1]s
  trusted_proxies: ["127.0.0.7/32"]
  store: {dir: %[2]q}
  upstreams: {up.example: {urls: ["http://127.0.0.1:1"]}}
origin:
  listen: 127.0.0.1:0
  limits: %[1]s
  store: {dir: %[3]q}
router:
  listen: 127.0.0.1:0
  limits: %[1]s
  mirrors: [{name: a, urls: ["https://a.example.org"], tier: origin, country: DE}]
`, limits, filepath.Join(dir, "node"), filepath.Join(dir, "origin")))
	line := p.waitFor(t, "serving")
	for _, role := range []string{"node", "origin", "router"} {
		at := fmt.Sprint(line[role])
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
		for range 2 {
			c, err := d.DialContext(t.Context(), "tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		a := ask(t.Context(), clientAt("127.0.0.2"), "http://"+at+"/v2/")
		var body struct {
			Errors []struct {
				Code string `json:"code"`
			} `json:"errors"`
		}
		if a.status != http.StatusTooManyRequests || a.retryAfter == "" || json.Unmarshal(a.body, &body) != nil || len(body.Errors) != 1 || body.Errors[0].Code != "TOOMANYREQUESTS" {
			t.Errorf("%s answered the third of two connections with %+v: %s", role, a.status, a.body)
		}
		if a := ask(t.Context(), clientAt("127.0.0.3"), "http://"+at+"/v2/"); a.err != nil || a.status == http.StatusTooManyRequests {
			t.Errorf("%s refuses another client: %d, %v", role, a.status, a.err)
		}
		if n := p.metric(t, "entrepot_refused_total", `reason="client_connections",role="`+role+`"`); n != 1 {
			t.Errorf("%s counts %v refused connections", role, n)
		}
	}
	eventually(t, "an operator is told", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, line := range p.lines {
			if line["msg"] == "refused what is over the limits" && line["most_by"] == "127.0.0.2" {
				return true
			}
		}
		return false
	})
}

func TestLimitsAreLoweredToWhatTheSystemLetsAProcessOpen(t *testing.T) {
	var cfg Config
	cfg.Node, cfg.Router = new(NodeConfig), new(RouterConfig)
	cfg.Node.SetDefaults()
	cfg.Router.SetDefaults()
	log := newLoggers(LogConfig{Level: "error"}, io.Discard).main
	before := *cfg.Node
	cfg.fitHandles(1<<20, log)
	if cfg.Node.Limits != before.Limits {
		t.Errorf("limits that fit were changed: %+v", cfg.Node.Limits)
	}
	cfg.fitHandles(4096, log)
	if n := cfg.handles(); n > 4096 || n < 3500 || cfg.Router.Limits.MaxConnections < 500 {
		t.Errorf("the limits need %d of 4096 files: %+v", n, cfg.Node.Limits)
	}
	cfg.fitHandles(64, log)
	if cfg.Node.Limits.MaxConnections < 16 {
		t.Errorf("nobody is let in any more: %+v", cfg.Node.Limits)
	}
}
