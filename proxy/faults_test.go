package proxy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

const mib = 1 << 20

func TestColdBlobComesFromUpstreamOnceAndThenFromTheStore(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(3*mib, 1)
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	up.Close()
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if !n.stored(t, d) {
		t.Error("the blob was not stored")
	}
	if asked := up.gets(); asked != 1 {
		t.Errorf("upstream was asked %d times: %v", asked, up.log())
	}
}

func TestWrongByteIsNeverACompleteBlob(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(2*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		wrong := bytes.Clone(body)
		wrong[mib] ^= 1
		up.serve(w, r, served{body: wrong})
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, blobPath(d)).wantNoBlob(t)
	if n.stored(t, d) {
		t.Error("wrong bytes were stored")
	}
	up.do(nil)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestWrongByteInTheLastByteIsCaught(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(2*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		wrong := bytes.Clone(body)
		wrong[len(wrong)-1] ^= 1
		up.serve(w, r, served{body: wrong})
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL})
	for _, rng := range []string{"", "bytes=0-", "bytes=1000-", fmt.Sprintf("bytes=%d-", len(body)-10)} {
		if rng == "" {
			n.get(t, blobPath(d)).wantNoBlob(t)
			continue
		}
		n.get(t, blobPath(d), "Range", rng).wantNoBlob(t)
	}
	if n.stored(t, d) {
		t.Error("wrong bytes were stored")
	}
}

func TestWrongBytesOfOneURLAreMadeGoodByTheNextWhereTheClientHasNoneOfThem(t *testing.T) {
	bad, good := newScript(t), newScript(t)
	d, body := bad.blob(40<<10, 1)
	good.blob(40<<10, 1)
	bad.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		bad.serve(w, r, served{body: bytes.Repeat([]byte{7}, len(body))})
		return true
	})
	n := startNode(t, t.TempDir(), []string{bad.URL, good.URL})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if !n.stored(t, d) {
		t.Error("the good bytes were not stored")
	}
}

func TestClientThatWasCutOffGetsTheBlobFromTheNextURLWhenItAsksAgain(t *testing.T) {
	bad, good := newScript(t), newScript(t)
	d, body := bad.blob(2*mib, 1)
	good.blob(2*mib, 1)
	bad.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		bad.serve(w, r, served{body: bytes.Repeat([]byte{7}, len(body))})
		return true
	})
	n := startNode(t, t.TempDir(), []string{bad.URL, good.URL})
	n.get(t, blobPath(d)).wantCut(t)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if len(bad.log()) != 1 {
		t.Errorf("the URL that sent wrong bytes was asked %q; want it last", bad.log())
	}
}

func TestFillGoesOnAtTheByteWhereUpstreamBroke(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(4*mib, 1)
	path := blobPath(d)
	for tenth := range 10 {
		t.Run(fmt.Sprint(tenth, " tenths"), func(t *testing.T) {
			at := len(body) * tenth / 10
			up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					upTo(w, r, body, at)
				}
				return false
			})
			n := startNode(t, t.TempDir(), []string{up.URL}, patient)
			n.get(t, path).wantBytes(t, 200, body)
			log := up.log()
			if len(log) != 2 {
				t.Fatalf("upstream was asked %q; want the blob and its rest", log)
			}
			var from, to int
			if at > 0 {
				_, err := fmt.Sscanf(log[1], "GET "+path+" bytes=%d-%d", &from, &to)
				if err != nil || from > at || from == 0 || to != len(body)-1 {
					t.Errorf("the rest was asked for as %q; want a closed range from at most %d to %d", log[1], at, len(body)-1)
				}
			}
		})
	}
}

func TestFillGoesOnAtTheNextURLWhenTheFirstIsGone(t *testing.T) {
	first, second := newScript(t), newScript(t)
	d, body := first.blob(4*mib, 1)
	second.blob(4*mib, 1)
	first.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			upTo(w, r, body, 2*mib)
		}
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	n := startNode(t, t.TempDir(), []string{first.URL, second.URL})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if log := second.log(); len(log) != 1 || !strings.Contains(log[0], "bytes=") {
		t.Errorf("the second URL was asked %q; want the rest only", log)
	}
}

func TestUpstreamThatAnswersARangeWithTheWholeIsReadOn(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(2*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			upTo(w, r, body, mib)
		}
		r.Header.Del("Range")
		return false
	})
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestStallIsBrokenOffAndResumed(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(2*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 1 {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:mib])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if len(up.log()) != 2 {
		t.Errorf("upstream was asked %q", up.log())
	}
}

func TestSlowDripIsNotAStall(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(200, 1)
	up.do(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		ticks := time.NewTicker(5 * time.Millisecond)
		defer ticks.Stop()
		for _, b := range body {
			<-ticks.C
			_, _ = w.Write([]byte{b})
			_ = http.NewResponseController(w).Flush()
		}
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if len(up.log()) != 1 {
		t.Errorf("upstream was asked %q", up.log())
	}
}

func TestAnswersOfUpstreamReachTheClientForWhatTheyAre(t *testing.T) {
	status := func(code int, header ...string) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	for _, c := range []struct {
		name       string
		act        func(http.ResponseWriter, *http.Request, int) bool
		status     int
		code       string
		retryAfter string
		asked      int // for two requests of a client
	}{
		{"404", status(404), 404, "BLOB_UNKNOWN", "", 1},
		{"403", status(403), 403, "DENIED", "", 1},
		{"429", status(429, "Retry-After", "7"), 429, "TOOMANYREQUESTS", "7", 1},
		{"500", status(500), 503, "UNAVAILABLE", "", -1},
		{"503", status(503, "Retry-After", "7"), 503, "UNAVAILABLE", "7", 1},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request, _ int) bool {
			w.Header().Set("Location", r.URL.Path)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		}, 502, "UNAVAILABLE", "", -1},
		{"gzip where none was asked", func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte("squeezed"))
			_ = z.Close()
			return true
		}, 502, "UNAVAILABLE", "", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newScript(t)
			d, _ := up.blob(100, 1)
			up.do(c.act)
			n := startNode(t, t.TempDir(), []string{up.URL})
			for range 2 {
				g := n.get(t, blobPath(d))
				g.wantError(t, c.status, c.code)
				if c.retryAfter != "" && g.header.Get("Retry-After") != c.retryAfter {
					t.Errorf("Retry-After is %q; want %s", g.header.Get("Retry-After"), c.retryAfter)
				}
			}
			if c.asked >= 0 && len(up.log()) != c.asked {
				t.Errorf("upstream was asked %q; want %d requests", up.log(), c.asked)
			}
			if n.stored(t, d) {
				t.Error("something was stored")
			}
		})
	}
}

func TestRefusedConnectionGoesToTheNextURLElseIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + l.Addr().String()
	l.Close()
	up := newScript(t)
	d, body := up.blob(100, 1)
	startNode(t, t.TempDir(), []string{dead}).get(t, blobPath(d)).wantError(t, 503, "UNAVAILABLE")
	startNode(t, t.TempDir(), []string{dead, up.URL}).get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestNewTokenIsFetchedWhenUpstreamWantsOne(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(mib, 1)
	d2, body2 := up.blob(mib, 2)
	var mu sync.Mutex
	valid, given := "", 0
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			given++
			valid = fmt.Sprint("token-", given)
			fmt.Fprintf(w, `{"token":%q}`, valid)
			return true
		}
		if valid == "" || r.Header.Get("Authorization") != "Bearer "+valid {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s",scope="repository:app:pull"`, up.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	mu.Lock()
	valid = "revoked"
	mu.Unlock()
	n.get(t, blobPath(d2)).wantBytes(t, 200, body2)
	if given != 2 {
		t.Errorf("%d tokens were given; want 2", given)
	}
}

func TestWrongContentLengthNeverGivesAWrongBlob(t *testing.T) {
	for _, c := range []struct {
		name string
		diff int
	}{{"too long", 1000}, {"too short", -1000}} {
		t.Run(c.name, func(t *testing.T) {
			up := newScript(t)
			d, body := up.blob(mib, 1)
			up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
				if r.Header.Get("Range") != "" {
					return false
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(body)+c.diff))
				_, _ = w.Write(body[:min(len(body), len(body)+c.diff)])
				return true
			})
			n := startNode(t, t.TempDir(), []string{up.URL})
			if g := n.get(t, blobPath(d)); g.err == nil && g.status != http.StatusBadGateway {
				t.Errorf("got %v; want a transfer that is cut, or a 502 if it was found out in time", g)
			}
			if n.stored(t, d) {
				t.Error("something was stored")
			}
		})
	}
}

func TestContentLengthThatTheManifestContradictsSendsTheFillToTheNextURL(t *testing.T) {
	bad, good := newScript(t), newScript(t)
	d, body := bad.blob(mib, 1)
	good.blob(mib, 1)
	m := bad.manifest("app", "v1", fmt.Sprintf(`{"layers":[{"digest":%q,"size":%d}]}`, d, len(body)))
	n := startNode(t, t.TempDir(), []string{bad.URL, good.URL})
	if g := n.get(t, "/v2/app/manifests/"+string(m)); g.status != 200 {
		t.Fatal(g)
	}
	bad.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		bad.serve(w, r, served{body: body[:1000]})
		return true
	})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestWrongDigestHeaderOfAManifestIsRefused(t *testing.T) {
	up := newScript(t)
	up.manifest("app", "v1", `{"schemaVersion":2}`)
	up.put("/v2/app/manifests/v1", served{[]byte(`{"schemaVersion":2}`), "application/vnd.oci.image.manifest.v1+json", digest.FromString("other")})
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, "/v2/app/manifests/v1").wantError(t, 502, "UNAVAILABLE")
	if n.stored(t, digest.FromString(`{"schemaVersion":2}`)) {
		t.Error("the manifest was stored")
	}
}

func TestRedirectToABlobHostIsFollowedWithoutTheToken(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(mib, 1)
	var leaked string
	cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked = r.Header.Get("Authorization")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	defer cdn.Close()
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if user, pass, ok := r.BasicAuth(); !ok || user != "me" || pass != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		http.Redirect(w, r, cdn.URL+"/data?signature=abc", http.StatusTemporaryRedirect)
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, func(c *Config) {
		c.Upstreams[0].Username, c.Upstreams[0].Password = "me", "secret"
	})
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if leaked != "" {
		t.Errorf("the blob host was sent credentials: %q", leaked)
	}
}

// gate is an upstream body that goes on only when told.
type gate struct {
	opened chan struct{}
	once   sync.Once
}

func newGate() *gate  { return &gate{opened: make(chan struct{})} }
func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }

// hold sends half of the body, then waits for the gate or the other side.
func (g *gate) hold(w http.ResponseWriter, r *http.Request, body []byte, half int) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body[:half])
	_ = http.NewResponseController(w).Flush()
	select {
	case <-g.opened:
		_, _ = w.Write(body[half:])
	case <-r.Context().Done():
	}
}

func patient(c *Config) { c.Upstreams[0].StallTimeout = time.Minute }

// open starts a request and returns once its headers are there.
func (n *testNode) open(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.Server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestJoinersReadTheRunningFillFromTheStartAtOnce(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(4*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		g.hold(w, r, body, 2*mib)
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	defer g.open()
	first := n.open(t, blobPath(d))
	half := make([]byte, mib)
	if _, err := io.ReadFull(first.Body, half); err != nil {
		t.Fatal(err)
	}
	joiner := n.open(t, blobPath(d))
	if _, err := io.ReadFull(joiner.Body, half); err != nil || !bytes.Equal(half, body[:mib]) {
		t.Fatalf("the joiner does not get the bytes that are there: %v", err)
	}
	if cs := joiner.Header.Get("Cache-Status"); !strings.Contains(cs, "collapsed") {
		t.Errorf("Cache-Status of the joiner is %q", cs)
	}
	ranged := n.open(t, blobPath(d), "Range", "bytes=1000-1999")
	part, err := io.ReadAll(ranged.Body)
	if err != nil || ranged.StatusCode != http.StatusPartialContent || !bytes.Equal(part, body[1000:2000]) {
		t.Fatalf("a range of what is there: status %d, %d bytes, %v", ranged.StatusCode, len(part), err)
	}
	g.open()
	rest, err := io.ReadAll(joiner.Body)
	if err != nil || !bytes.Equal(rest, body[mib:]) {
		t.Fatalf("the joiner's rest: %d bytes, %v", len(rest), err)
	}
	if asked := up.gets(); asked != 1 {
		t.Errorf("upstream was asked %q", up.log())
	}
}

func TestFillGoesOnForOthersWhenTheFirstClientLeaves(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(4*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		g.hold(w, r, body, mib)
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	defer g.open()
	first := n.open(t, blobPath(d))
	second := n.open(t, blobPath(d))
	first.Body.Close()
	g.open()
	got, err := io.ReadAll(second.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("the one who stayed got %d bytes, %v", len(got), err)
	}
	if up.gets() != 1 {
		t.Errorf("upstream was asked %q", up.log())
	}
}

func TestFillNobodyWantsStopsAndIsResumedLater(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(4*mib, 1)
	stopped := make(chan struct{})
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 1 {
			return false
		}
		g.hold(w, r, body, mib)
		close(stopped)
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	defer g.open()
	first := n.open(t, blobPath(d))
	if _, err := io.ReadFull(first.Body, make([]byte, mib/2)); err != nil {
		t.Fatal(err)
	}
	first.Body.Close()
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("upstream is still sending to nobody")
	}
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if log := up.log(); len(log) != 2 || !strings.Contains(log[1], "bytes=") {
		t.Errorf("upstream was asked %q; want the rest only", log)
	}
}

func TestFillThatIsMostlyThereIsFinishedForNobody(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(4*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		g.hold(w, r, body, 3*mib)
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	first := n.open(t, blobPath(d))
	if _, err := io.ReadFull(first.Body, make([]byte, 3*mib-tailSize)); err != nil {
		t.Fatal(err)
	}
	first.Body.Close()
	g.open()
	if !n.stored(t, d) {
		t.Error("the fill was given up")
	}
}

func TestSpoolSurvivesARestart(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(4*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 1 {
			return false
		}
		g.hold(w, r, body, mib)
		return true
	})
	dir := t.TempDir()
	n := startNode(t, dir, []string{up.URL}, patient)
	first := n.open(t, blobPath(d))
	if _, err := io.ReadFull(first.Body, make([]byte, mib/2)); err != nil {
		t.Fatal(err)
	}
	n.close()
	g.open()
	n = startNode(t, dir, []string{up.URL}, patient)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if log := up.log(); len(log) != 2 || !strings.Contains(log[1], "bytes=") {
		t.Errorf("upstream was asked %q; want the rest only", log)
	}
}

func TestSpoolWithWrongBytesIsStartedOver(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(4*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		wrong := bytes.Clone(body)
		wrong[10] ^= 1
		if n == 1 {
			upTo(w, r, wrong, mib)
		}
		return false
	})
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, blobPath(d)).wantCut(t)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestTwoHundredClientsOfOneColdBlobCostUpstreamOneRequest(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(2*mib, 1)
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	want := digest.FromBytes(body)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			resp, err := http.Get(n.Server.URL + blobPath(d))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			v := want.Verifier()
			if _, err := io.Copy(v, resp.Body); err != nil || !v.Verified() {
				t.Errorf("client %d: right %v, %v", i, v.Verified(), err)
			}
		})
	}
	wg.Wait()
	if up.gets() != 1 {
		t.Errorf("upstream was asked %d times", up.gets())
	}
}

func TestTwoHundredClientsOfTwoHundredBlobsCostUpstreamOneRequestEach(t *testing.T) {
	up := newScript(t)
	digests := make([]digest.Digest, 200)
	for i := range digests {
		digests[i], _ = up.blob(200<<10, uint64(i))
	}
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	var wg sync.WaitGroup
	for _, d := range digests {
		wg.Go(func() {
			resp, err := http.Get(n.Server.URL + blobPath(d))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			v := d.Verifier()
			if _, err := io.Copy(v, resp.Body); err != nil || !v.Verified() {
				t.Errorf("%s: right %v, %v", d, v.Verified(), err)
			}
		})
	}
	wg.Wait()
	log := up.log()
	slices.Sort(log)
	if len(log) != 200 || len(slices.Compact(log)) != 200 {
		t.Errorf("upstream was asked %d times", len(log))
	}
}

func TestSmallRangeFarAheadOfTheFillDoesNotWaitForIt(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(32*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Header.Get("Range") != "" {
			return false
		}
		g.hold(w, r, body, mib)
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	defer g.open()
	n.get(t, blobPath(d), "Range", "bytes=20000000-20000999").wantBytes(t, 206, body[20000000:20001000])
	log := up.log()
	if len(log) != 2 || !strings.HasSuffix(log[1], " bytes=20000000-20000999") {
		t.Errorf("upstream was asked %q; want the blob, and the range by itself", log)
	}
	whole := n.open(t, blobPath(d))
	g.open()
	if got, err := io.ReadAll(whole.Body); err != nil || !bytes.Equal(got, body) {
		t.Errorf("the whole: %d bytes, %v", len(got), err)
	}
}

func TestSlowClientThrottlesNobody(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(16*mib, 1)
	n := startNode(t, t.TempDir(), []string{up.URL})
	slow := n.open(t, blobPath(d)) // reads nothing
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	got, err := io.ReadAll(slow.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("the slow client got %d bytes, %v", len(got), err)
	}
}

func TestHeadersGoOutAsSoonAsUpstreamsAreKnown(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		g.hold(w, r, body, 0)
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	resp := n.open(t, blobPath(d)) // returns with the gate still shut
	if resp.ContentLength != mib {
		t.Errorf("Content-Length is %d", resp.ContentLength)
	}
	g.open()
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestStoreThatCannotBeWrittenStillServesVerified(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(3*mib, 1)
	m := up.manifest("app", "v1", `{"schemaVersion":2}`)
	n := startNode(t, t.TempDir(), []string{up.URL})
	if err := n.dir.Close(); err != nil { // every write fails from here on
		t.Fatal(err)
	}
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	n.get(t, blobPath(d), "Range", "bytes=1000000-1999999").wantBytes(t, 206, body[1000000:2000000])
	n.get(t, "/v2/app/manifests/"+string(m)).wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		wrong := bytes.Clone(body)
		wrong[10] ^= 1
		up.serve(w, r, served{body: wrong})
		return true
	})
	n.get(t, blobPath(d)).wantCut(t)
}

func TestBlobLargerThanTheStoreIsStreamedAndEvictsNothing(t *testing.T) {
	up := newScript(t)
	small, smallBody := up.blob(400<<10, 1)
	large, largeBody := up.blob(3*mib, 2)
	n := startLimitedNode(t, t.TempDir(), mib, []string{up.URL})
	n.get(t, blobPath(small)).wantBytes(t, 200, smallBody)
	n.get(t, blobPath(large)).wantBytes(t, 200, largeBody)
	n.get(t, blobPath(large), "Range", "bytes=10-19").wantBytes(t, 206, largeBody[10:20])
	if !n.stored(t, small) || n.stored(t, large) {
		t.Error("the small blob was evicted, or the large one stored")
	}
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		up.serve(w, r, served{body: bytes.Repeat([]byte{7}, len(largeBody))})
		return true
	})
	n.get(t, blobPath(large)).wantCut(t)
}

func TestStoreEvictsWhatWasUsedLeastAndGoesOn(t *testing.T) {
	up := newScript(t)
	n := startLimitedNode(t, t.TempDir(), 4*mib, []string{up.URL})
	for i := range 20 {
		d, body := up.blob(500<<10, uint64(i))
		n.get(t, blobPath(d)).wantBytes(t, 200, body)
		n.stored(t, d)
	}
	if u := n.dir.Usage(); u.Bytes > 4*mib || u.Evictions == 0 {
		t.Errorf("usage is %+v; want at most 4 MiB after evictions", u)
	}
}

// In a store that holds hardly more than one blob, what is committed is evicted
// at once; clients that share its fill must not notice.
func TestClientsOfAFillAreServedThoughTheBlobIsEvictedAtOnce(t *testing.T) {
	up := newScript(t)
	n := startLimitedNode(t, t.TempDir(), mib, []string{up.URL}, patient)
	type blob struct {
		digest digest.Digest
		body   []byte
	}
	blobs := make([]blob, 8)
	for i := range blobs {
		blobs[i].digest, blobs[i].body = up.blob(600<<10, uint64(i))
	}
	var wg sync.WaitGroup
	for range 4 {
		for _, b := range blobs {
			wg.Go(func() {
				for range 5 {
					resp, err := http.Get(n.Server.URL + blobPath(b.digest))
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(got, b.body) {
						t.Errorf("status %d, %d bytes, %v", resp.StatusCode, len(got), err)
					}
				}
			})
		}
	}
	wg.Wait()
}
