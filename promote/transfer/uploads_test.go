package transfer_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"entrepot/promote/transfer"
)

// cutUploads breaks so many uploads after some bytes, which the registry keeps.
func cutUploads(to *fakeRegistry, times int32, bytes int) {
	var cut atomic.Int32
	to.fault = func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/uploads/") || r.ContentLength < int64(bytes) || cut.Add(1) > times {
			return false
		}
		body := make([]byte, bytes)
		n := 0
		for n < bytes {
			m, err := r.Body.Read(body[n:])
			n += m
			if err != nil {
				break
			}
		}
		id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		to.mu.Lock()
		to.sessions[id] = append(to.sessions[id], body[:n]...)
		to.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
}

func TestACutUploadGoesOnWhereTheRegistrySaysItBroke(t *testing.T) {
	for _, resumes := range []bool{true, false} {
		t.Run(fmt.Sprintf("the registry tells: %v", resumes), func(t *testing.T) {
			from, to := newFakeRegistry(t), newFakeRegistry(t)
			to.resumes = resumes
			layer := randomBytes(4 << 20)
			root := from.pusher(t, "app").image(nil, "v1", string(layer))
			cutUploads(to, 1, 2<<20)
			if err := copyApp(t, newClient(t), from, to, root.Digest); err != nil {
				t.Fatal(err)
			}
			sameContent(t, from.repo("app"), to.repo("app"))
			if patches := to.requests(http.MethodPatch); (len(patches) == 1) != resumes {
				t.Errorf("chunks sent: %q", patches)
			}
			sessions := map[bool]int{true: 2, false: 3}[resumes] // config and layer
			if posts := to.requests(http.MethodPost); len(posts) != sessions {
				t.Errorf("%d sessions, want %d", len(posts), sessions)
			}
		})
	}
}

func TestAnUploadThatGetsOnIsNotGivenUp(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	layer := randomBytes(16 << 20)
	root := from.pusher(t, "app").image(nil, "v1", string(layer))
	cutUploads(to, 4, 3<<20)
	if err := copyApp(t, newClient(t, func(c *transfer.Config) { c.Attempts = 2 }), from, to, root.Digest); err != nil {
		t.Fatal(err)
	}
	sameContent(t, from.repo("app"), to.repo("app"))
}

func TestADestinationThatStoresSomethingElseIsFoundOut(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	to.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Docker-Content-Digest", digest.FromString("converted").String())
		w.WriteHeader(http.StatusCreated)
		return true
	}
	root := from.pusher(t, "app").image(nil, "v1", "layer")
	if err := copyApp(t, newClient(t), from, to, root.Digest); !errors.Is(err, transfer.ErrCorrupt) || !strings.Contains(err.Error(), to.host()) {
		t.Error(err)
	}
}

func TestABlobThatManyImagesShareIsSentOnce(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	p := from.pusher(t, "app")
	client := newClient(t)
	var roots []ocispec.Descriptor
	for i := range 20 {
		roots = append(roots, p.image(nil, "", "shared", fmt.Sprint("own ", i)))
	}
	var group sync.WaitGroup
	for _, root := range roots {
		group.Go(func() {
			if err := copyApp(t, client, from, to, root.Digest); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var asked, sent int
	for _, line := range to.requests() {
		if strings.Contains(line, digest.FromString("shared").Encoded()) {
			if strings.HasPrefix(line, http.MethodHead) {
				asked++
			} else {
				sent++
			}
		}
	}
	if asked != 1 || sent != 1 {
		t.Errorf("the shared blob was asked for %d times and sent %d times", asked, sent)
	}
}
