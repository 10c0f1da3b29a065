package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"entrepot/blobstore"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PutManifest implements [registry.Writer].
func (o *Origin) PutManifest(ctx context.Context, req *registry.Request, push *registry.ManifestPush) (digest.Digest, error) {
	c, err := parseManifest(push.MediaType, push.Body)
	if err != nil {
		return "", err
	}
	descriptor := ocispec.Descriptor{MediaType: c.mediaType, Digest: clone(push.Digest), Size: int64(len(push.Body))}
	if err := o.putManifest(ctx, req.Repository, &descriptor, c, push); err != nil {
		return "", fmt.Errorf("pushing manifest %s to %s: %w", push.Digest, req.Repository, err)
	}
	if o.memory != nil {
		o.memory.Add(descriptor.Digest, push.Body)
	}
	for _, tag := range push.Tags {
		o.listener.Pushed(event(req, descriptor, tag))
	}
	if len(push.Tags) == 0 {
		o.listener.Pushed(event(req, descriptor, ""))
	}
	return c.subject, nil
}

// putManifest stores a manifest: bytes, referrer, record, tags, in this order,
// so that what can be seen is whole at any time, also when the push ends in the
// middle: whoever finds a manifest there need not push it again. A referrer whose
// manifest has no record is not listed.
func (o *Origin) putManifest(ctx context.Context, repository string, d *ocispec.Descriptor, c *content, push *registry.ManifestPush) error {
	lock := o.names.lock(repository)
	// What is refused is not stored first.
	lock.RLock()
	err := o.checkContent(ctx, repository, c)
	lock.RUnlock()
	if err != nil {
		return err
	}
	release := o.holds.hold(d.Digest)
	defer release()
	if err := o.store.Put(ctx, d.Digest, d.Size, bytes.NewReader(push.Body)); err != nil {
		return err
	}
	lock.Lock()
	defer lock.Unlock()
	// Again: somebody may have deleted what it names.
	if err := o.checkContent(ctx, repository, c); err != nil {
		return err
	}
	if c.subject != "" {
		referrer := *d
		referrer.ArtifactType, referrer.Annotations = c.artifactType, c.annotations
		if err := o.names.setReferrer(ctx, repository, c.subject, &referrer); err != nil {
			return err
		}
	}
	record := manifestRecord{MediaType: c.mediaType, Size: d.Size, Subject: c.subject, Pushed: o.now().UTC()}
	if err := o.names.setManifest(ctx, repository, d.Digest, &record); err != nil {
		return err
	}
	for _, tag := range push.Tags {
		if err := o.names.setTag(ctx, repository, tag, d.Digest); err != nil {
			return err
		}
	}
	return nil
}

// checkContent says whether the repository has what a manifest names, with the
// repository's lock held. The subject may come later (OCI Distribution v1.1,
// "Pushing Manifests with Subject"). Errors: MANIFEST_BLOB_UNKNOWN.
func (o *Origin) checkContent(ctx context.Context, repository string, c *content) error {
	if !c.strict {
		return nil
	}
	var missing []digest.Digest
	for _, d := range c.blobs {
		has, err := o.names.readBlob(ctx, repository, d)
		if err != nil {
			return err
		}
		if !has {
			missing = append(missing, d)
		}
	}
	for _, d := range c.manifests {
		_, err := o.names.readManifest(ctx, repository, d)
		if errors.Is(err, blobstore.ErrNotExist) {
			// An index may name what is no manifest.
			var has bool
			if has, err = o.names.readBlob(ctx, repository, d); err == nil && !has {
				missing = append(missing, d)
			}
		}
		if err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return registry.Errorf(errcode.ErrorCodeManifestBlobUnknown,
			"%s lacks %d of what the manifest names, first %s: push that before the manifest", repository, len(missing), missing[0])
	}
	return nil
}

// Mount implements [registry.Writer]. Reading is open, so that whoever may push
// to the repository may mount from any other. Without from, the blob may lie
// in the store for no repository at all: then it was deleted from one lately.
func (o *Origin) Mount(ctx context.Context, req *registry.Request, d digest.Digest, from string) (bool, error) {
	// The bytes are not collected between being found and being linked.
	release := o.holds.hold(d)
	defer release()
	if from != "" {
		has, err := o.names.hasBlob(ctx, from, d)
		if err != nil || !has {
			return false, err
		}
	}
	info, err := o.store.Stat(ctx, d)
	if errors.Is(err, blobstore.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = o.names.setBlob(ctx, req.Repository, d, o.now())
	}
	if err != nil {
		return false, fmt.Errorf("mounting %s from %q to %s: %w", d, from, req.Repository, err)
	}
	e := event(req, ocispec.Descriptor{MediaType: blobMediaType, Digest: clone(d), Size: info.Size}, "")
	e.From, e.Mounted = clone(from), true
	o.listener.Pushed(e)
	return true, nil
}
