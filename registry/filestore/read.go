package filestore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"entrepot/blobstore"
	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

// What a cache may do with an answer. Without "public", a shared cache keeps
// none to a request that carried credentials (RFC 9111, section 3.5).
const (
	cacheImmutable  = "max-age=31536000, immutable"
	cacheRevalidate = "no-cache" // names move; the entity tag makes asking cheap
)

// get answers GET and HEAD.
func (x *exchange) get(t target) error {
	switch t.kind {
	case targetBlob:
		return x.getBlob(t.digest)
	case targetFolder:
		return x.list(t.path)
	default:
		return x.getFile(t.path)
	}
}

func (x *exchange) getFile(p Path) error {
	f, err := x.names.file(x.r.Context(), p)
	if errors.Is(err, errNoFile) {
		if x.names.isFolder(p) {
			return x.redirectToFolder(p)
		}
		if in, name := p.parent(); name == folder.SumsName && x.names.isFolder(in) {
			return x.sums(in)
		}
		return problemf(http.StatusNotFound, codeUnknown, "there is no file %s", p)
	}
	if err != nil {
		return err
	}
	header := x.w.Header()
	header.Set("Content-Type", contentType(f, p))
	header.Set("Cache-Control", cacheRevalidate)
	return x.serveContent(f.Digest, f.Size, f.Modified)
}

// contentType is what a file is sent as.
func contentType(f *file, p Path) string {
	if f.ContentType != "" {
		return f.ContentType
	}
	return extensionType(p)
}

// redirectToFolder sends who left the slash out to a folder's listing.
func (x *exchange) redirectToFolder(p Path) error {
	location := x.prefix + "/" + folder.EscapePath(string(p)) + "/"
	if x.r.URL.RawQuery != "" {
		location += "?" + x.r.URL.RawQuery
	}
	header := x.w.Header()
	header.Set("Location", location)
	header.Set("Cache-Control", cacheRevalidate)
	header.Set("Content-Length", "0")
	// Not for good: the folder may go, and a file have its name.
	x.w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

func (x *exchange) getBlob(d digest.Digest) error {
	if d.Algorithm() != digest.SHA256 {
		return problemf(http.StatusNotFound, codeUnknown, "files are kept by their sha256: there is no %s", d)
	}
	info, err := x.store.Stat(x.r.Context(), d)
	if errors.Is(err, blobstore.ErrNotExist) {
		return problemf(http.StatusNotFound, codeUnknown, "there is no content with digest %s", d)
	}
	if err != nil {
		return fmt.Errorf("asking for blob %s: %w", d, err)
	}
	header := x.w.Header()
	header.Set("Content-Type", octetStream)
	header.Set("Cache-Control", cacheImmutable)
	// Without a time: a directory has that of the last use.
	return x.serveContent(d, info.Size, time.Time{})
}

// entityTag is that of content.
func entityTag(d digest.Digest) string { return `"` + string(d) + `"` }

// serveContent sends content as the request's ranges and conditions ask.
func (x *exchange) serveContent(d digest.Digest, size int64, modified time.Time) error {
	var body io.ReadSeeker
	start, end := rangeHint(x.r.Header.Get("Range"), size)
	asked := &content{ctx: x.r.Context(), store: x.store, digest: d, size: size, end: end}
	defer asked.Close()
	body = asked
	switch {
	case x.r.Method == http.MethodHead || strings.Contains(x.r.Header.Get("If-None-Match"), string(d)):
		// Nothing will be read, or hardly.
	case x.files != nil:
		file, err := x.files.OpenFile(d)
		if err != nil {
			return missing(d, err)
		}
		defer file.Close()
		body = file.File // which the kernel sends
	case size > 0:
		// Before the headers are out, a failure can be told.
		if err := asked.openRange(start, end); err != nil {
			return missing(d, err)
		}
	}
	header := x.w.Header()
	header.Set("Etag", entityTag(d))
	header.Set("Repr-Digest", reprDigest(d))
	// Content is anybody's who may write: in a browser it is not to act as a
	// page of this host.
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	http.ServeContent(x.w, x.r, "", modified, body)
	x.checkSent(d, asked.err)
	return nil
}

// missing is what happened to content that a name points to.
func missing(d digest.Digest, err error) error {
	return fmt.Errorf("opening content %s: %w", d, err)
}

// checkSent cuts the connection if less was sent than was announced.
func (x *exchange) checkSent(d digest.Digest, err error) {
	announced, parseErr := strconv.ParseInt(x.w.Header().Get("Content-Length"), 10, 64)
	if x.r.Method == http.MethodHead || parseErr != nil || x.w.written == announced || x.w.status == http.StatusNotModified {
		return
	}
	x.cut = true
	if err == nil || x.r.Context().Err() != nil {
		x.obs.Err = fmt.Errorf("the client left, or %s is damaged: sent %d of %d bytes", d, x.w.written, announced)
		return
	}
	x.obs.Err = fmt.Errorf("sending %s: %w", d, err)
	x.log.WarnContext(x.r.Context(), "transfer cut",
		slog.String("id", x.obs.ID), slog.String("path", x.obs.Path), slog.Int64("sent", x.w.written), slog.Any("error", err))
}
