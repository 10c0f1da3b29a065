package origin_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"entrepot/blobstore"
	"entrepot/registry"
	"entrepot/registry/origin"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// discard is a response that goes nowhere.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func benchOrigin(b *testing.B) http.Handler {
	b.Helper()
	memory, err := blobstore.NewMemory(16 << 20)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(memory.Close)
	o, err := origin.New(origin.Config{Store: openDir(b), Memory: memory, Uploads: filepath.Join(b.TempDir(), "uploads")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = o.Close() })
	return registry.NewHandler(registry.Config{Backend: o, Authorizer: registry.Anyone{}})
}

func benchRequest(b *testing.B, h http.Handler, want int, method, target string, body []byte) {
	b.Helper()
	r := httptest.NewRequest(method, target, bytes.NewReader(body))
	r.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
	w := &discard{header: http.Header{}}
	if h.ServeHTTP(w, r); w.status != want {
		b.Fatalf("%s %s: %d, want %d", method, target, w.status, want)
	}
}

func BenchmarkManifestByTag(b *testing.B) {
	h := benchOrigin(b)
	benchRequest(b, h, http.StatusCreated, "PUT", manifestPath("a/b", "x"), indexOf())
	r, w := httptest.NewRequest(http.MethodGet, manifestPath("a/b", "x"), nil), &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

func BenchmarkPushManifest(b *testing.B) {
	h := benchOrigin(b)
	for b.Loop() {
		body := append(bytes.TrimSuffix(indexOf(), []byte("}")), `,"x":"`+digest.FromBytes(random(8)).Encoded()+`"}`...)
		benchRequest(b, h, http.StatusCreated, "PUT", manifestPath("a/b", "x"), body)
	}
}

func BenchmarkUpload(b *testing.B) {
	h, content := benchOrigin(b), random(32<<20)
	b.SetBytes(int64(len(content)))
	for i := 0; b.Loop(); i++ {
		content[0], content[1] = byte(i), byte(i>>8)
		b.StopTimer()
		d := digest.FromBytes(content)
		b.StartTimer()
		benchRequest(b, h, http.StatusCreated, "POST", "/v2/a/blobs/uploads/?digest="+d.String(), content)
	}
}
