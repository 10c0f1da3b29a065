package registry

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"entrepot/registry/folder"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// FileBackend answers requests for files by name.
type FileBackend interface {
	// File answers a GET or HEAD. The caller closes Content when it is not nil.
	// Errors are those of [Backend]; NAME_UNKNOWN says that there is no file.
	File(ctx context.Context, req *FileRequest) (File, CacheStatus, error)
}

// FileRequest is a parsed request for a file.
type FileRequest struct {
	Head  bool   // HEAD: the content is not needed
	Path  string // without the first slash, percent-encoded as the client sent it
	Query string // as sent, without "?"
	Host  string // the Host header as sent: host or host:port

	http *http.Request // nil for one that was not parsed
}

// Accept is what the client prefers: the values of its Accept headers.
func (r *FileRequest) Accept() []string {
	if r.http == nil {
		return nil
	}
	return r.http.Header.Values("Accept")
}

// Base is the URL by which the client knows the server, without a slash at its end.
func (r *FileRequest) Base() string {
	if r.http == nil {
		return ""
	}
	return folder.RootURL(r.http, "")
}

// File is the answer to a request for a file.
type File struct {
	Digest digest.Digest // "" while it is not known
	Size   int64         // bytes; negative when unknown, then no range can be served
	// ETag is the entity tag as it is sent, with its quotes; "" for none.
	ETag string
	// Modified is the time that is sent as Last-Modified, zero for none.
	// DateIsWeak says that it does not tell two versions from each other (RFC
	// 9110, section 8.8.2.2): no If-Range is true for it.
	Modified   time.Time
	DateIsWeak bool
	// Header is what is sent besides lengths and ranges: the validators above,
	// Content-Type, Repr-Digest, Cache-Control and what else describes the
	// content. It is shared: nobody writes to it.
	Header  http.Header
	Content Content // nil for HEAD
}

// maxFilePath bounds a path and its query, in bytes.
const maxFilePath = 8 << 10

// ParseFileRequest reads the path and the query of a request for a file. They
// are kept as the client sent them: to one server "%2F" is a slash and to another
// it is none. A path that to any server could mean one above it is an error.
func ParseFileRequest(r *http.Request) (FileRequest, error) {
	req := FileRequest{Head: r.Method == http.MethodHead, Query: r.URL.RawQuery, Host: r.Host, http: r}
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/")
	if !ok {
		return req, Errorf(errcode.ErrorCodeNameInvalid, "%s is not a path: it does not begin with a slash", quote(r.URL.Path))
	}
	if len(path)+len(req.Query) > maxFilePath {
		e := Errorf(errcode.ErrorCodeNameInvalid, "the path has more than %d bytes", maxFilePath)
		e.Status = http.StatusRequestURITooLong
		return req, e
	}
	req.Path = path
	return req, checkFilePath(path)
}

// DigestOfPath reads "blobs/sha256:<hex>", where content is had by its digest. The
// colon may be percent-encoded.
func DigestOfPath(path string) (digest.Digest, bool) {
	text, ok := strings.CutPrefix(path, "blobs/")
	if !ok || len(text) > 256 {
		return "", false
	}
	d := digest.Digest(strings.Replace(strings.Replace(text, "%3A", ":", 1), "%3a", ":", 1))
	return d, strings.HasPrefix(string(d), "sha256:") && d.Validate() == nil
}

// checkFilePath refuses a path with control characters, or with an element "."
// or "..", however often it is encoded, and whichever slash is between.
func checkFilePath(path string) error {
	if !strings.ContainsAny(path, ".%\\") {
		return nil // the path came through net/http: only encoded characters can be control characters
	}
	const layers = 4 // nobody decodes more often
	text := path
	for range layers {
		for element := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '/' || r == '\\' }) {
			element, _, _ = strings.Cut(element, ";") // some servers take it for the end of the name
			if element == "." || element == ".." {
				return Errorf(errcode.ErrorCodeNameInvalid, "the path %s has an element %q: send it without", quote(path), element)
			}
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return Errorf(errcode.ErrorCodeNameInvalid, "the path %s has a control character", quote(path))
		}
		decoded, err := url.PathUnescape(text)
		if err != nil || decoded == text {
			break // what a server cannot decode it takes as it is
		}
		text = decoded
	}
	return nil
}
