package registry

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// FileHandler serves files by name, as [Handler] serves blobs: it keeps the same
// promises, and counts ranges, conditions and time in the same way. It is
// read-only, and safe for concurrent use.
type FileHandler struct {
	api   *Handler // without a backend
	files FileBackend
}

// NewFileHandler makes a FileHandler. Of cfg, Backend and Authorizer do not
// count.
func NewFileHandler(files FileBackend, cfg Config) *FileHandler {
	cfg.Backend, cfg.Authorizer = nil, nil
	return &FileHandler{api: NewHandler(cfg), files: files}
}

// ServeHTTP implements http.Handler. It panics with [http.ErrAbortHandler],
// which net/http turns into a cut connection, when a response cannot be
// completed as it was begun.
func (h *FileHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := h.api.exchanges.Get().(*exchange)
	x.begin(w, r)
	defer x.end()
	x.plain = true
	x.serveFile(h.files) //nolint:contextcheck // the context is the request's, which x holds
	x.returned = true
}

func (x *exchange) serveFile(files FileBackend) {
	req, err := ParseFileRequest(x.r)
	x.req = Request{Kind: KindFile, Head: req.Head, Repository: req.Path, Host: req.Host}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.methodNotAllowed()
		return
	}
	if err != nil {
		x.fail(err)
		return
	}
	if x.readers != nil && !x.permitted(x.readers.ReadFile(x.r, &req)) {
		return
	}
	f, cs, err := files.File(x.r.Context(), &req)
	if f.Content != nil {
		defer f.Content.Close()
	}
	x.cacheStatus(&cs)
	x.showID()
	if err != nil {
		x.fail(err)
		return
	}
	switch status := f.precondition(x.r.Header); {
	case status == http.StatusNotModified:
		for _, key := range []string{"Etag", "Cache-Control", "Expires", "Vary", "Content-Location"} { // RFC 9110, section 15.4.5
			if values := f.Header[key]; values != nil {
				x.header[key] = values
			}
		}
		x.confine()
		x.write(status, nil)
	case status != 0:
		e := Errorf(errcode.ErrorCodeUnsupported, "the condition of the request is not met: the file has the entity tag %s", f.ETag)
		e.Status = status
		x.fail(e)
	case x.req.Head:
		x.fileHeaders(&f, f.Size, nil)
		x.write(http.StatusOK, nil)
	case f.Content == nil:
		x.fail(fmt.Errorf("the backend gave no content for file %s", req.Path))
	default:
		x.fileContent(&f)
	}
}

// fileContent sends a file, or the parts of it that are asked for.
func (x *exchange) fileContent(f *File) {
	b := &Blob{Digest: f.Digest, Size: f.Size, MediaType: first(f.Header["Content-Type"]), Content: f.Content}
	ranges, verdict := x.fileRanges(f)
	x.sendRanges(b, ranges, verdict, "file", func(length int64, part *byteRange) { x.fileHeaders(f, length, part) })
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// fileHeaders puts the headers of a successful answer into the header, as
// [exchange.blobHeaders] does.
func (x *exchange) fileHeaders(f *File, length int64, part *byteRange) {
	// Without a type upstream, there is none here either: nil keeps net/http
	// from guessing one.
	x.header["Content-Type"] = nil
	maps.Copy(x.header, f.Header)
	x.confine()
	s := headerSet{buf: x.scratch[:0]}
	if length >= 0 {
		s.buf = strconv.AppendInt(s.buf, length, 10)
		s.add("Content-Length")
	}
	if part != nil {
		s.buf = part.appendContentRange(s.buf, f.Size)
		s.add("Content-Range")
	}
	s.put(x.header)
	if f.Size >= 0 {
		x.header["Accept-Ranges"] = x.values.bytes
	}
	x.header["X-Content-Type-Options"] = x.values.nosniff
}

// noTag is no entity tag of any client: theirs have no line breaks.
const noTag = "\n"

// opaque is what is between the quotes of the entity tag.
func (f *File) opaque() (opaque string, weak bool) {
	tag, weak := strings.CutPrefix(f.ETag, "W/")
	if len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		return noTag, weak
	}
	return tag[1 : len(tag)-1], weak
}

// precondition evaluates the conditions of a request: see [precondition]. It
// returns 0, 304 or 412.
func (f *File) precondition(h http.Header) int {
	opaque, weak := f.opaque()
	if values := h["If-Match"]; values != nil && weak && !matchesETag(values, noTag, false) {
		return http.StatusPreconditionFailed // If-Match compares strongly, and but "*" matches nothing weak
	}
	return precondition(h, opaque, f.Modified)
}

// fileRanges says which parts of a file are wanted.
func (x *exchange) fileRanges(f *File) ([]byteRange, rangeVerdict) {
	values := x.r.Header["Range"]
	if len(values) != 1 || f.Size < 0 || !f.rangeApplies(x.r.Header) {
		return nil, rangeWhole
	}
	return parseRange(x.ranges[:0], values[0], f.Size)
}

// rangeApplies evaluates If-Range, for which only strong validators count.
func (f *File) rangeApplies(h http.Header) bool {
	opaque, weak := f.opaque()
	if weak {
		opaque = noTag
	}
	var modified time.Time
	if !f.DateIsWeak {
		modified = f.Modified
	}
	return rangeApplies(h, opaque, modified)
}

// wantsText says whether an error is told as plain text: to who downloads
// files, unless they ask for JSON.
func (x *exchange) wantsText() bool {
	return x.plain && !strings.Contains(x.r.Header.Get("Accept"), "json")
}
