package transfer

import (
	"context"
	"io"
	"iter"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

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
	// has other content and overwrite is false. After ErrUnavailable and
	// ErrRateLimited, Put may be called again with the bytes from the start.
	Put(ctx context.Context, file FileInfo, overwrite bool, r io.Reader) error
	// Delete removes a file. Errors: ErrNotFound.
	Delete(ctx context.Context, name string) error
	// List gives the files whose names begin with prefix, sorted. SHA256 is
	// told where listing tells it. It ends with the first error. Errors: ErrUnsupported when the
	// store cannot be listed.
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

// OpenFileStore opens a store by its URL: file://DIR, s3://BUCKET[/PREFIX],
// gs://BUCKET[/PREFIX], http://HOST[/PATH] (an origin's file store, or any
// server to read from) or https://. It asks the store nothing.
//
// s3:// takes its endpoint, region and credentials from AWS_ENDPOINT_URL_S3 or
// AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else from the AWS credentials
// file or the role of the machine. gs:// is Google's S3 interoperability: it
// takes them from GS_ENDPOINT_URL (https://storage.googleapis.com), and the HMAC
// key GS_ACCESS_KEY_ID and GS_SECRET_ACCESS_KEY. Without any, requests are
// anonymous. Errors: ErrUnsupported.
func (c *Client) OpenFileStore(_ context.Context, location string) (FileStore, error) {
	c.mu.Lock()
	known := c.stores[location]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	store, err := c.newFileStore(location)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known = c.stores[location]; known != nil {
		return known, nil
	}
	c.stores[location] = store
	return store, nil
}

func (c *Client) newFileStore(location string) (FileStore, error) {
	scheme, rest, found := strings.Cut(location, "://")
	switch {
	case !found:
	case scheme == "file" && rest != "":
		return newDirStore(c, rest), nil
	case scheme == "s3" || scheme == "gs":
		return c.newBucketStore(scheme, rest)
	case scheme == "https" || scheme == "http":
		u, err := url.Parse(location)
		if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, failf(ErrUnsupported, "file store at %s://…: want a URL of host and path, and logins in the docker configuration", scheme)
		}
		return newWebStore(c, u), nil
	}
	return nil, failf(ErrUnsupported, "file store %q: want file://DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or https://HOST/PATH", location)
}

// maxFileName bounds a name, in bytes, as S3 does.
const maxFileName = 1024

// checkFileName refuses names that do not stay below a base, whatever the kind
// of the store.
func checkFileName(name string) error {
	if name == "" || len(name) > maxFileName || !utf8.ValidString(name) {
		return failf(ErrUnsupported, "file name %.100q: want 1 to %d bytes of UTF-8", name, maxFileName)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return failf(ErrUnsupported, `file name %.100q: want segments other than "." and "..", joined by single slashes`, name)
		}
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return failf(ErrUnsupported, "file name %.100q has a control character or a backslash", name)
	}
	return nil
}
