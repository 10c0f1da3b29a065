package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// script is an upstream that does as it is told, and remembers what it was
// asked.
type script struct {
	*httptest.Server

	mu      sync.Mutex
	asked   []string // "GET /v2/app/blobs/sha256:… bytes=0-1"
	content map[string]served
	// act, when set, answers a request instead; it returns false to leave the
	// request to the content. n counts requests for this path, from 1.
	act   func(w http.ResponseWriter, r *http.Request, n int) bool
	count map[string]int
}

// served is what an upstream has under a path.
type served struct {
	body      []byte
	mediaType string
	digest    digest.Digest
}

func newScript(t *testing.T) *script {
	t.Helper()
	s := &script{content: map[string]served{}, count: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	line := r.Method + " " + r.URL.Path
	if rng := r.Header.Get("Range"); rng != "" {
		line += " " + rng
	}
	s.asked = append(s.asked, line)
	s.count[r.URL.Path]++
	n, act, c := s.count[r.URL.Path], s.act, s.content[r.URL.Path]
	s.mu.Unlock()
	if act != nil && act(w, r, n) {
		return
	}
	s.serve(w, r, c)
}

// serve answers as an honest registry does.
func (s *script) serve(w http.ResponseWriter, r *http.Request, c served) {
	if c.body == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", c.mediaType)
	if c.digest != "" {
		w.Header().Set("Docker-Content-Digest", string(c.digest))
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.body))
}

// blob gives the upstream's repository app a blob of size pseudo-random bytes.
func (s *script) blob(size int, seed uint64) (digest.Digest, []byte) {
	b := randomBytes(size, seed)
	d := digest.FromBytes(b)
	s.put(blobPath(d), served{b, "application/octet-stream", d})
	return d, b
}

// manifest gives the upstream a manifest, by digest and by tag.
func (s *script) manifest(repo, tag, body string) digest.Digest {
	d := digest.FromString(body)
	c := served{[]byte(body), ocispec.MediaTypeImageManifest, d}
	s.put("/v2/"+repo+"/manifests/"+string(d), c)
	s.put("/v2/"+repo+"/manifests/"+tag, c)
	return d
}

func (s *script) put(path string, c served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content[path] = c
}

// do sets what the upstream does from now on.
func (s *script) do(act func(w http.ResponseWriter, r *http.Request, n int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.act, s.asked, s.count = act, nil, map[string]int{}
}

// log returns the requests since the last do.
func (s *script) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// gets counts the logged GET requests.
func (s *script) gets() int {
	n := 0
	for _, line := range s.log() {
		if strings.HasPrefix(line, "GET ") {
			n++
		}
	}
	return n
}

func randomBytes(size int, seed uint64) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b)
	return b
}

// testNode is a node behind its HTTP surface.
type testNode struct {
	*Node
	*httptest.Server
	dir   *blobstore.Dir
	close func()
}

type nodeOption func(*Config)

// startNode starts a node over a directory, with one upstream "docker.io" at
// the given URLs.
func startNode(t *testing.T, dir string, urls []string, options ...nodeOption) *testNode {
	t.Helper()
	return startLimitedNode(t, dir, 0, urls, options...)
}

// startLimitedNode is startNode with a size limit on the store, in bytes.
func startLimitedNode(t *testing.T, dir string, maxSize int64, urls []string, options ...nodeOption) *testNode {
	t.Helper()
	return startNodeOn(t, httptest.NewUnstartedServer(nil), dir, maxSize, urls, options...)
}

// startNodeOn is startLimitedNode with a server, whose address is known before.
func startNodeOn(t *testing.T, server *httptest.Server, dir string, maxSize int64, urls []string, options ...nodeOption) *testNode {
	t.Helper()
	local, err := blobstore.OpenDir(dir, blobstore.DirConfig{MaxSize: maxSize})
	if err != nil {
		t.Fatal(err)
	}
	memory, err := blobstore.NewMemory(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Local: local, Memory: memory, Default: "docker.io",
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Upstreams: []UpstreamConfig{{
			Config: upstream.Config{
				Name: "docker.io", URLs: urls,
				ConnectTimeout: 2 * time.Second, ResponseTimeout: 5 * time.Second, StallTimeout: 300 * time.Millisecond,
			},
			Policy: Policy{TTL: time.Minute, StaleWhileRevalidate: time.Hour, NegativeTTL: time.Minute},
		}},
	}
	for _, option := range options {
		option(&cfg)
	}
	node, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{Node: node, dir: local, Server: server}
	server.Config.Handler = node.Handler(registry.NewHandler(registry.Config{Backend: node}))
	server.Start()
	n.close = sync.OnceFunc(func() {
		n.Server.CloseClientConnections()
		n.Server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := node.Close(ctx); err != nil {
			t.Errorf("closing the node: %v", err)
		}
		memory.Close()
		if err := local.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	t.Cleanup(n.close)
	return n
}

func withPolicy(p Policy) nodeOption {
	return func(c *Config) { c.Upstreams[0].Policy = p }
}

// stored reports whether the node's store holds the blob, and that it is right.
func (n *testNode) stored(t *testing.T, d digest.Digest) bool {
	t.Helper()
	n.fills.mu.Lock()
	f := n.fills.fills[d]
	n.fills.mu.Unlock()
	if f != nil {
		<-f.finished // a client has its bytes before the store has synced them
	}
	body, _, err := n.dir.Open(t.Context(), d, 0, -1)
	if errors.Is(err, blobstore.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if digest.FromBytes(b) != d {
		t.Fatalf("the store holds wrong bytes under %s", d)
	}
	return true
}

// got is a client's view of a response.
type got struct {
	status int
	header http.Header
	body   []byte
	err    error // the transfer was cut
}

func (n *testNode) get(t *testing.T, path string, header ...string) got {
	t.Helper()
	return request(t, http.MethodGet, n.Server.URL+path, header...)
}

func (n *testNode) head(t *testing.T, path string) got {
	t.Helper()
	return request(t, http.MethodHead, n.Server.URL+path)
}

func request(t *testing.T, method, url string, header ...string) got {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return got{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return got{resp.StatusCode, resp.Header, body, err}
}

func (g got) String() string {
	return fmt.Sprintf("status %d, %d bytes, error %v, %v: %.200q", g.status, len(g.body), g.err, g.header, g.body)
}

// wantBytes checks for a complete, right response.
func (g got) wantBytes(t *testing.T, status int, want []byte) {
	t.Helper()
	if g.err != nil || g.status != status || !bytes.Equal(g.body, want) {
		t.Fatalf("got %v; want status %d and the right %d bytes", g, status, len(want))
	}
}

// wantError checks for an OCI error.
func (g got) wantError(t *testing.T, status int, code string) {
	t.Helper()
	if g.err != nil || g.status != status || !strings.Contains(string(g.body), `"`+code+`"`) {
		t.Fatalf("got %v; want status %d and code %s", g, status, code)
	}
}

// wantCut checks that the transfer failed visibly, after right bytes only when
// right is given.
func (g got) wantCut(t *testing.T) {
	t.Helper()
	if g.err == nil {
		t.Fatalf("got a complete response: %v; want one that is cut", g)
	}
}

// wantNoBlob checks that a transfer from upstream that sends wrong bytes was cut, or,
// where its fill had failed before anything was sent, that this was told.
func (g got) wantNoBlob(t *testing.T) {
	t.Helper()
	if g.err == nil {
		g.wantError(t, http.StatusBadGateway, "UNAVAILABLE")
	}
}

func blobPath(d digest.Digest) string { return "/v2/app/blobs/" + string(d) }

// upTo sends a complete answer's headers and the first n bytes, then breaks.
func upTo(w http.ResponseWriter, r *http.Request, body []byte, n int) {
	start := 0
	status := http.StatusOK
	if rng := r.Header.Get("Range"); rng != "" {
		_, _ = fmt.Sscanf(rng, "bytes=%d-", &start)
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(body)-1, len(body)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)-start))
	w.WriteHeader(status)
	if n > start {
		_, _ = w.Write(body[start:n])
	}
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
