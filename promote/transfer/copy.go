package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// breadth is how many things below one manifest are copied at once.
const breadth = 8

// memory is what a client knows of trees and repositories.
type memory struct {
	mu    sync.Mutex
	trees map[string][]ocispec.Descriptor // by destination and root: the manifests that are complete there
	tags  map[string]map[string]bool      // by source: those that begin as attachments do
	noAPI map[string]bool                 // repositories without the referrers API
}

// Resolve asks what a name is: its media type, digest and size.
// Errors: ErrNotFound when the registry knows no such name.
func (c *Client) Resolve(ctx context.Context, ref Ref) (ocispec.Descriptor, error) {
	if ref.Digest == "" {
		if err := checkTag(ref.Tag); err != nil {
			return ocispec.Descriptor{}, err
		}
	} else if err := ref.Digest.Validate(); err != nil {
		return ocispec.Descriptor{}, failf(ErrUnsupported, "resolving %s: %w", ref.Repository, err)
	}
	d, err := c.reader(ref.Repository).resolve(ctx, ref.reference())
	if err != nil {
		return d, fmt.Errorf("resolving %s: %w", ref, err)
	}
	return d, nil
}

// Copy copies an image by digest, with everything below it, its referrers and
// theirs, and what cosign keeps about any of these at tags; then it sets its
// tags. An image that has all of it costs questions only.
//
// Errors: ErrNotFound when the source lacks the image or something below it;
// ErrCorrupt, which names who sent wrong bytes; ErrUnsupported for images whose
// content has no digests. Copied is filled as far as it came.
func (c *Client) Copy(ctx context.Context, what Copy) (Copied, error) {
	job := &copying{client: c, from: c.reader(what.From), to: c.writer(what.To)}
	err := job.run(ctx, &what)
	if err != nil {
		err = fmt.Errorf("copying %s@%s to %s: %w", what.From, what.Digest, what.To, err)
	}
	slices.SortFunc(job.done.Attached, func(a, b Attachment) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Digest, b.Digest))
	})
	slices.Sort(job.done.Lost)
	slices.Sort(job.done.Kept)
	return job.done, err
}

// copying is one image on its way.
type copying struct {
	client   *Client
	from, to *repo
	absent   digest.Digest // the root, if it was asked for and not there

	mu   sync.Mutex
	done Copied
}

func (j *copying) run(ctx context.Context, what *Copy) error {
	if err := what.Digest.Validate(); err != nil {
		return failf(ErrUnsupported, "%.100q: %w", what.Digest, err)
	}
	for _, tag := range what.Tags {
		if err := checkTag(tag); err != nil {
			return err
		}
	}
	root, err := j.trusted(ctx, what)
	if err != nil {
		return err
	}
	if root == nil {
		if root, err = j.whole(ctx, what.Digest); err != nil {
			return err
		}
	}
	for _, tag := range what.Tags {
		if err := j.to.put(ctx, tag, root); err != nil {
			return fmt.Errorf("setting the tag %s: %w", tag, err)
		}
	}
	return nil
}

// trusted reads the root at the destination, if that is enough to know that all
// is there; else it is nil.
func (j *copying) trusted(ctx context.Context, what *Copy) (*manifest, error) {
	if !what.Trusted {
		return nil, nil //nolint:nilnil // as documented
	}
	root, err := j.to.manifest(ctx, what.Digest.String())
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // as documented
	}
	if err != nil {
		return nil, err
	}
	j.done.Present = true
	j.setRoot(root)
	return root, nil
}

// whole copies the image and what is attached to it.
func (j *copying) whole(ctx context.Context, d digest.Digest) (*manifest, error) {
	root, err := j.client.sources.manifest(ctx, j.from, d)
	if err != nil {
		return nil, err
	}
	j.setRoot(root)
	if j.done.Present, err = j.to.has(ctx, d); err != nil {
		return nil, err
	}
	if !j.done.Present {
		j.absent = d
	}
	manifests, isNew, err := j.below(ctx, root)
	if err != nil {
		return nil, err
	}
	if err := j.attachments(ctx, manifests); err != nil {
		return nil, err
	}
	// The root comes last, after what is about it: an image without a tag is
	// known by its root alone, and whoever finds that takes the image for
	// complete. Registries take a manifest before its subject (OCI Distribution
	// Specification v1.1, "Pushing Manifests with Subject").
	if err := j.ensure(ctx, root, isNew); err != nil {
		return nil, err
	}
	j.client.known.setTree(j.to.String()+"@"+d.String(), manifests)
	return root, nil
}

func (j *copying) setRoot(m *manifest) {
	j.done.Root = ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
}

// tree makes a manifest and everything below it be at the destination, and
// returns the manifests of it. m is the manifest if it was read before.
func (j *copying) tree(ctx context.Context, desc ocispec.Descriptor, m *manifest) (all []ocispec.Descriptor, err error) {
	c := j.client
	key := j.to.String() + "@" + desc.Digest.String()
	// What waits for each other here is below each other, so that nobody waits
	// for himself.
	err = c.trees.do(ctx, key, func() error {
		if all = c.known.tree(key); all != nil {
			return nil
		}
		if all, err = j.grow(ctx, desc, m); err != nil {
			return err
		}
		c.known.setTree(key, all)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c.known.tree(key), nil
}

func (j *copying) grow(ctx context.Context, desc ocispec.Descriptor, m *manifest) ([]ocispec.Descriptor, error) {
	if m == nil {
		var err error
		if m, err = j.client.sources.manifest(ctx, j.from, desc.Digest); err != nil {
			return nil, err
		}
	}
	all, isNew, err := j.below(ctx, m)
	if err != nil {
		return nil, err
	}
	return all, j.ensure(ctx, m, isNew)
}

// below makes everything below a manifest be at the destination. It returns
// the manifests with m, the first of them, and says whether m is known not to
// be there yet.
func (j *copying) below(ctx context.Context, m *manifest) (all []ocispec.Descriptor, absent bool, err error) {
	below := make([][]ocispec.Descriptor, len(m.children))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(breadth)
	for i, child := range m.children {
		group.Go(func() (err error) {
			below[i], err = j.child(groupCtx, child)
			return err
		})
	}
	var isNew atomic.Bool
	for _, blob := range m.blobs {
		group.Go(func() error {
			sent, err := j.client.blob(groupCtx, j.from, j.to, blob)
			if sent {
				isNew.Store(true)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, false, err
	}
	all = []ocispec.Descriptor{m.Descriptor}
	seen := map[digest.Digest]bool{m.Digest: true}
	for _, list := range below {
		for _, d := range list {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				all = append(all, d)
			}
		}
	}
	// A manifest whose blobs were not there is not there: it need not be asked
	// for.
	return all, isNew.Load() || m.Digest == j.absent, nil
}

// ensure makes a manifest be at the destination, where everything below it is.
func (j *copying) ensure(ctx context.Context, m *manifest, isNew bool) error {
	if !isNew {
		there, err := j.to.has(ctx, m.Digest)
		if there || err != nil {
			return err
		}
	}
	return j.to.put(ctx, m.Digest.String(), m)
}

// child copies what an index names: a manifest, or a blob, as build caches do.
func (j *copying) child(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if isManifestType(desc.MediaType) || desc.MediaType == "" {
		return j.tree(ctx, desc, nil)
	}
	all, err := j.tree(ctx, desc, nil)
	if !errors.Is(err, ErrNotFound) {
		return all, err
	}
	_, err = j.client.blob(ctx, j.from, j.to, desc)
	return nil, err
}

func (m *memory) tree(key string) []ocispec.Descriptor {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trees[key]
}

// forget forgets which trees are complete in a repository.
func (m *memory) forget(r *repo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.trees, func(key string, _ []ocispec.Descriptor) bool { return strings.HasPrefix(key, r.String()+"@") })
}

func (m *memory) setTree(key string, all []ocispec.Descriptor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trees == nil {
		m.trees = make(map[string][]ocispec.Descriptor)
	}
	m.trees[key] = all
}
