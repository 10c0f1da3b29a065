package transfer_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"entrepot/promote/transfer"
)

func TestListsAreReadPageByPage(t *testing.T) {
	reg := newFakeRegistry(t)
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprintf("v%d", i))
		reg.pusher(t, "app").image(nil, want[i], "text")
		reg.pusher(t, fmt.Sprintf("repo%d", i))
	}
	client := newClient(t)
	if got, err := client.Tags(t.Context(), ofRepo(reg, "app")); err != nil || !slices.Equal(got, want) {
		t.Errorf("tags %q, %v", got, err)
	}
	if got, err := client.Repositories(t.Context(), reg.host()); err != nil || len(got) != 8 || got[0] != "app" {
		t.Errorf("repositories %q, %v", got, err)
	}
}

func TestIndexesOfBuildCachesNameBlobs(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	p := from.pusher(t, "cache")
	root := p.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{
		MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{p.blob([]byte("cached layer"))},
	})
	client := newClient(t)
	if _, err := client.Copy(t.Context(), transfer.Copy{From: ofRepo(from, "cache"), To: ofRepo(to, "cache"), Digest: root.Digest}); err != nil {
		t.Fatal(err)
	}
	sameContent(t, p.repo, to.repo("cache"))
	image, err := client.Inspect(t.Context(), ofRepo(to, "cache"), root.Digest)
	if err != nil || len(image.Manifests) != 1 || len(image.Blobs) != 1 || image.Size != root.Size+12 {
		t.Errorf("inspected %+v, %v", image, err)
	}
}

func TestVerifyFindsEveryWrongBlob(t *testing.T) {
	reg := newFakeRegistry(t)
	p := reg.pusher(t, "app")
	root := p.index()
	client := newClient(t)
	if err := client.Verify(t.Context(), ofRepo(reg, "app"), root.Digest); err != nil {
		t.Fatal(err)
	}
	wrong := digest.FromString("shared by all")
	lost := digest.FromString("app amd64")
	p.repo.blobs[wrong] = []byte("shared by alL")
	delete(p.repo.blobs, lost)
	err := client.Verify(t.Context(), ofRepo(reg, "app"), root.Digest)
	if !errors.Is(err, transfer.ErrCorrupt) || !errors.Is(err, transfer.ErrNotFound) ||
		!strings.Contains(err.Error(), wrong.String()) || !strings.Contains(err.Error(), lost.String()) {
		t.Error(err)
	}
}

func TestBlobsAreReadWhereTheRegistryRedirectsTo(t *testing.T) {
	from, to, storage := newFakeRegistry(t), newFakeRegistry(t), newFakeRegistry(t)
	root := from.pusher(t, "app").image(nil, "v1", "layer")
	storage.pusher(t, "app").image(nil, "", "layer")
	var leaked atomic.Bool
	storage.fault = func(_ http.ResponseWriter, r *http.Request) bool {
		leaked.Store(leaked.Load() || r.Header.Get("Authorization") != "")
		return false
	}
	from.fault = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "/blobs/"):
			redirect(w, storage.URL+r.URL.Path)
		default:
			return false
		}
		return true
	}
	client := newClient(t, func(c *transfer.Config) { c.DockerConfig = writeDockerConfig(t, from.host(), "secret") })
	if err := copyApp(t, client, from, to, root.Digest); err != nil {
		t.Fatal(err)
	}
	sameContent(t, from.repo("app"), to.repo("app"))
	if leaked.Load() {
		t.Error("the storage was sent the registry's credentials")
	}

	to.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			redirect(w, storage.URL+r.URL.Path)
			return true
		}
		return false
	}
	other := from.pusher(t, "app").image(nil, "v2", "another layer")
	storage.pusher(t, "app").image(nil, "", "another layer")
	if err := copyApp(t, client, from, to, other.Digest); !errors.Is(err, transfer.ErrRefused) {
		t.Errorf("an upload was redirected: %v", err)
	}
}
