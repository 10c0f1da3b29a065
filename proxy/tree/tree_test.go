package tree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var errAbsent = errors.New("there is no such manifest")

// repository has manifests, and visits what is asked of it.
type repository struct {
	manifests map[digest.Digest][]byte
	tags      map[string]digest.Digest
	names     map[digest.Digest]string
	broken    digest.Digest // a blob that cannot be had
	visited   []string
}

func newRepository() *repository {
	return &repository{manifests: map[digest.Digest][]byte{}, tags: map[string]digest.Digest{}, names: map[digest.Digest]string{}}
}

func (r *repository) Manifest(_ context.Context, reference string) (digest.Digest, []byte, error) {
	d, tagged := r.tags[reference]
	if !tagged {
		d = digest.Digest(reference)
	}
	body, ok := r.manifests[d]
	if !ok {
		return "", nil, errAbsent
	}
	r.visited = append(r.visited, r.names[d])
	return d, body, nil
}

func (r *repository) Blob(_ context.Context, d ocispec.Descriptor) error {
	if d.Digest == r.broken {
		return errors.New("it broke")
	}
	r.visited = append(r.visited, r.names[d.Digest])
	return nil
}

func (r *repository) blob(name, mediaType string) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(name), Size: int64(len(name))}
	r.names[d.Digest] = name
	return d
}

func (r *repository) manifest(name, mediaType string, m manifest) ocispec.Descriptor {
	body, err := json.Marshal(struct {
		manifest

		Name string `json:"name"`
	}{m, name})
	if err != nil {
		panic(err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	r.manifests[d.Digest], r.names[d.Digest] = body, name
	return d
}

// image is a manifest with a config of its own.
func (r *repository) image(name string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	config := r.blob("config of "+name, ocispec.MediaTypeImageConfig)
	return r.manifest(name, ocispec.MediaTypeImageManifest, manifest{Config: &config, Layers: layers})
}

func TestWalkVisitsAnIndexItsManifestsAndTheirBlobsEachOnce(t *testing.T) {
	r := newRepository()
	shared := r.blob("shared layer", ocispec.MediaTypeImageLayerGzip)
	amd := r.image("amd64", shared, r.blob("layer of amd64", ocispec.MediaTypeImageLayerGzip))
	arm := r.image("arm64", shared)
	inner := r.manifest("inner index", ocispec.MediaTypeImageIndex, manifest{Manifests: []ocispec.Descriptor{arm, amd}})
	root := r.manifest("index", ocispec.MediaTypeImageIndex, manifest{Manifests: []ocispec.Descriptor{amd, inner}})
	r.tags["v1"] = root.Digest
	w := Walker{Visitor: r}
	if d, err := w.Walk(t.Context(), "v1"); err != nil || d != root.Digest {
		t.Fatal(d, err)
	}
	want := []string{"index", "amd64", "shared layer", "layer of amd64", "config of amd64", "inner index", "arm64", "config of arm64"}
	if diff := cmp.Diff(want, r.visited); diff != "" {
		t.Errorf("visited (-want +got):\n%s", diff)
	}
	if len(w.Seen()) != len(want) || !w.Seen()[arm.Digest] || w.Seen()[shared.Digest] {
		t.Errorf("seen %v", w.Seen())
	}
	if _, err := w.Walk(t.Context(), root.Digest.String()); err != nil || len(r.visited) != len(want) {
		t.Errorf("a second walk: %v, %d visits", err, len(r.visited))
	}
}

func TestWalkLeavesWhatLiesElsewhereAndWhatIsNotChosen(t *testing.T) {
	r := newRepository()
	foreign := r.blob("foreign layer", ocispec.MediaTypeImageLayerGzip)
	foreign.URLs = []string{"https://files.example.org/layer"}
	wanted, other := r.image("wanted", foreign), r.image("other")
	root := r.manifest("index", ocispec.MediaTypeImageIndex, manifest{Manifests: []ocispec.Descriptor{other, wanted}})
	w := Walker{Visitor: r, Choose: func(children []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		return slices.DeleteFunc(children, func(d ocispec.Descriptor) bool { return d.Digest == other.Digest }), nil
	}}
	if _, err := w.Walk(t.Context(), root.Digest.String()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"index", "wanted", "config of wanted"}, r.visited); diff != "" {
		t.Errorf("visited (-want +got):\n%s", diff)
	}
}

// Build caches are indexes that name layers.
func TestWalkTellsBlobsFromManifestsByTheirTypesAndElseByAsking(t *testing.T) {
	r := newRepository()
	unknown := r.blob("of an unknown type", "application/vnd.example.cache.v1")
	root := r.manifest("cache", ocispec.MediaTypeImageIndex, manifest{Manifests: []ocispec.Descriptor{
		r.blob("layer", ocispec.MediaTypeImageLayerGzip), unknown, r.blob("config", "application/vnd.example.config.v1+json"),
	}})
	w := Walker{Visitor: r, Absent: func(err error) bool { return errors.Is(err, errAbsent) }}
	if _, err := w.Walk(t.Context(), root.Digest.String()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cache", "layer", "of an unknown type", "config"}, r.visited); diff != "" {
		t.Errorf("visited (-want +got):\n%s", diff)
	}
	lost := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("lost")}
	root = r.manifest("index", ocispec.MediaTypeImageIndex, manifest{Manifests: []ocispec.Descriptor{lost}})
	if _, err := w.Walk(t.Context(), root.Digest.String()); !errors.Is(err, errAbsent) || !strings.Contains(err.Error(), string(lost.Digest)) {
		t.Errorf("with a manifest that is lost: %v", err)
	}
}

func TestWalkCountsNothingAsSeenThatFailed(t *testing.T) {
	r := newRepository()
	layer := r.blob("layer", ocispec.MediaTypeImageLayerGzip)
	root := r.image("image", layer)
	r.broken = layer.Digest
	w := Walker{Visitor: r}
	if _, err := w.Walk(t.Context(), root.Digest.String()); err == nil || !strings.Contains(err.Error(), "blob "+string(layer.Digest)) {
		t.Fatal(err)
	}
	if _, seen := w.Seen()[layer.Digest]; seen || len(w.Seen()) != 1 {
		t.Errorf("seen %v", w.Seen())
	}
}

func TestWalkEndsWhereThereIsTooMuch(t *testing.T) {
	r := newRepository()
	layers := make([]ocispec.Descriptor, 10)
	for i := range layers {
		layers[i] = r.blob(fmt.Sprint(i), ocispec.MediaTypeImageLayer)
	}
	w := Walker{Visitor: r, Most: 10}
	_, err := w.Walk(t.Context(), r.image("image", layers...).Digest.String())
	if err == nil || !strings.Contains(err.Error(), "more than 10 ") || len(w.Seen()) != w.Most {
		t.Errorf("%v; %d seen", err, len(w.Seen()))
	}
}
