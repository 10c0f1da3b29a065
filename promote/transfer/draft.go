package transfer

// The bodies of these methods follow, file by file.

import (
	"context"
)

var errDraft = failf(ErrUnsupported, "not written yet")

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
