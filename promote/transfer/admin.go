package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Tag makes a tag point to a manifest that is in the same repository.
// Errors: ErrNotFound when it is not there.
func (c *Client) Tag(ctx context.Context, repository Repository, d digest.Digest, tag string) error {
	if err := checkTag(tag); err != nil {
		return err
	}
	r := c.writer(repository)
	m, err := r.manifest(ctx, d.String())
	if err == nil {
		err = r.put(ctx, tag, m)
	}
	if err != nil {
		return fmt.Errorf("tagging %s as %s:%s: %w", d, repository, tag, err)
	}
	return nil
}

// DeleteTag removes a name and leaves the content. Errors: ErrNotFound.
func (c *Client) DeleteTag(ctx context.Context, repository Repository, tag string) error {
	if err := checkTag(tag); err != nil {
		return err
	}
	if err := c.writer(repository).remove(ctx, tag); err != nil {
		return fmt.Errorf("deleting %s:%s: %w", repository, tag, err)
	}
	return nil
}

// DeleteManifest removes a manifest, and every tag of it. Errors: ErrNotFound.
func (c *Client) DeleteManifest(ctx context.Context, repository Repository, d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return failf(ErrUnsupported, "deleting %.100q from %s: %w", d, repository, err)
	}
	r := c.writer(repository)
	err := r.remove(ctx, d.String())
	c.known.forget(r)
	if err != nil {
		return fmt.Errorf("deleting %s@%s: %w", repository, d, err)
	}
	return nil
}

// Tags lists the tags of a repository, sorted. Errors: ErrNotFound.
func (c *Client) Tags(ctx context.Context, repository Repository) ([]string, error) {
	tags, err := c.reader(repository).tags(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the tags of %s: %w", repository, err)
	}
	return tags, nil
}

// Repositories lists the repositories of a registry, sorted.
// Errors: ErrNotFound and ErrRefused when it does not tell.
func (c *Client) Repositories(ctx context.Context, registry string) ([]string, error) {
	names, err := c.host(registry).catalog(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the repositories of %s: %w", registry, err)
	}
	return names, nil
}

// Inspect reads what an image consists of; what is attached to it does not
// count. Errors: ErrNotFound, ErrCorrupt (a manifest), ErrUnsupported.
func (c *Client) Inspect(ctx context.Context, repository Repository, d digest.Digest) (Image, error) {
	in := &inspection{repo: c.reader(repository), seen: make(map[digest.Digest]bool)}
	root, err := in.manifest(ctx, d)
	if err != nil {
		return Image{}, fmt.Errorf("reading %s@%s: %w", repository, d, err)
	}
	in.image.Root = root
	return in.image, nil
}

type inspection struct {
	repo *repo

	mu    sync.Mutex
	seen  map[digest.Digest]bool
	image Image
}

func (in *inspection) manifest(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	m, err := in.repo.manifest(ctx, d.String())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	root := ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
	in.add(&in.image.Manifests, root)
	for _, blob := range m.blobs {
		if in.isNew(blob.Digest) {
			in.add(&in.image.Blobs, blob)
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(breadth)
	for _, child := range m.children {
		if !in.isNew(child.Digest) {
			continue
		}
		group.Go(func() error {
			_, err := in.manifest(groupCtx, child.Digest)
			if errors.Is(err, ErrNotFound) && !isManifestType(child.MediaType) && child.MediaType != "" {
				in.add(&in.image.Blobs, child) // of a build cache
				return nil
			}
			return err
		})
	}
	return root, group.Wait()
}

func (in *inspection) isNew(d digest.Digest) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.seen[d] {
		return false
	}
	in.seen[d] = true
	return true
}

func (in *inspection) add(list *[]ocispec.Descriptor, d ocispec.Descriptor) {
	in.mu.Lock()
	defer in.mu.Unlock()
	*list = append(*list, d)
	in.image.Size += d.Size
}

// Verify reads an image with all its blobs and compares every digest.
// Errors: ErrNotFound, ErrCorrupt; everything that is wrong is joined.
func (c *Client) Verify(ctx context.Context, repository Repository, d digest.Digest) error {
	image, err := c.Inspect(ctx, repository, d)
	if err != nil {
		return err
	}
	r := c.reader(repository)
	wrong := make([]error, len(image.Blobs))
	var group errgroup.Group
	group.SetLimit(breadth)
	for i, blob := range image.Blobs {
		group.Go(func() error {
			wrong[i] = r.verifyBlob(ctx, blob)
			return nil
		})
	}
	_ = group.Wait() // its errors are in wrong
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("verifying %s@%s: %w", repository, d, err)
	}
	return nil
}

func (r *repo) verifyBlob(ctx context.Context, desc ocispec.Descriptor) error {
	release, err := takeSlots(ctx, r.host.reading)
	if err != nil {
		return err
	}
	defer release()
	source := newBlobSource(ctx, r, desc)
	defer source.close()
	_, err = io.Copy(io.Discard, source.from(0))
	return err
}
