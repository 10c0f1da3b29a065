package registry

import (
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// discard is a response that goes nowhere, as cheaply as can be.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
func (d *discard) SetWriteDeadline(time.Time) error {
	return nil
}

var benchManifest = manifestOf(ocispec.MediaTypeImageManifest, `{"x":"`+strings.Repeat("m", 1000)+`"}`)

// warm answers as a node does from memory.
func warm() Config {
	return Config{Backend: &fakeBackend{
		manifest: benchManifest,
		blob:     blobOf(1<<20, &memory{bytes: make([]byte, 1<<20)}),
		cs:       CacheStatus{Outcome: OutcomeHit, Upstream: "docker.io", HasTTL: true, TTL: 287 * time.Second, Age: 13 * time.Second},
	}}
}

func benchmark(b *testing.B, cfg Config, target string, header http.Header) {
	b.Helper()
	h, w, r := NewHandler(cfg), &discard{http.Header{}}, newRequest(http.MethodGet, target)
	maps.Copy(r.Header, header)
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

func BenchmarkManifestByDigest(b *testing.B) {
	benchmark(b, warm(), "/v2/library/nginx/manifests/"+string(benchManifest.Digest), nil)
}

func BenchmarkManifestByTag(b *testing.B) {
	benchmark(b, warm(), "/v2/library/nginx/manifests/1.29", nil)
}

func BenchmarkManifestByTagWithNamespace(b *testing.B) {
	benchmark(b, warm(), "/v2/library/nginx/manifests/1.29?ns=docker.io", nil)
}

func BenchmarkManifestByTagObserved(b *testing.B) {
	cfg := warm()
	cfg.Done = func(*Observation) {}
	benchmark(b, cfg, "/v2/library/nginx/manifests/1.29", nil)
}

func BenchmarkBlobRange(b *testing.B) {
	benchmark(b, warm(), blobTarget, http.Header{"Range": {"bytes=1000-200999"}})
}

// TestWarmManifestAllocatesNothing is the benchmarks' promise, kept by a test.
func TestWarmManifestAllocatesNothing(t *testing.T) {
	h, w := NewHandler(warm()), &discard{http.Header{}}
	for _, reference := range []string{string(benchManifest.Digest), "1.29"} {
		r := newRequest(http.MethodGet, "/v2/library/nginx/manifests/"+reference)
		if n := testing.AllocsPerRun(200, func() {
			clear(w.header)
			h.ServeHTTP(w, r)
		}); n >= 1 { // a pool may lose what is in it now and then
			t.Errorf("%s: %v allocations", reference, n)
		}
	}
}

// BenchmarkLoopback compares whole requests over connections with a bare
// handler that sends the same body with as few headers as can be.
func BenchmarkLoopback(b *testing.B) {
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{ocispec.MediaTypeImageManifest}
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(benchManifest.Body))}
		_, _ = w.Write(benchManifest.Body)
	})
	observed := warm()
	observed.Done = func(*Observation) {}
	for _, bench := range []struct {
		name    string
		handler http.Handler
	}{
		{"bare", bare}, {"manifest", NewHandler(warm())}, {"observed", NewHandler(observed)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := httptest.NewServer(bench.handler)
			defer s.Close()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) { loopback(b, pb, s.Listener.Addr().String()) })
		})
	}
}

// loopback asks over one connection, with a client that costs next to nothing:
// the answers are all as long as the first.
func loopback(b *testing.B, pb *testing.PB, address string) {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	ask := []byte("GET /v2/library/nginx/manifests/1.29 HTTP/1.1\r\nHost: node.example\r\n\r\n")
	answer := make([]byte, 8<<10)
	size := 0
	for pb.Next() {
		if _, err := conn.Write(ask); err != nil {
			b.Error(err)
			return
		}
		if size == 0 {
			if size, err = conn.Read(answer); size < len(benchManifest.Body) {
				b.Errorf("%d bytes, %v", size, err)
				return
			}
			continue
		}
		if _, err := io.ReadFull(conn, answer[:size]); err != nil {
			b.Error(err)
			return
		}
	}
}
