package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxBelow bounds the manifests and blobs of one image with all that is attached to it.
const maxBelow = 100_000

// Manifest is what manifests and indexes of all kinds have in common.
type Manifest struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Blobs     []ocispec.Descriptor `json:"blobs"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Subject   *ocispec.Descriptor  `json:"subject"`
}

// ParseManifest reads a manifest; one of another form names nothing.
func ParseManifest(body []byte) Manifest {
	var m Manifest
	if json.Unmarshal(body, &m) != nil {
		return Manifest{}
	}
	return m
}

// Leaves are the blobs that a manifest names and registries hold. What is said to lie elsewhere is
// never fetched.
func (m *Manifest) Leaves() []ocispec.Descriptor {
	all := append(slices.Clone(m.Layers), m.Blobs...)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return slices.DeleteFunc(all, func(d ocispec.Descriptor) bool { return len(d.URLs) > 0 })
}

// fetching is one image on its way into the store.
type fetching struct {
	*Mirror

	root  root
	tags  []string      // of the repository that begin as cosign's do
	bytes func(n int64) // told of what was fetched

	below    map[digest.Digest]bool // what is held; whether it is a manifest
	attached []digest.Digest
}

// fetchImage brings an image and what is attached to it, and records what is held.
func (m *Mirror) fetchImage(ctx context.Context, r root, tags *tagLists, bytes func(int64)) error {
	f := &fetching{Mirror: m, root: r, bytes: bytes, below: map[digest.Digest]bool{}}
	err := f.tree(ctx, r.digest)
	if err == nil {
		f.tags, err = tags.of(ctx, m, r.upstream, r.repository)
	}
	if err == nil {
		err = f.attachments(ctx)
	}
	if err != nil {
		f.keepFormer(ctx)
	}
	held := image{Complete: err == nil, Attached: f.attached}
	for d := range f.below {
		held.Below = append(held.Below, d)
	}
	slices.Sort(held.Below)
	// Also when it was stopped: what is held already is not to be fetched again.
	if kept := m.writeRecord(context.WithoutCancel(ctx), r.key(), held); kept != nil && err == nil {
		err = kept
	}
	return err
}

// keepFormer counts what was held before as held: an attempt that did not come to
// its end says nothing of what it did not reach, which may be what nobody else has
// any more.
func (f *fetching) keepFormer(ctx context.Context) {
	var before image
	if f.readRecord(context.WithoutCancel(ctx), f.root.key(), &before) != nil {
		return // there is none
	}
	for _, d := range before.Below {
		if _, reached := f.below[d]; !reached {
			f.below[d] = false
		}
	}
	for _, d := range before.Attached {
		f.attach(d)
	}
}

// tree brings a manifest and everything below it.
func (f *fetching) tree(ctx context.Context, d digest.Digest) error {
	if f.below[d] {
		return nil
	}
	isNew := f.isNew(ctx, d)
	if len(f.below) >= maxBelow {
		return fmt.Errorf("there are more than %d manifests and blobs below it", maxBelow)
	}
	got, err := f.cfg.Node.PullManifest(ctx, f.root.upstream, f.root.repository, d.String())
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	if err := f.hold(d, true, isNew, got.Size); err != nil {
		return err
	}
	m := ParseManifest(got.Body)
	for _, child := range m.Manifests {
		if err := f.child(ctx, child); err != nil {
			return err
		}
	}
	for _, blob := range m.Leaves() {
		if err := f.blob(ctx, blob); err != nil {
			return err
		}
	}
	return nil
}

// child brings what an index names: a manifest, or a blob of a build cache.
func (f *fetching) child(ctx context.Context, d ocispec.Descriptor) error {
	err := f.tree(ctx, d.Digest)
	if absent(err) && !strings.Contains(d.MediaType, "manifest") && d.MediaType != ocispec.MediaTypeImageIndex {
		return f.blob(ctx, d)
	}
	return err
}

func (f *fetching) blob(ctx context.Context, d ocispec.Descriptor) error {
	if _, held := f.below[d.Digest]; held {
		return nil
	}
	isNew := f.isNew(ctx, d.Digest)
	if err := f.cfg.Node.PullBlob(ctx, f.root.upstream, f.root.repository, d.Digest); err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return f.hold(d.Digest, false, isNew, d.Size)
}

// isNew says whether content has to be fetched.
func (m *Mirror) isNew(ctx context.Context, d digest.Digest) bool {
	_, err := m.cfg.Store.Stat(ctx, d)
	return err != nil
}

func (f *fetching) hold(d digest.Digest, manifest, isNew bool, size int64) error {
	if err := f.cfg.Store.Hold(d); err != nil {
		return fmt.Errorf("holding %s, which was just fetched: %w", d, err)
	}
	f.below[d] = manifest
	if isNew {
		f.bytes(size)
	}
	return nil
}

// attachments bring what refers to the manifests that are there, what refers to that,
// and so on, and what cosign keeps at tags about any of them.
func (f *fetching) attachments(ctx context.Context) error {
	asked := map[digest.Digest]bool{}
	for {
		var level []digest.Digest
		for d, isManifest := range f.below {
			if isManifest && !asked[d] {
				level = append(level, d)
			}
		}
		if len(level) == 0 {
			return nil
		}
		slices.Sort(level)
		for _, d := range level {
			asked[d] = true
			if err := f.about(ctx, d); err != nil {
				return err
			}
		}
	}
}

// about brings what is about one manifest.
func (f *fetching) about(ctx context.Context, d digest.Digest) error {
	referrers, err := f.cfg.Node.PullReferrers(ctx, f.root.upstream, f.root.repository, d)
	if err != nil {
		return fmt.Errorf("what refers to %s: %w", d, err)
	}
	for _, r := range referrers {
		err := f.tree(ctx, r.Digest)
		if absent(err) {
			continue // listed, and not there
		}
		if err != nil {
			return err
		}
		f.attach(r.Digest)
	}
	prefix := d.Algorithm().String() + "-" + d.Encoded()
	for _, tag := range f.tags {
		if !strings.HasPrefix(tag, prefix) {
			continue
		}
		got, err := f.cfg.Node.PullManifest(ctx, f.root.upstream, f.root.repository, tag)
		if absent(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("what is about %s at %s: %w", d, tag, err)
		}
		if err := f.tree(ctx, got.Digest); err != nil {
			return err
		}
		f.attach(got.Digest)
	}
	return nil
}

func (f *fetching) attach(d digest.Digest) {
	if !slices.Contains(f.attached, d) {
		f.attached = append(f.attached, d)
	}
}

// tagLists are the tags of repositories that are about digests, listed once in a sync.
type tagLists struct {
	mu    sync.Mutex
	lists map[string][]string // by upstream and repository
}

func (t *tagLists) of(ctx context.Context, m *Mirror, upstream, repo string) ([]string, error) {
	key := upstream + "/" + repo
	t.mu.Lock()
	tags, known := t.lists[key]
	t.mu.Unlock()
	if known {
		return tags, nil
	}
	all, err := m.cfg.Node.PullTags(ctx, upstream, repo)
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("the tags of %s: %w", repo, err)
	}
	tags = slices.DeleteFunc(slices.Clone(all), func(tag string) bool { return !strings.HasPrefix(tag, "sha256-") && !strings.HasPrefix(tag, "sha512-") })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lists[key] = tags
	return tags, nil
}

// absent says whether upstream clearly has not what was asked for.
func absent(err error) bool {
	var told *registry.Error
	if !errors.As(err, &told) {
		return false
	}
	return told.Code == errcode.ErrorCodeManifestUnknown || told.Code == errcode.ErrorCodeBlobUnknown || told.Code == errcode.ErrorCodeNameUnknown
}
