package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"

	"entrepot/blobstore"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest implements [registry.Backend].
func (o *Origin) Manifest(ctx context.Context, req *registry.Request) (*registry.Manifest, registry.CacheStatus, error) {
	m, err := o.manifest(ctx, req)
	if errors.Is(err, blobstore.ErrNotExist) {
		err = manifestUnknown(req)
	}
	return m, registry.CacheStatus{}, err
}

func (o *Origin) manifest(ctx context.Context, req *registry.Request) (*registry.Manifest, error) {
	d := req.Digest
	if d == "" {
		var err error
		if d, err = o.names.tag(ctx, req.Repository, req.Tag); err != nil {
			return nil, err
		}
	}
	head, err := o.names.manifest(ctx, req.Repository, d)
	if err != nil {
		return nil, err
	}
	m := &registry.Manifest{ManifestHead: head}
	if !req.Head {
		m.Body, err = o.manifestBody(ctx, head.Digest)
	}
	return m, err
}

// manifestBody is the bytes of a manifest that some repository has, which are
// not to be changed. Errors: blobstore.ErrNotExist.
func (o *Origin) manifestBody(ctx context.Context, d digest.Digest) ([]byte, error) {
	if o.memory == nil {
		return o.storedManifest(ctx, d)
	}
	if body, ok := o.memory.Get(d); ok {
		return body, nil
	}
	body, err := o.storedManifest(ctx, d)
	if err == nil {
		o.memory.Add(d, body)
	}
	return body, err
}

// storedManifest is manifestBody from the store.
func (o *Origin) storedManifest(ctx context.Context, d digest.Digest) ([]byte, error) {
	r, info, err := o.store.Open(ctx, d, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("opening manifest %s: %w", d, err)
	}
	defer r.Close()
	if info.Size > registry.MaxManifestSize {
		return nil, fmt.Errorf("manifest %s has %d bytes in the store, more than were ever pushed", d, info.Size)
	}
	body := make([]byte, info.Size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("reading manifest %s: %w", d, err)
	}
	// A disk forgets. What is wrong is not handed on, and not remembered.
	if got := d.Algorithm().FromBytes(body); got != d {
		return nil, fmt.Errorf("manifest %s is damaged in the store: it has digest %s", d, got)
	}
	return body, nil
}

func manifestUnknown(req *registry.Request) error {
	if req.Tag != "" {
		return registry.Errorf(errcode.ErrorCodeManifestUnknown, "%s has no tag %s", req.Repository, req.Tag)
	}
	return registry.Errorf(errcode.ErrorCodeManifestUnknown, "%s has no manifest %s", req.Repository, req.Digest)
}

// Blob implements [registry.Backend].
func (o *Origin) Blob(ctx context.Context, req *registry.Request) (registry.Blob, registry.CacheStatus, error) {
	blob, err := o.blob(ctx, req)
	if errors.Is(err, blobstore.ErrNotExist) {
		err = blobUnknown(req)
	}
	return blob, registry.CacheStatus{}, err
}

// blob answers without a time of modification: a directory keeps the last use
// there, and the entity tag says it better.
func (o *Origin) blob(ctx context.Context, req *registry.Request) (registry.Blob, error) {
	has, err := o.names.hasBlob(ctx, req.Repository, req.Digest)
	if err != nil {
		return registry.Blob{}, err
	}
	if !has {
		return registry.Blob{}, blobstore.ErrNotExist
	}
	if o.files != nil && !req.Head {
		file, err := o.files.OpenFile(req.Digest)
		if err != nil {
			return registry.Blob{}, err
		}
		return registry.Blob{Digest: req.Digest, Size: file.Info.Size, Content: fileContent{file}}, nil
	}
	info, err := o.store.Stat(ctx, req.Digest)
	if err != nil {
		return registry.Blob{}, err
	}
	blob := registry.Blob{Digest: req.Digest, Size: info.Size}
	if !req.Head {
		blob.Content = storeContent{o.store, info}
	}
	return blob, nil
}

func blobUnknown(req *registry.Request) error {
	return registry.Errorf(errcode.ErrorCodeBlobUnknown, "%s has no blob %s", req.Repository, req.Digest)
}

// Tags implements [registry.Backend].
func (o *Origin) Tags(ctx context.Context, req *registry.Request) ([]string, bool, registry.CacheStatus, error) {
	tags, err := o.names.tagList(ctx, req.Repository)
	if err == nil && len(tags) == 0 {
		var known bool
		if known, err = o.names.known(ctx, req.Repository); err == nil && !known {
			err = registry.Errorf(errcode.ErrorCodeNameUnknown, "there is no repository %s", req.Repository)
		}
	}
	if err != nil {
		return nil, false, registry.CacheStatus{}, err
	}
	if req.Last != "" {
		tags = tags[sort.Search(len(tags), func(i int) bool { return tags[i] > req.Last }):]
	}
	more := req.N >= 0 && len(tags) > req.N
	if more {
		tags = tags[:req.N]
	}
	return tags, more, registry.CacheStatus{}, nil
}

// Referrers implements [registry.Backend]. A subject need not be there, and so
// has no referrers rather than none that are known.
func (o *Origin) Referrers(ctx context.Context, req *registry.Request) ([]ocispec.Descriptor, registry.CacheStatus, error) {
	list, err := o.names.referrersOf(ctx, req.Repository, req.Digest)
	if err != nil || req.ArtifactType == "" {
		return list, registry.CacheStatus{}, err
	}
	var of []ocispec.Descriptor
	for i := range list {
		if list[i].ArtifactType == req.ArtifactType {
			of = append(of, list[i])
		}
	}
	return of, registry.CacheStatus{}, nil
}

// fileContent is a blob in a file.
type fileContent struct{ *blobstore.File }

// Ready reports that nothing has to be waited for.
func (f fileContent) Ready(int64, int64) bool { return true }

// storeContent is a blob in a store that is asked for each range.
type storeContent struct {
	store blobstore.Store
	info  blobstore.Info
}

// WriteRange implements registry.Content.
func (c storeContent) WriteRange(ctx context.Context, w io.Writer, offset, length int64) (int64, error) {
	if length < 0 {
		length = c.info.Size - offset
	}
	r, _, err := c.store.Open(ctx, c.info.Digest, offset, length)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", c.info.Digest, err)
	}
	defer r.Close()
	n, err := io.CopyN(w, r, length)
	if err != nil {
		return n, fmt.Errorf("sending %s: %w", c.info.Digest, err)
	}
	return n, nil
}

// Close does nothing: WriteRange closes what it opens.
func (storeContent) Close() error { return nil }
