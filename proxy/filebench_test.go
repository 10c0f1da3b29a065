package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/upstream"
	"entrepot/registry"
)

// nowhere is a response that goes nowhere, as cheaply as can be.
type nowhere struct{ header http.Header }

func (w *nowhere) Header() http.Header              { return w.header }
func (w *nowhere) Write(p []byte) (int, error)      { return len(p), nil }
func (w *nowhere) WriteHeader(int)                  {}
func (w *nowhere) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkSmallFile is a warm file of 4 KiB, from memory.
func BenchmarkSmallFile(b *testing.B) {
	f := hosted{body: randomBytes(4<<10, 1), etag: `"v1"`, header: http.Header{"Content-Type": {"text/plain"}}}
	up := httptest.NewServer(http.HandlerFunc(f.serve))
	defer up.Close()
	local, err := blobstore.OpenDir(b.TempDir(), blobstore.DirConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer local.Close()
	memory, err := blobstore.NewMemory(16 << 20)
	if err != nil {
		b.Fatal(err)
	}
	defer memory.Close()
	n, err := New(Config{Local: local, Memory: memory, Files: []FileUpstreamConfig{{
		Config: upstream.Config{Name: "up", URLs: []string{up.URL}}, Policy: Policy{TTL: time.Hour},
		Moving: []string{"**/InRelease", "**/Packages*", "**/index.yaml"},
	}}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = n.Close(b.Context()) }()
	h := registry.NewFileHandler(n, registry.Config{Done: func(*registry.Observation) {}})
	w := &nowhere{http.Header{}}
	r := httptest.NewRequest(http.MethodGet, "/up/release/v1.36.0/kubectl.sha256", nil)
	h.ServeHTTP(w, r)
	for {
		if v, known := n.files.peek(nameKey{up: n.fileUpstreams["up"], repo: "release/v1.36.0/kubectl.sha256"}); known && v.digest != "" {
			break
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}
