package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	"entrepot/promote/config"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// stagingRepository is where the release waits, at the staging registry.
	stagingRepository = "staging-release"
	// baseBytes is the layer that all versions of an image have in common, for
	// one platform; ownBytes the one that each has of its own. They are small,
	// because what is measured is the work for each name.
	baseBytes, ownBytes = 16 << 10, 4 << 10
)

// platforms of each image.
func platforms() []string { return []string{"amd64", "arm64"} }

// release is what is staged: images of two platforms, each version under a
// name of its own.
type release struct {
	images []config.Image
	names  []string // "image0001:v1.0.3"
	bytes  int64    // of everything, each blob and manifest once
}

// stage pushes a release to the registry at host, many images at once.
func stage(t testing.TB, host string, o options) *release {
	t.Helper()
	r := &release{images: make([]config.Image, o.images)}
	client := &auth.Client{Client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.concurrency}}}
	defer client.Client.CloseIdleConnections()
	sizes := make([]int64, o.images)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(o.concurrency)
	for i := range o.images {
		group.Go(func() (err error) {
			p, err := newPusher(host, fmt.Sprintf("image%04d", i), uint64(i), client)
			if err != nil {
				return err
			}
			r.images[i], err = p.versions(ctx, o.versions)
			sizes[i] = p.bytes
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("staging the release: %v", err)
	}
	for _, size := range sizes {
		r.bytes += size
	}
	r.names = namesOf(r.images)
	return r
}

// first is the part of a release that has a number of its images.
func (r *release) first(images int) *release {
	part := r.images[:images]
	return &release{images: part, names: namesOf(part)}
}

func namesOf(images []config.Image) (names []string) {
	for _, image := range images {
		for _, e := range image.Entries {
			names = append(names, image.Name+":"+e.Tags[0])
		}
	}
	return names
}

// project promotes the release from the staging registry to destinations.
func (r *release) project(host string, destinations []string) *config.Project {
	return &config.Project{
		Name: "staging-release", Kind: config.Images, Source: host + "/" + stagingRepository,
		Destinations: destinations, Images: r.images,
	}
}

// pusher pushes the versions of one image.
type pusher struct {
	name   string
	repo   *remote.Repository
	random io.Reader
	bytes  int64
}

func newPusher(host, name string, seed uint64, client *auth.Client) (*pusher, error) {
	repo, err := remote.NewRepository(host + "/" + stagingRepository + "/" + name)
	if err != nil {
		return nil, err
	}
	repo.PlainHTTP, repo.Client = true, client
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return &pusher{name: name, repo: repo, random: rand.NewChaCha8(key)}, nil
}

func (p *pusher) versions(ctx context.Context, n int) (config.Image, error) {
	image := config.Image{Name: p.name}
	bases := map[string]ocispec.Descriptor{}
	for _, platform := range platforms() {
		base, err := p.layer(ctx, baseBytes)
		if err != nil {
			return image, err
		}
		bases[platform] = base
	}
	for v := range n {
		tag := fmt.Sprintf("v1.0.%d", v)
		index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
		for _, platform := range platforms() {
			m, err := p.manifest(ctx, platform, bases[platform])
			if err != nil {
				return image, err
			}
			m.Platform = &ocispec.Platform{OS: "linux", Architecture: platform}
			index.Manifests = append(index.Manifests, m)
		}
		body, err := json.Marshal(index)
		if err != nil {
			return image, err
		}
		desc := content.NewDescriptorFromBytes(index.MediaType, body)
		p.bytes += desc.Size
		if err := p.repo.PushReference(ctx, desc, bytes.NewReader(body), tag); err != nil {
			return image, fmt.Errorf("pushing %s:%s: %w", p.name, tag, err)
		}
		image.Entries = append(image.Entries, config.Entry{Digest: desc.Digest, Tags: []string{tag}})
	}
	// As lists have them.
	slices.SortFunc(image.Entries, func(a, b config.Entry) int { return bytes.Compare([]byte(a.Digest), []byte(b.Digest)) })
	return image, nil
}

// manifest pushes the image of one platform.
func (p *pusher) manifest(ctx context.Context, platform string, base ocispec.Descriptor) (ocispec.Descriptor, error) {
	own, err := p.layer(ctx, ownBytes)
	if err != nil {
		return own, err
	}
	layers := []ocispec.Descriptor{base, own}
	image := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: platform},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{base.Digest, own.Digest}},
	}
	settings, err := p.json(ctx, ocispec.MediaTypeImageConfig, image)
	if err != nil {
		return settings, err
	}
	return p.json(ctx, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: settings, Layers: layers,
	})
}

// layer pushes bytes that nobody unpacks.
func (p *pusher) layer(ctx context.Context, size int) (ocispec.Descriptor, error) {
	body := make([]byte, size)
	if _, err := io.ReadFull(p.random, body); err != nil {
		return ocispec.Descriptor{}, err
	}
	return p.push(ctx, ocispec.MediaTypeImageLayer, body)
}

func (p *pusher) json(ctx context.Context, mediaType string, value any) (ocispec.Descriptor, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return p.push(ctx, mediaType, body)
}

func (p *pusher) push(ctx context.Context, mediaType string, body []byte) (ocispec.Descriptor, error) {
	desc := content.NewDescriptorFromBytes(mediaType, body)
	p.bytes += desc.Size
	if err := p.repo.Push(ctx, desc, bytes.NewReader(body)); err != nil {
		return desc, fmt.Errorf("pushing %s to %s: %w", desc.Digest, p.name, err)
	}
	return desc, nil
}
