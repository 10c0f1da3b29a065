// Package tree walks what an image consists of: from an index to its manifests, and from
// those to their configurations and layers, whatever kind of artifact it is.
//
// A [Walker] knows the order, what was there already, what is a manifest and what is a
// blob, and when it is too much. What is done with each of them is its user's: fetching
// one, holding it, reading it from the disk.
package tree

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// defaultMost bounds the manifests and blobs of one walker.
const defaultMost = 100_000

// Visitor does what is to be done with each part of an image. Errors end the walk.
type Visitor interface {
	// Manifest returns a manifest, by its digest or, at the root, by what else the walk
	// began with. What has no bytes has nothing below it.
	Manifest(ctx context.Context, reference string) (digest.Digest, []byte, error)
	// Blob is called for a config or a layer, once.
	Blob(ctx context.Context, blob ocispec.Descriptor) error
}

// Walker walks images of one repository; what several have in common it visits once. The
// zero value with a visitor is ready.
type Walker struct {
	Visitor Visitor
	// Choose picks of an index's children those that are wanted; nil wants all.
	Choose func(children []ocispec.Descriptor) ([]ocispec.Descriptor, error)
	// Absent says of an error of Manifest that there is no such manifest: what an index
	// names by a type of its own may be a blob. Nil never does.
	Absent func(error) bool
	// Most is how many manifests and blobs are visited before that is an error; 0 means
	// 100,000.
	Most int

	seen map[digest.Digest]bool // what was visited without an error; whether it is a manifest
}

// Seen are the manifests (true) and blobs (false) that were visited without an error.
func (w *Walker) Seen() map[digest.Digest]bool { return w.seen }

// Walk visits a manifest and everything below it, and returns its digest, as far as that is
// known. A manifest comes before what it names.
func (w *Walker) Walk(ctx context.Context, reference string) (digest.Digest, error) {
	if d := digest.Digest(reference); w.seen[d] {
		return d, nil
	}
	if err := w.room(); err != nil {
		return "", err
	}
	d, body, err := w.Visitor.Manifest(ctx, reference)
	if err != nil {
		return "", fmt.Errorf("manifest %s: %w", reference, err)
	}
	w.visited(d, true)
	m := parse(body)
	children := m.Manifests
	if w.Choose != nil && len(children) > 0 {
		if children, err = w.Choose(children); err != nil {
			return d, err
		}
	}
	for _, child := range children {
		if err := w.child(ctx, child); err != nil {
			return d, err
		}
	}
	for _, blob := range m.leaves() {
		if err := w.blob(ctx, blob); err != nil {
			return d, err
		}
	}
	return d, nil
}

// child visits what an index names: a manifest, or a blob of a build cache.
func (w *Walker) child(ctx context.Context, d ocispec.Descriptor) error {
	if isBlob(d.MediaType) {
		return w.blob(ctx, d)
	}
	_, err := w.Walk(ctx, d.Digest.String())
	if err != nil && !isManifest(d.MediaType) && w.Absent != nil && w.Absent(err) {
		return w.blob(ctx, d)
	}
	return err
}

func (w *Walker) blob(ctx context.Context, d ocispec.Descriptor) error {
	if _, ok := w.seen[d.Digest]; ok {
		return nil
	}
	if err := w.room(); err != nil {
		return err
	}
	if err := w.Visitor.Blob(ctx, d); err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	w.visited(d.Digest, false)
	return nil
}

func (w *Walker) visited(d digest.Digest, manifest bool) {
	if w.seen == nil {
		w.seen = map[digest.Digest]bool{}
	}
	w.seen[d] = manifest
}

func (w *Walker) room() error {
	if most := cmp.Or(w.Most, defaultMost); len(w.seen) >= most {
		return fmt.Errorf("there are more than %d manifests and blobs below it", most)
	}
	return nil
}

// isBlob says by its type that what an index names is no manifest.
func isBlob(mediaType string) bool {
	return strings.Contains(mediaType, ".layer.") || strings.Contains(mediaType, ".rootfs.") || strings.Contains(mediaType, ".config.")
}

// isManifest says by its type that it is one.
func isManifest(mediaType string) bool {
	return strings.Contains(mediaType, "manifest") || mediaType == ocispec.MediaTypeImageIndex
}

// manifest is what manifests and indexes of all kinds have in common.
type manifest struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Blobs     []ocispec.Descriptor `json:"blobs"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

// parse reads a manifest; one of another form names nothing.
func parse(body []byte) manifest {
	var m manifest
	if json.Unmarshal(body, &m) != nil {
		return manifest{}
	}
	return m
}

// leaves are the blobs that a manifest names and registries hold. What is said to lie elsewhere is
// never fetched.
func (m *manifest) leaves() []ocispec.Descriptor {
	all := append(slices.Clone(m.Layers), m.Blobs...)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return slices.DeleteFunc(all, func(d ocispec.Descriptor) bool { return len(d.URLs) > 0 })
}
