package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"entrepot/e2e/testenv"
)

// The names of the servers, as the table has them.
const (
	entrepot     = "entrepot"
	nginxCache   = "nginx proxy_cache"
	nginxStatic  = "nginx static"
	distribution = "distribution"
	varnish      = "varnish"
	direct       = "upstream direct"
)

// server is one of those that are measured. All answer the same paths.
type server struct {
	name    string
	url     string           // base
	admin   string           // base URL of the node's admin listener; empty for the others
	process *testenv.Process // nil for the upstream, which is not measured
	cache   string           // directory that fresh empties; empty is none
	peak    int64            // bytes: the most resident memory of the lives before this one
	start   time.Duration    // from the last start by fresh until it was ready
}

// startServer starts a process that answers at url once it is ready.
func startServer(t testing.TB, name, url, cache string, config testenv.ProcessConfig) *server {
	t.Helper()
	config.Name = filepath.Base(config.Path)
	if config.Ready == nil {
		// Every server but a node may take its first connection as its start.
		config.Ready = func(ctx context.Context) error { return testenv.WaitHTTP(ctx, url) }
	}
	return &server{name: name, url: url, cache: cache, process: testenv.Start(t, config)}
}

// fresh starts the server anew with an empty cache.
func (s *server) fresh(t testing.TB) {
	t.Helper()
	if s.process == nil || s.cache == "" {
		return
	}
	s.peak = s.peakRSS()
	s.process.Stop()
	entries, err := os.ReadDir(s.cache)
	if err != nil {
		t.Fatalf("emptying the cache of %s: %v", s.name, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(s.cache, e.Name())); err != nil {
			t.Fatalf("emptying the cache of %s: %v", s.name, err)
		}
	}
	start := time.Now()
	s.process.Restart()
	s.start = time.Since(start)
}

// peakRSS is the most resident memory over all lives of the process, in bytes.
func (s *server) peakRSS() int64 { return max(s.peak, s.process.PeakRSS()) }

// cpu is the processor time spent so far; the upstream's is not looked at.
func (s *server) cpu() time.Duration {
	if s.process == nil {
		return 0
	}
	return s.process.CPU()
}

// ask sends a request whose answer does not matter beyond its status: it opens
// connections and fills caches before something is timed.
func (s *server) ask(t testing.TB, path string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatalf("asking %s: %v", s.name, err)
	}
	request.Header.Set("Accept", acceptManifest)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("asking %s: %v", s.name, err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("asking %s for %s: %s, %v", s.name, path, response.Status, err)
	}
}
