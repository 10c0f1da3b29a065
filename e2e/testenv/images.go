package testenv

import (
	"fmt"
	"io"
	"path"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Artifact is something that was pushed to a registry under a name.
type Artifact struct {
	Repository string // such as "library/small"
	Tag        string
	Root       ocispec.Descriptor // what the tag points to
	// Manifests are the digests a client may report after a pull on
	// linux/amd64: the root's, and below an index the platform's.
	Manifests []digest.Digest
	// Blobs are the configs and layers such a client needs.
	Blobs []ocispec.Descriptor
}

// Name is the repository and tag, as they follow a registry's host.
func (a Artifact) Name() string { return a.Repository + ":" + a.Tag }

// Media types that the image specification does not define.
const (
	helmConfigType  = "application/vnd.cncf.helm.config.v1+json"
	helmChartType   = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	cosignLayerType = "application/vnd.dev.cosign.simplesigning.v1+json"
	fileType        = "application/vnd.entrepot.test.file"
)

// indexLayerBytes is the size of each layer that PushIndex makes, before
// compression.
const indexLayerBytes = 2 << 20

// PushIndex pushes an image index for linux/amd64 and linux/arm64 to the
// registry at host. Each platform's image has two gzip layers of
// incompressible files; nothing in it can run.
func PushIndex(t testing.TB, host, name, tag string) Artifact {
	t.Helper()
	p := newPublisher(t, host, name)
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
	}
	a := Artifact{Repository: name, Tag: tag}
	for _, arch := range []string{"amd64", "arm64"} {
		manifest := p.image(arch,
			gzipLayer(t, tarLayer(name+arch+"base", indexLayerBytes)),
			gzipLayer(t, tarLayer(name+arch+"top", indexLayerBytes)))
		root := p.json(ocispec.MediaTypeImageManifest, manifest)
		root.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, root)
		if arch == "amd64" {
			a.Manifests = append(a.Manifests, root.Digest)
			a.Blobs = append(manifest.Layers, manifest.Config)
		}
	}
	a.Root = p.json(ocispec.MediaTypeImageIndex, index)
	a.Manifests = append(a.Manifests, a.Root.Digest)
	p.tag(a.Root, tag)
	return a
}

// PushBigImage pushes an image for linux/amd64 whose one layer is an
// uncompressed tar of size bytes, a multiple of 512, with incompressible
// content. It is made while it is sent and needs neither memory nor disk.
func PushBigImage(t testing.TB, host, name, tag string, size int64) Artifact {
	t.Helper()
	p := newPublisher(t, host, name)
	return p.tagged(tag, p.image("amd64", tarLayer(name, size)))
}

// PushFile pushes an OCI artifact of one file of size bytes, called "file".
// Its content differs from name to name and tag to tag.
func PushFile(t testing.TB, host, name, tag string, size int64) Artifact {
	t.Helper()
	body := make([]byte, size)
	if _, err := io.ReadFull(randomness(name+":"+tag), body); err != nil {
		t.Fatalf("making the content of %s:%s: %v", name, tag, err)
	}
	p := newPublisher(t, host, name)
	return p.tagged(tag, p.file(fileType, body, nil))
}

// PushReferrers pushes two artifacts whose subject is subject: a bill of
// materials and a signature. A registry without the referrers API gets the
// specification's fallback tag ("Referrers Tag Schema").
func PushReferrers(t testing.TB, host string, subject Artifact) []Artifact {
	t.Helper()
	p := newPublisher(t, host, subject.Repository)
	var referrers []Artifact
	for _, kind := range []string{"sbom", "signature"} {
		body := fmt.Appendf(nil, `{"%s of": %q}`, kind, subject.Root.Digest)
		root := ocispec.Descriptor{
			MediaType: subject.Root.MediaType, Digest: subject.Root.Digest, Size: subject.Root.Size,
		}
		manifest := p.file("application/vnd.entrepot.test."+kind, body, &root)
		referrers = append(referrers, p.tagged(subject.Tag+"-"+kind, manifest))
	}
	return referrers
}

// PushChart pushes a Helm chart in the form helm gives it. The chart is named
// for the last element of name, and its version is the tag.
func PushChart(t testing.TB, host, name, version string) Artifact {
	t.Helper()
	p := newPublisher(t, host, name)
	chart := path.Base(name)
	archive := gzipFiles(t, map[string]string{
		chart + "/Chart.yaml":            fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n", chart, version),
		chart + "/values.yaml":           "replicas: 1\n",
		chart + "/templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: test}\n",
	})
	return p.tagged(version, ocispec.Manifest{
		Config: p.json(helmConfigType, map[string]string{"apiVersion": "v2", "name": chart, "version": version}),
		Layers: []ocispec.Descriptor{p.blob(helmChartType, archive)},
	})
}

// PushCosignSignature pushes a signature of subject where cosign looks for it:
// at the tag "sha256-<hex>.sig" of the subject's repository.
func PushCosignSignature(t testing.TB, host string, subject Artifact) Artifact {
	t.Helper()
	p := newPublisher(t, host, subject.Repository)
	payload := fmt.Appendf(nil, `{"critical":{"image":{"docker-manifest-digest":%q}}}`, subject.Root.Digest)
	layer := p.blob(cosignLayerType, payload)
	layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "bm90IGEgc2lnbmF0dXJl"}
	return p.tagged("sha256-"+subject.Root.Digest.Encoded()+".sig", ocispec.Manifest{
		Config: p.json(ocispec.MediaTypeImageConfig, imageConfig("", layer.Digest)),
		Layers: []ocispec.Descriptor{layer},
	})
}

// image pushes layers and their config and returns the manifest, not yet
// pushed.
func (p *publisher) image(arch string, layers ...layer) ocispec.Manifest {
	p.t.Helper()
	var manifest ocispec.Manifest
	var diffIDs []digest.Digest
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, p.layer(l))
		diffIDs = append(diffIDs, l.diffID)
	}
	manifest.Versioned = specs.Versioned{SchemaVersion: 2}
	manifest.MediaType = ocispec.MediaTypeImageManifest
	manifest.Config = p.json(ocispec.MediaTypeImageConfig, imageConfig(arch, diffIDs...))
	return manifest
}

// file pushes what an artifact of one file refers to and returns its manifest.
func (p *publisher) file(artifactType string, body []byte, subject *ocispec.Descriptor) ocispec.Manifest {
	p.t.Helper()
	layer := p.blob("application/octet-stream", body)
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: "file"}
	return ocispec.Manifest{
		ArtifactType: artifactType,
		Config:       p.blob(ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Layers:       []ocispec.Descriptor{layer},
		Subject:      subject,
	}
}

// imageConfig is the config of a linux image whose layers unpack to diffIDs.
func imageConfig(arch string, diffIDs ...digest.Digest) ocispec.Image {
	return ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: arch},
		Config:   ocispec.ImageConfig{Cmd: []string{"/nothing"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	}
}
