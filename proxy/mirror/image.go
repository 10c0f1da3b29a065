package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"entrepot/proxy/tree"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fetching is one image on its way into the store.
type fetching struct {
	*Mirror

	root  root
	tags  []string      // of the repository that begin as cosign's do
	bytes func(n int64) // told of what was fetched

	walker   tree.Walker
	attached []digest.Digest
}

// fetchImage brings an image and what is attached to it, and records what is held.
func (m *Mirror) fetchImage(ctx context.Context, r root, tags *tagLists, bytes func(int64)) error {
	f := &fetching{Mirror: m, root: r, bytes: bytes}
	f.walker = tree.Walker{Visitor: f, Absent: absent}
	_, err := f.walker.Walk(ctx, r.digest.String())
	if err == nil {
		f.tags, err = tags.of(ctx, m, r.upstream, r.repository)
	}
	if err == nil {
		err = f.attachments(ctx)
	}
	held := image{Complete: err == nil, Below: slices.Collect(maps.Keys(f.walker.Seen())), Attached: f.attached}
	if err != nil {
		f.keepFormer(ctx, &held)
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
func (f *fetching) keepFormer(ctx context.Context, held *image) {
	var before image
	if f.readRecord(context.WithoutCancel(ctx), f.root.key(), &before) != nil {
		return // there is none
	}
	for _, d := range before.Below {
		if _, reached := f.walker.Seen()[d]; !reached {
			held.Below = append(held.Below, d)
		}
	}
	for _, d := range before.Attached {
		if !slices.Contains(held.Attached, d) {
			held.Attached = append(held.Attached, d)
		}
	}
}

// Manifest implements [tree.Visitor]: it brings a manifest and holds it.
func (f *fetching) Manifest(ctx context.Context, reference string) (digest.Digest, []byte, error) {
	isNew := f.isNew(ctx, digest.Digest(reference))
	got, err := f.cfg.Node.PullManifest(ctx, f.root.upstream, f.root.repository, reference)
	if err != nil {
		return "", nil, err
	}
	return got.Digest, got.Body, f.hold(ctx, got.Digest, isNew, got.Size)
}

// Blob implements [tree.Visitor]: it brings a blob and holds it.
func (f *fetching) Blob(ctx context.Context, d ocispec.Descriptor) error {
	isNew := f.isNew(ctx, d.Digest)
	if err := f.cfg.Node.PullBlob(ctx, f.root.upstream, f.root.repository, d.Digest); err != nil {
		return err
	}
	return f.hold(ctx, d.Digest, isNew, d.Size)
}

// isNew says whether content has to be fetched.
func (m *Mirror) isNew(ctx context.Context, d digest.Digest) bool {
	return !m.contents.has(ctx, d)
}

func (f *fetching) hold(ctx context.Context, d digest.Digest, isNew bool, size int64) error {
	if err := f.contents.hold(ctx, d); err != nil {
		return fmt.Errorf("holding what was just fetched: %w", err)
	}
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
		for d, isManifest := range f.walker.Seen() {
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
		_, err := f.walker.Walk(ctx, r.Digest.String())
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
		if _, err := f.walker.Walk(ctx, got.Digest.String()); err != nil {
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
