package mirror

import (
	"context"
	"io"

	"entrepot/blobstore"
	"entrepot/proxy"

	"github.com/opencontainers/go-digest"
)

// contents is what a mirror holds: in the node's directory, or in its bucket.
type contents interface {
	// look finds out what is held, anew or unless that is known. The methods below that
	// have no error say what was found, and what was held and dropped since.
	look(ctx context.Context, anew bool) error
	// has says whether content is there.
	has(ctx context.Context, d digest.Digest) bool
	held() []blobstore.Info
	usage() (blobs int, bytes int64)

	// hold has content that was just pulled stay.
	hold(ctx context.Context, d digest.Digest) error
	// drop removes content. That it is not there is no error.
	drop(ctx context.Context, d digest.Digest) error
	// putAside removes what was found to be wrong, so that it is fetched again.
	putAside(ctx context.Context, d digest.Digest, reason error) error

	Open(ctx context.Context, d digest.Digest, offset, length int64) (io.ReadCloser, blobstore.Info, error)
	verifier(rate int64) (verifier, error)
}

// verifier reads single blobs whole. Its errors are those of [blobstore.Verifier].
type verifier interface {
	Verify(ctx context.Context, d digest.Digest) (size int64, err error)
	Close()
}

// directory is a node's directory: blobs in it are marked as held.
type directory struct {
	*blobstore.Dir

	node *proxy.Node
}

func (d directory) look(context.Context, bool) error { return nil } // it always knows

func (d directory) has(ctx context.Context, content digest.Digest) bool {
	_, err := d.Stat(ctx, content)
	return err == nil
}

func (d directory) held() []blobstore.Info { return d.Held() }

func (d directory) usage() (blobs int, bytes int64) {
	u := d.Usage()
	return u.Held, u.HeldBytes
}

func (d directory) hold(_ context.Context, content digest.Digest) error { return d.Hold(content) }

func (d directory) drop(ctx context.Context, content digest.Digest) error {
	return d.node.Drop(ctx, content)
}

func (d directory) putAside(_ context.Context, content digest.Digest, reason error) error {
	d.node.Quarantine(content, reason)
	return nil
}

func (d directory) verifier(rate int64) (verifier, error) { return d.Verifier(rate) }
