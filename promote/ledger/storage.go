package ledger

import (
	"context"
	"errors"
)

// What a storage tells its callers, beside [ErrNotExist] and [ErrReadOnly].
var (
	// ErrNotModified is about an object that is still of the version known.
	ErrNotModified = errors.New("not modified")
	// ErrConflict is about an object that is there, but other than expected.
	ErrConflict = errors.New("conflicts with what is there")
)

// Version identifies the content of an object in one storage: an ETag, or a
// hash. Empty means that there is no object.
type Version string

// Reader reads the objects of a log, by their paths ("checkpoint",
// "tile/entries/000.p/7"). It is safe for concurrent use.
type Reader interface {
	// Read returns an object and its version. With a version that is known
	// already, the object is read only when it is another now.
	// Errors: ErrNotExist, ErrNotModified.
	Read(ctx context.Context, path string, known Version) ([]byte, Version, error)
}

// Storage keeps the objects of a log. It is safe for concurrent use, also by
// several processes.
type Storage interface {
	Reader
	// Create writes an object once; it is durable on return. The same again is
	// no error. Errors: ErrConflict when other bytes are there, ErrReadOnly.
	Create(ctx context.Context, path string, data []byte) error
	// Swap writes an object if it is of the old version still, or if there is
	// none and old is empty; it is durable on return.
	// Errors: ErrConflict, ErrReadOnly.
	Swap(ctx context.Context, path string, old Version, data []byte) error
}

// OpenStorage opens where a log is: "file://DIR", "s3://BUCKET/PREFIX" with
// endpoint and credentials from AWS_ENDPOINT_URL, AWS_REGION,
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "https://…/ledger", which is
// read-only. It makes no request and writes nothing.
func OpenStorage(location string) (Storage, error) {
	return nil, errors.New("opening the ledger's storage: not built yet")
}
