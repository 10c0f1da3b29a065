// Package blobstore keeps content by digest, and small named records beside it.
//
// Two stores hold both for good: [Dir], a directory with a size limit and
// least-recently-used eviction, and [S3], a bucket. [Memory] is a bounded
// in-memory tier for manifests and small blobs in front of either. All of them
// keep one promise: bytes are readable under a digest only after they were
// found to have it, and appear there at once or not at all, whatever crashes.
// They do not fetch content, decide who may read it, or know what it means.
//
// Disks change what was verified. [Scrubber] finds it in a directory that is in
// use, [ScrubDir], [CheckDir] and [RepairDir] in one that may be, and
// [S3.Scrub] in a bucket.
//
// Blobs lie at blobs/<algorithm>/<first two hex>/<hex>/data below the
// directory or the bucket's prefix, the layout the distribution registry uses.
//
// Package storetest holds the suite that every [Store] passes.
package blobstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// Errors that callers decide on. Stores wrap them: test with [errors.Is].
var (
	// ErrNotExist says that the store holds no such blob or record.
	ErrNotExist = errors.New("not in the store")
	// ErrDigestMismatch says that the bytes written do not have the digest
	// they were written under. Nothing was stored.
	ErrDigestMismatch = errors.New("content does not match its digest")
	// ErrSizeMismatch says that more or fewer bytes came than were announced.
	// Nothing was stored.
	ErrSizeMismatch = errors.New("content does not match its size")
	// ErrInvalidDigest says that a digest is malformed or of an algorithm
	// other than sha256 and sha512.
	ErrInvalidDigest = errors.New("invalid digest")
	// ErrInvalidKey says that a record key breaks the rules of [Records].
	ErrInvalidKey = errors.New("invalid record key")
	// ErrInvalidRange says that an offset lies outside the blob.
	ErrInvalidRange = errors.New("range outside the blob")
	// ErrInUse says that another process has the store open.
	ErrInUse = errors.New("another process has it open")
	// ErrNoSpace says that the store is full: on its disk, or at its size
	// limit with nothing left that may be evicted.
	ErrNoSpace = errors.New("no space left in the store")
)

// MaxRecordSize bounds the value of a record, in bytes.
const MaxRecordSize = 64 << 20

// Info describes a stored blob.
type Info struct {
	Digest  digest.Digest
	Size    int64     // bytes
	ModTime time.Time // when it was stored, or last used: stores differ
}

// Store is what every store of blobs offers.
type Store interface {
	// Stat describes a blob. Errors: ErrNotExist, ErrInvalidDigest.
	Stat(ctx context.Context, d digest.Digest) (Info, error)

	// Open reads length bytes of a blob from offset; a negative length means
	// to the end, and a length past the end is cut there. The blob can be
	// read to its end even when it is deleted or evicted meanwhile.
	// Errors: ErrNotExist, ErrInvalidDigest, ErrInvalidRange (offset is
	// negative or greater than the size).
	Open(ctx context.Context, d digest.Digest, offset, length int64) (io.ReadCloser, Info, error)

	// Put stores what r gives under d, after it was found to have that
	// digest; size is its length in bytes, or negative when unknown. Storing
	// what is there already reads nothing and succeeds. Errors:
	// ErrDigestMismatch, ErrSizeMismatch, ErrInvalidDigest, ErrNoSpace.
	Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) error

	// Delete removes a blob. Errors: ErrNotExist, ErrInvalidDigest.
	Delete(ctx context.Context, d digest.Digest) error

	// Blobs lists what is stored, in no particular order. It ends after the
	// first error.
	Blobs(ctx context.Context) iter.Seq2[Info, error]
}

// Records are small named values beside the blobs: what a tag points to, what
// media type a manifest has. A key is one or more segments joined by "/"; each
// is 1 to 255 bytes of printable ASCII, and not "." or "..". Stores escape what
// their medium cannot hold. A record is replaced at once or not at all.
type Records interface {
	// Record returns a value. Errors: ErrNotExist, ErrInvalidKey.
	Record(ctx context.Context, key string) ([]byte, error)
	// PutRecord sets a value of at most MaxRecordSize bytes.
	// Errors: ErrInvalidKey, ErrNoSpace.
	PutRecord(ctx context.Context, key string, value []byte) error
	// DeleteRecord removes a record; removing what is not there succeeds.
	// Errors: ErrInvalidKey.
	DeleteRecord(ctx context.Context, key string) error
	// RecordKeys lists, in the order of their bytes, the keys that lie below
	// prefix, which is whole segments ("tags/docker.io"), or empty for all.
	RecordKeys(ctx context.Context, prefix string) iter.Seq2[string, error]
}
