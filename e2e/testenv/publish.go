package testenv

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// publisher pushes into one repository and fails the test when it cannot.
type publisher struct {
	t    testing.TB
	name string
	repo *remote.Repository
}

// newPublisher opens the repository name of the registry at host
// ("127.0.0.1:5000"), which is spoken to in plain HTTP.
func newPublisher(t testing.TB, host, name string) *publisher {
	t.Helper()
	repo, err := remote.NewRepository(host + "/" + name)
	if err != nil {
		t.Fatalf("naming repository %s at %s: %v", name, host, err)
	}
	repo.PlainHTTP = true
	// For those that ask; others are told nothing.
	repo.Client = &auth.Client{Credential: auth.StaticCredential(host, auth.Credential{Username: Promoter, Password: PromoterPassword})}
	return &publisher{t: t, name: name, repo: repo}
}

// push sends one blob or manifest, which may be there already.
func (p *publisher) push(desc ocispec.Descriptor, body io.Reader) ocispec.Descriptor {
	p.t.Helper()
	ctx := p.t.Context()
	there, err := p.repo.Exists(ctx, desc)
	if err != nil {
		p.t.Fatalf("asking %s for %s: %v", p.name, desc.Digest, err)
	}
	if there {
		return desc
	}
	if err := p.repo.Push(ctx, desc, body); err != nil {
		p.t.Fatalf("pushing %s (%s) to %s: %v", desc.Digest, desc.MediaType, p.name, err)
	}
	return desc
}

func (p *publisher) blob(mediaType string, body []byte) ocispec.Descriptor {
	p.t.Helper()
	return p.push(content.NewDescriptorFromBytes(mediaType, body), bytes.NewReader(body))
}

func (p *publisher) json(mediaType string, value any) ocispec.Descriptor {
	p.t.Helper()
	body, err := json.Marshal(value)
	if err != nil {
		p.t.Fatalf("encoding a %s: %v", mediaType, err)
	}
	return p.blob(mediaType, body)
}

func (p *publisher) layer(l layer) ocispec.Descriptor {
	p.t.Helper()
	return p.push(l.desc, l.open())
}

func (p *publisher) tag(desc ocispec.Descriptor, tag string) {
	p.t.Helper()
	if err := p.repo.Tag(p.t.Context(), desc, tag); err != nil {
		p.t.Fatalf("tagging %s as %s:%s: %v", desc.Digest, p.name, tag, err)
	}
}

// tagged pushes a manifest under a tag; what it refers to is there already.
func (p *publisher) tagged(tag string, manifest ocispec.Manifest) Artifact {
	p.t.Helper()
	manifest.Versioned = specs.Versioned{SchemaVersion: 2}
	manifest.MediaType = ocispec.MediaTypeImageManifest
	root := p.json(manifest.MediaType, manifest)
	p.tag(root, tag)
	return Artifact{
		Repository: p.name, Tag: tag, Root: root,
		Manifests: []digest.Digest{root.Digest},
		Blobs:     append(slices.Clone(manifest.Layers), manifest.Config),
	}
}

// layer is a layer that can be made again and again, byte for byte.
type layer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest // of the tar, before compression
	open   func() io.Reader
}

// tarLayer is an uncompressed layer of size bytes, a multiple of 512 and at
// least 2048: one file, random for every seed.
func tarLayer(seed string, size int64) layer {
	const trailer = 1024 // two empty blocks end a tar
	var header bytes.Buffer
	fileSize := size - 512 - trailer
	// Nothing is written after the header, so Flush is not asked to complain
	// about the missing file.
	err := tar.NewWriter(&header).WriteHeader(&tar.Header{
		Name: "data-" + digest.FromString(seed).Encoded()[:8], Mode: 0o644, Size: fileSize, Format: tar.FormatUSTAR,
	})
	if err != nil || header.Len() != 512 || fileSize < 0 || size%512 != 0 {
		panic("tarLayer: a size that one tar block cannot describe") // a mistake in the test itself
	}
	open := func() io.Reader {
		return io.MultiReader(
			bytes.NewReader(header.Bytes()),
			io.LimitReader(randomness(seed), fileSize),
			bytes.NewReader(make([]byte, trailer)))
	}
	hash := sha256.New()
	n, err := io.Copy(hash, open())
	if err != nil || n != size {
		panic("tarLayer: the tar has another size than planned")
	}
	d := digest.NewDigest(digest.SHA256, hash)
	return layer{
		desc:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size},
		diffID: d,
		open:   open,
	}
}

// gzipLayer compresses a small layer in memory.
func gzipLayer(t testing.TB, l layer) layer {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	if _, err := io.Copy(zip, l.open()); err != nil {
		t.Fatalf("compressing a layer: %v", err)
	}
	if err := zip.Close(); err != nil {
		t.Fatalf("compressing a layer: %v", err)
	}
	return layer{
		desc:   content.NewDescriptorFromBytes(ocispec.MediaTypeImageLayerGzip, out.Bytes()),
		diffID: l.diffID,
		open:   func() io.Reader { return bytes.NewReader(out.Bytes()) },
	}
}

// gzipFiles makes a gzip tar of small text files, in the order of their names.
func gzipFiles(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	archive := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		body := files[name]
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatalf("archiving %s: %v", name, err)
		}
		if _, err := io.WriteString(archive, body); err != nil {
			t.Fatalf("archiving %s: %v", name, err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatalf("ending an archive: %v", err)
	}
	if err := zip.Close(); err != nil {
		t.Fatalf("ending an archive: %v", err)
	}
	return out.Bytes()
}

// randomness is an endless stream of bytes that no compression makes smaller,
// the same for the same seed.
func randomness(seed string) io.Reader {
	return rand.NewChaCha8(sha256.Sum256([]byte(seed)))
}
