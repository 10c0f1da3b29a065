package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// What a storage tells its callers, beside [ErrNotExist] and [ErrReadOnly].
var (
	// ErrNotModified is about an object that is still of the version known.
	ErrNotModified = errors.New("not modified")
	// ErrConflict is about an object that is there, but other than expected.
	ErrConflict = errors.New("conflicts with what is there")
)

// Version identifies the content of an object in one storage: an ETag, or a
// hash. Empty means that there is no object, or that its version is not known.
type Version string

// Reader reads the objects of a log, by their paths ("checkpoint",
// "tile/entries/000.p/7"). It is safe for concurrent use.
type Reader interface {
	// Read returns an object and its version. With a version that is known
	// already, the object is read only when it is another now.
	// Errors: ErrNotExist, ErrNotModified; ErrCorrupt when the object is larger
	// than any at that path can be.
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

var (
	_ Storage = (*Dir)(nil)
	_ Storage = (*S3)(nil)
	_ Storage = (*HTTP)(nil)
	_ Storage = (*Staged)(nil)
)

// OpenStorage opens where a log is: "file://DIR", absolute or not and with
// percent-encoding (RFC 8089), "s3://BUCKET/PREFIX" with endpoint and
// credentials from AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY, or "https://…/ledger", which is read-only. It makes no request and writes nothing.
func OpenStorage(location string) (Storage, error) {
	storage, err := openStorage(location)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger at %s: %w", redact(location), err)
	}
	return storage, nil
}

func openStorage(location string) (Storage, error) {
	scheme, rest, _ := strings.Cut(location, "://")
	switch scheme {
	case "file":
		dir, err := url.PathUnescape(rest)
		if err != nil || dir == "" {
			return nil, errors.New("want a directory behind file://, with %25 for a percent sign")
		}
		return NewDir(dir), nil
	case "s3":
		bucket, prefix, _ := strings.Cut(rest, "/")
		cfg, err := s3FromEnvironment()
		if err != nil {
			return nil, err
		}
		cfg.Bucket, cfg.Prefix = bucket, prefix
		return NewS3(cfg)
	case "http", "https":
		return NewHTTP(location, nil)
	default:
		return nil, errors.New("want file://DIR, s3://BUCKET/PREFIX or, read-only, https://HOST/PATH")
	}
}

// redact is a location without its password.
func redact(location string) string {
	if u, err := url.Parse(location); err == nil && u.User != nil {
		return u.Redacted()
	}
	return location
}
