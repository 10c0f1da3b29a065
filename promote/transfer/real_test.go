package transfer_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entrepot/e2e/testenv"
	"entrepot/promote/transfer"
)

// cutTransport breaks the first large upload after some bytes.
type cutTransport struct {
	http.RoundTripper

	after int64
	cut   atomic.Bool

	mu      sync.Mutex
	methods []string // of requests that uploaded blobs
}

func (t *cutTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.Contains(req.URL.Path, "/blobs/uploads/") && req.ContentLength > 1<<20 {
		t.mu.Lock()
		t.methods = append(t.methods, req.Method)
		t.mu.Unlock()
		if !t.cut.Swap(true) {
			req = req.Clone(req.Context())
			req.Body = &cutBody{ReadCloser: req.Body, left: t.after}
		}
	}
	return t.RoundTripper.RoundTrip(req)
}

type cutBody struct {
	io.ReadCloser

	left int64
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the network broke")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func TestBetweenRealRegistries(t *testing.T) {
	staging, prod := testenv.StartRegistry(t), testenv.StartRegistry(t)
	app := testenv.PushIndex(t, staging.Host(), "staging/app", "v1")
	testenv.PushReferrers(t, staging.Host(), app)
	testenv.PushCosignSignature(t, staging.Host(), app)
	big := testenv.PushBigImage(t, staging.Host(), "staging/big", "v1", 16<<20)
	from := transfer.Repository{Host: staging.Host(), Name: "staging/app"}
	to := transfer.Repository{Host: prod.Host(), Name: "prod/app"}
	ctx := t.Context()

	t.Run("an image with all that is about it", func(t *testing.T) {
		client := newClient(t)
		got, err := client.Copy(ctx, transfer.Copy{From: from, To: to, Digest: app.Root.Digest, Tags: []string{"v1"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Attached) != 3 {
			t.Errorf("attached %+v, want two referrers and a signature", got.Attached)
		}
		if err := client.Verify(ctx, to, app.Root.Digest); err != nil {
			t.Error(err)
		}
		desc, err := client.Resolve(ctx, transfer.Ref{Repository: to, Tag: "v1"})
		if err != nil || desc.Digest != app.Root.Digest || desc.Size != app.Root.Size || desc.MediaType != app.Root.MediaType {
			t.Errorf("resolved %+v, %v", desc, err)
		}
		want := []string{"sha256-" + app.Root.Digest.Encoded(), "sha256-" + app.Root.Digest.Encoded() + ".sig", "v1"}
		if tags, err := client.Tags(ctx, to); err != nil || !slices.Equal(tags, want) {
			t.Errorf("tags %q, %v, want %q", tags, err, want)
		}
	})
	t.Run("an upload that is cut", func(t *testing.T) {
		transport := &cutTransport{RoundTripper: http.DefaultTransport, after: 9 << 20}
		client := newClient(t, func(c *transfer.Config) {
			c.Transport = transport
			c.FirstBackoff = 500 * time.Millisecond // in which the registry notices
		})
		repo := transfer.Repository{Host: prod.Host(), Name: "prod/big"}
		if _, err := client.Copy(ctx, transfer.Copy{
			From: transfer.Repository{Host: staging.Host(), Name: "staging/big"}, To: repo, Digest: big.Root.Digest, Tags: []string{"v1"},
		}); err != nil {
			t.Fatal(err)
		}
		if err := client.Verify(ctx, repo, big.Root.Digest); err != nil {
			t.Error(err)
		}
		if !slices.Equal(transport.methods, []string{http.MethodPut, http.MethodPatch}) {
			t.Errorf("uploads %q, want the second to go on where the first broke", transport.methods)
		}
	})
	t.Run("within a registry", func(t *testing.T) {
		var counters transfer.Counters
		client := newClient(t, func(c *transfer.Config) { c.Progress = &counters })
		moved := transfer.Repository{Host: prod.Host(), Name: "other/app"}
		if _, err := client.Copy(ctx, transfer.Copy{From: to, To: moved, Digest: app.Root.Digest, Tags: []string{"v1", "v2"}}); err != nil {
			t.Fatal(err)
		}
		if n := counters.Counts(); n.BlobsSent != 0 || n.BlobsMounted == 0 {
			t.Errorf("counts %+v, want mounts only", n)
		}
		names, err := client.Repositories(ctx, prod.Host())
		if err != nil || !slices.Equal(names, []string{"other/app", "prod/app", "prod/big"}) {
			t.Errorf("repositories %q, %v", names, err)
		}
		if err := client.DeleteTag(ctx, moved, "v1"); err != nil {
			t.Error(err)
		}
		if _, err := client.Resolve(ctx, transfer.Ref{Repository: moved, Tag: "v1"}); !errors.Is(err, transfer.ErrNotFound) {
			t.Errorf("after deleting the tag: %v", err)
		}
		if err := client.Tag(ctx, moved, app.Root.Digest, "v3"); err != nil {
			t.Error(err)
		}
		if err := client.DeleteManifest(ctx, moved, app.Root.Digest); err != nil {
			t.Error(err)
		}
		if err := client.Verify(ctx, moved, app.Root.Digest); !errors.Is(err, transfer.ErrNotFound) {
			t.Errorf("after deleting the manifest: %v", err)
		}
	})
}
