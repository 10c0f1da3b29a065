package registry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// stalledWriter takes nothing until it is let.
type stalledWriter struct {
	*httptest.ResponseRecorder
	begun, let chan struct{}
}

func (w stalledWriter) Write(p []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.let
	return w.ResponseRecorder.Write(p)
}

func TestLargeManifestsForSlowClientsAreBoundedInMemory(t *testing.T) {
	t.Parallel()
	large := manifestOf("x/y", strings.Repeat("x", 1<<20))
	backend := &fakeBackend{manifest: large}
	h := NewHandler(Config{Backend: backend, ManifestMemory: 3 << 20})
	w := stalledWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	var slow sync.WaitGroup
	for range 3 {
		slow.Go(func() {
			h.ServeHTTP(stalledWriter{httptest.NewRecorder(), w.begun, w.let}, newRequest(http.MethodGet, "/v2/app/manifests/v1"))
		})
		<-w.begun
	}
	resp := ask(t, h, http.MethodGet, "/v2/app/manifests/v1", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("Docker-Content-Digest") != "" {
		t.Errorf("the fourth of three is answered with %d, %v", resp.StatusCode, resp.Header)
	}
	backend.manifest = manifestOf("x/y", "{}")
	if resp := ask(t, h, http.MethodGet, "/v2/app/manifests/v1", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("a small one is answered with %d", resp.StatusCode)
	}
	backend.manifest = large
	close(w.let)
	slow.Wait()
	if resp := ask(t, h, http.MethodGet, "/v2/app/manifests/v1", nil); resp.StatusCode != http.StatusOK || h.large.Load() != 0 {
		t.Errorf("after all have ended: %d, and %d bytes count", resp.StatusCode, h.large.Load())
	}
}
