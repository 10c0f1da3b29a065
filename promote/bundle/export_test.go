package bundle

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// origin is a node that an export is made from.
type origin struct {
	*httptest.Server

	mu      sync.Mutex
	objects map[string]string // by path
	lost    string            // a path that is answered with 404
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{objects: map[string]string{}}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		content, ok := o.objects[r.URL.Path]
		ok = ok && r.URL.Path != o.lost
		o.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", digest.FromString(content).String())
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write([]byte(content))
	}))
	t.Cleanup(o.Close)
	return o
}

// push makes an image of one layer be there.
func (o *origin) push(t *testing.T, repository, layer string) Image {
	t.Helper()
	blob := func(content string) ocispec.Descriptor {
		d := digest.FromString(content)
		o.objects["/v2/registry.test/"+repository+"/blobs/"+d.String()] = content
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(content))}
	}
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: blob(`{"of": "` + repository + `"}`), Layers: []ocispec.Descriptor{blob(layer)},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(body)
	o.objects["/v2/registry.test/"+repository+"/manifests/"+d.String()] = string(body)
	return Image{Upstream: "registry.test", Repository: repository, Tag: "v1", Root: ocispec.Descriptor{Digest: d, Size: int64(len(body))}}
}

// fetch has names written to a bundle, and returns those that were told to be done, sorted.
func (o *origin) fetch(t *testing.T, path string, c *Contents) (w *Writer, done []string, err error) {
	t.Helper()
	client, err := transfer.New(transfer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if w, err = Create(t.Context(), path, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	var mu sync.Mutex
	err = w.Fetch(t.Context(), &Source{Client: client, Host: strings.TrimPrefix(o.URL, "http://"), URL: o.URL, Done: func(name string) {
		mu.Lock()
		defer mu.Unlock()
		done = append(done, name)
	}}, c)
	slices.Sort(done)
	return w, done, err
}

func TestFetchTellsOfTheNameThatFailedAndGoesOnFromThere(t *testing.T) {
	o := newOrigin(t)
	names := func() *Contents {
		c := &Contents{}
		for n := range 20 {
			c.Images = append(c.Images, o.push(t, fmt.Sprintf("app-%02d", n), fmt.Sprintf("layer %d", n)))
		}
		o.objects["/dl.test/tool"] = "a tool"
		c.Files = []File{{Upstream: "dl.test", Path: "tool", Digest: digest.FromString("a tool"), Size: 6}}
		return c
	}
	c := names()
	o.lost = "/v2/registry.test/app-07/blobs/" + digest.FromString("layer 7").String()
	path := filepath.Join(t.TempDir(), "bundle.tar")
	w, done, err := o.fetch(t, path, c)
	if err == nil || !strings.Contains(err.Error(), "registry.test/app-07:v1: ") || !strings.Contains(err.Error(), string(digest.FromString("layer 7"))) {
		t.Fatalf("%v", err)
	}
	if slices.Contains(done, "registry.test/app-07:v1") || slices.Contains(done, "dl.test/tool") {
		t.Errorf("done are %q", done)
	}
	if w.Has(digest.FromString("layer 7")) || w.Has(digest.FromString("a tool")) {
		t.Errorf("it has what did not come")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	o.lost = ""
	o.mu.Unlock()
	w, done, err = o.fetch(t, path, names())
	if err != nil || len(done) != 21 {
		t.Fatalf("%v; done are %q", err, done)
	}
	once, _, err := o.fetch(t, filepath.Join(t.TempDir(), "bundle.tar"), names())
	if err != nil || once.vol.size != w.vol.size {
		t.Errorf("%v; in one go it has %d bytes, and %d after what failed", err, once.vol.size, w.vol.size)
	}
}
