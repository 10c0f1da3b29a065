package transfer

// The bodies of these methods follow, file by file.

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type host struct{}

// New prepares a client. It reads no file and asks no host.
func New(cfg Config) (*Client, error) {
	cfg.setDefaults()
	return &Client{cfg: cfg, hosts: make(map[string]*host)}, nil
}

// Close lets go of connections. Bodies that are open can still be read.
func (c *Client) Close() error { return nil }

var errDraft = failf(ErrUnsupported, "not written yet")

// Resolve asks what a name is: its media type, digest and size.
// Errors: ErrNotFound when the registry knows no such name.
func (c *Client) Resolve(ctx context.Context, ref Ref) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errDraft
}

// Copy copies an image by digest, with everything below it, its referrers
// and what cosign keeps about it, and then sets its tags.
func (c *Client) Copy(ctx context.Context, what Copy) (Copied, error) { return Copied{}, errDraft }

// Tag makes a tag point to a manifest that is in the same repository.
// Errors: ErrNotFound when it is not there.
func (c *Client) Tag(ctx context.Context, repo Repository, d digest.Digest, tag string) error {
	return errDraft
}

// Inspect reads what an image consists of; referrers do not count.
// Errors: ErrNotFound, ErrCorrupt (a manifest).
func (c *Client) Inspect(ctx context.Context, repo Repository, d digest.Digest) (Image, error) {
	return Image{}, errDraft
}

// Verify reads an image with all its blobs and compares every digest.
// Errors: ErrNotFound, ErrCorrupt; all that is wrong is joined.
func (c *Client) Verify(ctx context.Context, repo Repository, d digest.Digest) error { return errDraft }

// DeleteTag removes a name and leaves the content. Errors: ErrNotFound.
func (c *Client) DeleteTag(ctx context.Context, repo Repository, tag string) error { return errDraft }

// DeleteManifest removes a manifest, and every tag of it.
func (c *Client) DeleteManifest(ctx context.Context, repo Repository, d digest.Digest) error {
	return errDraft
}

// Tags lists the tags of a repository, sorted. Errors: ErrNotFound.
func (c *Client) Tags(ctx context.Context, repo Repository) ([]string, error) { return nil, errDraft }

// Repositories lists the repositories of a registry, sorted.
// Errors: ErrNotFound when it does not tell.
func (c *Client) Repositories(ctx context.Context, host string) ([]string, error) {
	return nil, errDraft
}

// OpenFileStore opens a store by its URL: file://DIR, s3://BUCKET[/PREFIX],
// gs://BUCKET[/PREFIX], http://HOST[/PATH] (an origin's file store) or
// https://. It asks the store nothing.
func (c *Client) OpenFileStore(ctx context.Context, url string) (FileStore, error) {
	return nil, errDraft
}

// CopyFile copies a file, unless it is at the destination, and returns what
// is there then. Errors: ErrNotFound (source), ErrCorrupt (source has other
// bytes), ErrConflict (destination has, and Overwrite is false).
func (c *Client) CopyFile(ctx context.Context, what FileCopy) (FileCopied, error) {
	return FileCopied{}, errDraft
}

// SumFile describes a file with its SHA256, which is read from the content
// when the store does not know it, or always if deep. Errors: ErrNotFound.
func (c *Client) SumFile(ctx context.Context, store FileStore, name string, deep bool) (FileInfo, error) {
	return FileInfo{}, errDraft
}
