package origin

import (
	"context"
	"errors"
	"fmt"

	"entrepot/blobstore"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Delete implements [registry.Writer]. The bytes stay, unreadable, until they
// are collected.
func (o *Origin) Delete(ctx context.Context, req *registry.Request) error {
	lock := o.names.lock(req.Repository)
	lock.Lock()
	defer lock.Unlock()
	var err, unknown error
	switch {
	case req.Kind == registry.KindBlob:
		unknown, err = blobUnknown(req), o.deleteBlob(ctx, req)
	case req.Tag != "":
		unknown, err = manifestUnknown(req), o.deleteTag(ctx, req)
	default:
		unknown, err = manifestUnknown(req), o.deleteManifest(ctx, req)
	}
	if errors.Is(err, blobstore.ErrNotExist) {
		return unknown
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", req.Path(), err)
	}
	return nil
}

func (o *Origin) deleteBlob(ctx context.Context, req *registry.Request) error {
	has, err := o.names.readBlob(ctx, req.Repository, req.Digest)
	if err != nil {
		return err
	}
	if !has {
		return blobstore.ErrNotExist
	}
	if err := o.names.deleteBlob(ctx, req.Repository, req.Digest); err != nil {
		return err
	}
	o.listener.Deleted(event(req, ocispec.Descriptor{MediaType: blobMediaType, Digest: clone(req.Digest)}, ""))
	return nil
}

// deleteTag leaves the manifest, which may be served by digest.
func (o *Origin) deleteTag(ctx context.Context, req *registry.Request) error {
	d, err := o.names.readTag(ctx, req.Repository, req.Tag)
	if err != nil {
		return err
	}
	descriptor := ocispec.Descriptor{Digest: d}
	head, err := o.names.readManifest(ctx, req.Repository, d)
	switch {
	case err == nil:
		descriptor = head.Descriptor
	case !errors.Is(err, blobstore.ErrNotExist):
		return err
	}
	if err := o.names.deleteTag(ctx, req.Repository, req.Tag); err != nil {
		return err
	}
	o.listener.Deleted(event(req, descriptor, req.Tag))
	return nil
}

func (o *Origin) deleteManifest(ctx context.Context, req *registry.Request) error {
	record, err := o.names.manifestRecord(ctx, req.Repository, req.Digest)
	if err != nil {
		return err
	}
	if err := o.removeManifest(ctx, req.Repository, req.Digest, &record); err != nil {
		return err
	}
	o.listener.Deleted(event(req, ocispec.Descriptor{MediaType: record.MediaType, Digest: clone(req.Digest), Size: record.Size}, ""))
	return nil
}

// removeManifest takes away, with the repository's lock held, first what points
// to a manifest, and then the manifest.
func (o *Origin) removeManifest(ctx context.Context, repository string, d digest.Digest, record *manifestRecord) error {
	if record.Subject != "" {
		if err := o.names.deleteReferrer(ctx, repository, record.Subject, d); err != nil {
			return err
		}
	}
	pointers, err := o.tagsOf(ctx, repository, d)
	if err != nil {
		return err
	}
	for _, tag := range pointers {
		if err := o.names.deleteTag(ctx, repository, tag); err != nil {
			return err
		}
	}
	return o.names.deleteManifest(ctx, repository, d)
}

// tagReaders is how many tags are read at once where all of a repository's are.
const tagReaders = 16

// tagsOf is the tags that point to a manifest, with the repository's lock held.
// It reads all of them: deleting by digest is rare, an index of tags by digest
// would cost each push.
func (o *Origin) tagsOf(ctx context.Context, repository string, d digest.Digest) ([]string, error) {
	tags, err := o.readTags(ctx, repository)
	if err != nil {
		return nil, err
	}
	var of []string
	for tag, points := range tags {
		if points == d {
			of = append(of, tag)
		}
	}
	return of, nil
}

// readTags is all tags of a repository and what they point to, with the
// repository's lock held.
func (o *Origin) readTags(ctx context.Context, repository string) (map[string]digest.Digest, error) {
	list, err := o.names.readTagList(ctx, repository)
	if err != nil {
		return nil, err
	}
	points := make([]digest.Digest, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(tagReaders)
	for i, tag := range list {
		group.Go(func() (err error) {
			points[i], err = o.names.readTag(ctx, repository, tag)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	tags := make(map[string]digest.Digest, len(list))
	for i, tag := range list {
		tags[tag] = points[i]
	}
	return tags, nil
}
