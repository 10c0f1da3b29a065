package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestAdminListenerWithATokenTellsStrangersOnlyThatItLives(t *testing.T) {
	const token = "0123456789abcdef"
	var ready atomic.Bool
	ready.Store(true)
	h := withToken(token, adminHandler(prometheus.NewRegistry(), &ready, "1", http.NotFoundHandler()))
	open := []string{"/healthz", "/readyz"}
	guarded := []string{"/", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap", "/nowhere", "/healthz/", "/healthz/../metrics", "//metrics"}
	for authorization, known := range map[string]bool{
		"": false, "Bearer " + token: true, "bearer  " + token: true, "Basic " + token: false, token: false,
		"Bearer ": false, "Bearer " + token + "x": false, "Bearer 0123456789abcdeF": false,
	} {
		get := func(path string) *http.Response {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.URL.Path = path
			r.Header.Set("Authorization", authorization)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Result()
		}
		for _, path := range open {
			if resp := get(path); resp.StatusCode != http.StatusOK {
				t.Errorf("%s with %q: %s", path, authorization, resp.Status)
			}
		}
		for _, path := range guarded {
			resp := get(path)
			if refused := resp.StatusCode == http.StatusUnauthorized; refused == known {
				t.Errorf("%s with %q: %s", path, authorization, resp.Status)
			}
			if !known && resp.Header.Get("WWW-Authenticate") != `Bearer realm="entrepot admin"` {
				t.Errorf("%s with %q: challenge %q", path, authorization, resp.Header.Get("WWW-Authenticate"))
			}
		}
	}
	w := httptest.NewRecorder()
	withToken("", adminHandler(prometheus.NewRegistry(), &ready, "1", http.NotFoundHandler())).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Errorf("without a token configured: %d", w.Code)
	}
}
