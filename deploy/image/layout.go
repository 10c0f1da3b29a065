package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// config is how the image is run. The last stage of the Containerfile says the
// same; a test holds them together.
func (s spec) config() ocispec.ImageConfig {
	return ocispec.ImageConfig{
		User:         "65532:65532",
		ExposedPorts: map[string]struct{}{"5000/tcp": {}, "5001/tcp": {}, "8080/tcp": {}, "9090/tcp": {}},
		Env:          []string{"PATH=/usr/bin"},
		Entrypoint:   []string{binary},
		Cmd:          []string{"serve"},
		WorkingDir:   home,
		Labels:       s.labels(),
	}
}

func (s spec) labels() map[string]string {
	return map[string]string{
		ocispec.AnnotationTitle:       "entrepot",
		ocispec.AnnotationDescription: "Container images and binaries by the same names, verified, near everyone",
		ocispec.AnnotationLicenses:    "Apache-2.0",
		ocispec.AnnotationVersion:     s.version,
	}
}

// layout is an OCI image layout (image-layout.md) that is being written.
type layout struct{ dir string }

// put writes content below its digest.
func (l layout) put(mediaType string, content []byte) (ocispec.Descriptor, error) {
	d := digest.FromBytes(content)
	name := filepath.Join(l.dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
	//nolint:gosec // an image is public
	if err := os.WriteFile(name, content, 0o644); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}, nil
}

// putJSON writes a document.
func (l layout) putJSON(mediaType string, document any) (ocispec.Descriptor, error) {
	content, err := json.Marshal(document)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.put(mediaType, content)
}

// writeLayout writes the image for all platforms, and returns the digest of its
// index.
func (s spec) writeLayout(ctx context.Context, dir string) (digest.Digest, error) {
	if err := emptyDir(dir); err != nil {
		return "", err
	}
	l := layout{dir}
	//nolint:gosec // an image is public
	if err := os.MkdirAll(filepath.Join(dir, ocispec.ImageBlobsDir, digest.Canonical.String()), 0o755); err != nil {
		return "", err
	}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Annotations: s.labels(),
	}
	for _, p := range s.platforms {
		m, err := s.writePlatform(ctx, l, p)
		if err != nil {
			return "", err
		}
		m.Platform = &p
		index.Manifests = append(index.Manifests, m)
	}
	root, err := l.putJSON(ocispec.MediaTypeImageIndex, index)
	if err != nil {
		return "", err
	}
	root.Annotations = map[string]string{ocispec.AnnotationRefName: s.version}
	return root.Digest, l.finish(root)
}

// writePlatform writes layers, configuration and manifest of one platform.
func (s spec) writePlatform(ctx context.Context, l layout, p ocispec.Platform) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	layers, err := s.layers(ctx, p)
	if err != nil {
		return none, err
	}
	image := ocispec.Image{Created: &s.created, Platform: p, Config: s.config(), RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, files := range layers {
		var plain, packed bytes.Buffer
		if err := writeTar(&plain, files, s.created); err != nil {
			return none, err
		}
		w := gzip.NewWriter(&packed) // without name and time
		if _, err := w.Write(plain.Bytes()); err != nil {
			return none, err
		}
		if err := w.Close(); err != nil {
			return none, err
		}
		layer, err := l.put(ocispec.MediaTypeImageLayerGzip, packed.Bytes())
		if err != nil {
			return none, err
		}
		manifest.Layers = append(manifest.Layers, layer)
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, digest.FromBytes(plain.Bytes()))
		image.History = append(image.History, ocispec.History{Created: &s.created, CreatedBy: "go run ./deploy/image"})
	}
	if manifest.Config, err = l.putJSON(ocispec.MediaTypeImageConfig, image); err != nil {
		return none, err
	}
	return l.putJSON(ocispec.MediaTypeImageManifest, manifest)
}

// finish writes what makes the directory a layout.
func (l layout) finish(root ocispec.Descriptor) error {
	for name, document := range map[string]any{
		ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion},
		ocispec.ImageIndexFile: ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
			Manifests: []ocispec.Descriptor{root},
		},
	} {
		content, err := json.Marshal(document)
		if err != nil {
			return err
		}
		//nolint:gosec // an image is public
		if err := os.WriteFile(filepath.Join(l.dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
