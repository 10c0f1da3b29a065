package transfer

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
)

// Mounter is a [FileStore] that keeps content by digest also when no name has
// it any more, and can give it a name again: an origin's.
type Mounter interface {
	// HasContent says whether content is there. Errors: ErrNotFound.
	HasContent(ctx context.Context, d digest.Digest) (size int64, err error)
	// Mount gives content that is there a name. Errors: ErrNotFound when the
	// content is not there, ErrConflict when the name has other content and
	// overwrite is false.
	Mount(ctx context.Context, name string, d digest.Digest, overwrite bool) error
}

var _ Mounter = (*webStore)(nil)

// HasContent implements [Mounter]. The store's base is where an origin keeps its
// files, or a folder of one that keeps them at its root.
func (s *webStore) HasContent(ctx context.Context, d digest.Digest) (int64, error) {
	size, err := s.contentAt(ctx, "", d)
	if s.base.Path != "" && errors.Is(err, ErrNotFound) {
		size, err = s.contentAt(ctx, s.base.Path, d)
	}
	return size, err
}

// contentAt asks for content by its digest below a path.
func (s *webStore) contentAt(ctx context.Context, path string, d digest.Digest) (int64, error) {
	at := *s.base
	at.Path = path + "/blobs/" + string(d)
	req := &request{method: http.MethodHead, url: &at}
	a, err := s.host.fetch(ctx, req, 0)
	if err != nil {
		return 0, err
	}
	if told, ok := parseReprDigest(a.header.Values("Repr-Digest")); !ok || told != d {
		return 0, failf(ErrNotFound, "%s: %s is no origin's file store, which would name the digest", req.what(), s)
	}
	return a.length, nil
}

// Mount implements [Mounter].
func (s *webStore) Mount(ctx context.Context, name string, d digest.Digest, overwrite bool) error {
	req, err := s.write(ctx, http.MethodPut, name)
	if err != nil {
		return err
	}
	query := url.Values{"mount": {string(d)}}
	if overwrite {
		query.Set("overwrite", "1")
	}
	req.url.RawQuery = query.Encode()
	_, err = s.host.fetch(ctx, req, maxErrorBody)
	return err
}

// MountFile gives content that a store has a name, as CopyFile does with
// content that comes from elsewhere.
func (c *Client) MountFile(ctx context.Context, store FileStore, name string, d digest.Digest, overwrite bool) error {
	mounter, ok := store.(Mounter)
	if !ok {
		return failf(ErrUnsupported, "%s keeps no content but by name: promote %s again from its source", store, name)
	}
	there, err := c.SumFile(ctx, store, name, false)
	if err == nil && there.SHA256 == d {
		return nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return mounter.Mount(ctx, name, d, overwrite)
}
