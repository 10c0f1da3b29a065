package proxy

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"entrepot/blobstore"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// BenchmarkHit is a blob of 64 MiB from the store to a client on the same
// machine: sent by the kernel, and verified on the way.
func BenchmarkHit(b *testing.B) {
	for name, verify := range map[string]bool{"plain": false, "verify_reads": true} {
		b.Run(name, func(b *testing.B) {
			local, err := blobstore.OpenDir(b.TempDir(), blobstore.DirConfig{})
			if err != nil {
				b.Fatal(err)
			}
			defer local.Close()
			memory, err := blobstore.NewMemory(1 << 20)
			if err != nil {
				b.Fatal(err)
			}
			defer memory.Close()
			blob := randomBytes(64*mib, 1)
			d := digest.FromBytes(blob)
			if err := local.Put(b.Context(), d, int64(len(blob)), bytes.NewReader(blob)); err != nil {
				b.Fatal(err)
			}
			cfg := Config{Local: local, Memory: memory, Default: "docker.io", VerifyReads: verify}
			cfg.Upstreams = []UpstreamConfig{{}}
			cfg.Upstreams[0].Name, cfg.Upstreams[0].URLs = "docker.io", []string{"http://127.0.0.1:1"}
			n, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = n.Close(b.Context()) }() // nothing runs any more
			server := httptest.NewServer(registry.NewHandler(registry.Config{Backend: n}))
			defer server.Close()
			b.SetBytes(int64(len(blob)))
			for b.Loop() {
				resp, err := http.Get(server.URL + blobPath(d))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(len(blob)) {
					b.Fatalf("%d bytes, %v", n, err)
				}
				resp.Body.Close()
			}
		})
	}
}
