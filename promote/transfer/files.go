package transfer

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// FileStore is a place of files by name, such as a directory or a bucket. Names
// are slash-separated and below the store's base. Methods are safe for
// concurrent use.
type FileStore interface {
	// Stat describes a file. Errors: ErrNotFound.
	Stat(ctx context.Context, name string) (FileInfo, error)
	// Open reads a file from an offset, which is at most its size.
	// Errors: ErrNotFound.
	Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error)
	// Put writes a file, all of it or nothing. The bytes of r are verified, and
	// become visible under the name only when they have the file's size and
	// SHA256. A file that has them already is left alone.
	// Errors: ErrCorrupt when r gives other bytes, ErrConflict when the name
	// has other content and overwrite is false.
	Put(ctx context.Context, file FileInfo, overwrite bool, r io.Reader) error
	// Delete removes a file. Errors: ErrNotFound.
	Delete(ctx context.Context, name string) error
	// List gives the files whose names begin with prefix, sorted. SHA256 is
	// not told. It ends with the first error.
	List(ctx context.Context, prefix string) iter.Seq2[FileInfo, error]
	// String is the store's URL, without secrets.
	String() string
}

// FileInfo describes a file.
type FileInfo struct {
	Name    string        // below the store's base
	Size    int64         // bytes, -1 when not known
	SHA256  digest.Digest // empty when the store does not know
	ModTime time.Time     // zero when not known
}

// FileCopy is a file to copy.
type FileCopy struct {
	From, To FileStore
	Name     string
	SHA256   digest.Digest
	// Overwrite lets other content under the name be replaced.
	Overwrite bool
}

// FileCopied is what [Client.CopyFile] did.
type FileCopied struct {
	FileInfo

	Present bool // it was at the destination before
}
