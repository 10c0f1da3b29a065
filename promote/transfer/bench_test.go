package transfer_test

import (
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"entrepot/blobstore"
	"entrepot/promote/transfer"
	"entrepot/registry"
	"entrepot/registry/origin"
)

// newOriginRegistry serves a real origin, which anybody may write.
func newOriginRegistry(t testing.TB) string {
	t.Helper()
	dir, err := blobstore.OpenDir(filepath.Join(t.TempDir(), "store"), blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	memory, err := blobstore.NewMemory(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(memory.Close)
	o, err := origin.New(origin.Config{Store: dir, Memory: memory, Uploads: filepath.Join(t.TempDir(), "uploads")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	server := httptest.NewServer(registry.NewHandler(registry.Config{Backend: o, Authorizer: registry.Anyone{}}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// BenchmarkRelease copies 500 images of two platforms, which share a layer,
// from one repository to an origin: a release.
func BenchmarkRelease(b *testing.B) {
	const images = 500
	from := newFakeRegistry(b)
	p := from.pusher(b, "staging/app")
	roots := make([]digest.Digest, images)
	for i := range roots {
		roots[i] = p.release(i).Digest
	}
	for b.Loop() {
		to := transfer.Repository{Host: newOriginRegistry(b), Name: "prod/app"}
		var counters transfer.Counters
		client := newClient(b, func(c *transfer.Config) { c.Progress = &counters })
		group, ctx := errgroup.WithContext(b.Context())
		group.SetLimit(16)
		for i, root := range roots {
			group.Go(func() error {
				_, err := client.Copy(ctx, transfer.Copy{
					From: ofRepo(from, "staging/app"), To: to, Digest: root, Tags: []string{fmt.Sprintf("v%d", i)},
				})
				return err
			})
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		requests := int64(0)
		for _, n := range counters.Counts().Requests {
			requests += n
		}
		b.ReportMetric(float64(requests)/images, "requests/image")
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/images, "ms/image")
}
