package proxy

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/proxy/upstream"
	"entrepot/registry"
)

// fileServer is an upstream of files that does as it is told, and remembers what
// it was asked.
type fileServer struct {
	*httptest.Server

	mu    sync.Mutex
	asked []string // "GET /a?q bytes=0-1 if-range="…""
	files map[string]hosted
	// act, when set, answers a request instead; it returns false to leave it to
	// the files. n counts requests for this path, from 1.
	act   func(w http.ResponseWriter, r *http.Request, n int) bool
	count map[string]int
}

// hosted is a file of a fileServer.
type hosted struct {
	body     []byte
	etag     string
	modified time.Time
	header   http.Header
}

func newFileServer(t *testing.T) *fileServer {
	t.Helper()
	s := &fileServer{files: map[string]hosted{}, count: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	line := r.Method + " " + r.RequestURI
	for _, key := range []string{"Range", "If-Range", "If-None-Match", "If-Modified-Since"} {
		if value := r.Header.Get(key); value != "" {
			line += " " + key + ":" + value
		}
	}
	s.asked = append(s.asked, line)
	s.count[r.URL.Path]++
	n, act, f := s.count[r.URL.Path], s.act, s.files[r.URL.EscapedPath()]
	s.mu.Unlock()
	if act != nil && act(w, r, n) {
		return
	}
	f.serve(w, r)
}

// serve answers as an honest server does.
func (f hosted) serve(w http.ResponseWriter, r *http.Request) {
	if f.body == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	f.describe(w.Header())
	http.ServeContent(w, r, "", f.modified, bytes.NewReader(f.body))
}

func (f hosted) describe(h http.Header) {
	h["Content-Type"] = nil // no guessing
	maps.Copy(h, f.header)
	if f.etag != "" {
		h.Set("Etag", f.etag)
	}
}

// breakAt sends the first n bytes of what is asked for and cuts the connection.
func (f hosted) breakAt(w http.ResponseWriter, n int) {
	f.describe(w.Header())
	if !f.modified.IsZero() {
		w.Header().Set("Last-Modified", f.modified.UTC().Format(http.TimeFormat))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(f.body)))
	_, _ = w.Write(f.body[:n])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// file puts a file of size pseudo-random bytes, with a strong validator, at a
// path.
func (s *fileServer) file(path string, size int, seed uint64, header ...string) hosted {
	f := hosted{body: randomBytes(size, seed), etag: fmt.Sprintf(`"v%d"`, seed), header: http.Header{}}
	for i := 0; i+1 < len(header); i += 2 {
		f.header.Set(header[i], header[i+1])
	}
	s.put(path, f)
	return f
}

func (s *fileServer) put(path string, f hosted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = f
}

// do sets what the server does from now on.
func (s *fileServer) do(act func(w http.ResponseWriter, r *http.Request, n int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.act, s.asked, s.count = act, nil, map[string]int{}
}

// log returns the requests since the last do.
func (s *fileServer) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// wantLog checks the requests since the last do, by their beginnings.
func (s *fileServer) wantLog(t *testing.T, want ...string) {
	t.Helper()
	got := s.log()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		t.Errorf("upstream was asked %q; want %q", got, want)
	}
}

// startFiles starts a node with one upstream of files, "up", at the given URLs.
func startFiles(t *testing.T, dir string, urls []string, options ...nodeOption) *testNode {
	t.Helper()
	n := startNode(t, dir, []string{"http://127.0.0.1:1"}, append([]nodeOption{func(c *Config) {
		c.Files = []FileUpstreamConfig{{
			Config: upstream.Config{
				Name: "up", URLs: urls,
				ConnectTimeout: 2 * time.Second, ResponseTimeout: 5 * time.Second, StallTimeout: 300 * time.Millisecond,
			},
			Policy:    Policy{TTL: time.Minute, NegativeTTL: time.Minute},
			Immutable: []string{"release/v*/**"},
			Moving:    []string{"**/stable.txt"},
			MovingTTL: time.Second,
			Verify:    []string{"headers"},
		}}
	}}, options...)...)
	n.Server.Config.Handler = n.Node.Handler(registry.NewFileHandler(n.Node, registry.Config{}))
	return n
}

func withFiles(change func(*FileUpstreamConfig)) nodeOption {
	return func(c *Config) { change(&c.Files[0]) }
}

// settled waits until every fill has ended and the names know of it.
func (n *testNode) settled(t *testing.T, path string) *fileVersion {
	t.Helper()
	key := nameKey{up: n.fileUpstreams["up"], repo: path}
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		v, known := n.files.peek(key)
		if !known || v.digest != "" {
			return v
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is still on its way", path)
		}
	}
}

func (g got) wantHeaders(t *testing.T, want map[string]string) {
	t.Helper()
	for key, value := range want {
		if got := g.header.Get(key); got != value {
			t.Errorf("%s is %q; want %q", key, got, value)
		}
	}
}
