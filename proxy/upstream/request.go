package upstream

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// ManifestAccept is the Accept header of manifest requests that bring none:
// every manifest type in use, because a registry answers 404, or converts, when
// a manifest's own type is not listed.
const ManifestAccept = "application/vnd.oci.image.index.v1+json, " +
	"application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.docker.distribution.manifest.v2+json, " +
	"*/*;q=0.1"

// Request is a question to an upstream that any of its endpoints may answer.
type Request struct {
	// Method is GET or HEAD.
	Method string
	// Repository is what a token is asked for: repository:<name>:pull. Empty
	// asks for a token without scope.
	Repository string
	// Path is below /v2/, such as "library/nginx/manifests/latest". Of a file
	// server it is below the URL, and percent-encoded.
	Path string
	// Query is sent as it is, without "?".
	Query string
	// Header is added to the request: Accept, If-None-Match. Authorization,
	// Range and Accept-Encoding are not the caller's to set; If-Range is.
	Header http.Header

	// Offset is the first byte wanted. It does not count for HEAD.
	Offset int64
	// Size is that of the whole content in bytes, 0 or less when unknown. An
	// answer to a request with an Offset that says otherwise is Invalid.
	Size int64
	// Length, when positive, is how many bytes from Offset are wanted.
	Length int64

	// Small says that the answer is a document, which does not wait behind
	// content of any size. Where it is not set, a registry's paths tell.
	Small bool

	// Check, when set, is asked about each answer of a good status before its
	// body is read. Its error makes the answer Invalid.
	Check func(*http.Response) error

	// Skip reports endpoints not to use, because they sent wrong content.
	// Nil skips none.
	Skip func(*Endpoint) bool
}

// Response is the first good answer: status 200, 206, or 304 when the request
// was conditional. Its Body starts at the request's Offset, whatever the status,
// and must be closed.
type Response struct {
	*http.Response
	// Endpoint is who answered.
	Endpoint *Endpoint
	// TotalSize is that of the whole content in bytes, -1 when unknown.
	TotalSize int64
}

// check finds mistakes of the caller.
func (r *Request) check() error {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return invalidf("method %q: only GET and HEAD are sent upstream", r.Method)
	case r.Offset < 0, r.Size > 0 && r.Offset >= r.Size:
		return invalidf("offset %d is not in content of %d bytes", r.Offset, r.Size)
	}
	return nil
}

func (r *Request) isRanged() bool {
	return r.Method == http.MethodGet && (r.Offset > 0 || r.Length > 0)
}

func (r *Request) isConditional() bool {
	return r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != ""
}

// isSmall reports whether the answer is a name or a document rather than
// content of any size.
func (u *Upstream) isSmall(r *Request) bool {
	return r.Small || r.Method == http.MethodHead || !u.cfg.Files && !strings.Contains(r.Path, "/blobs/")
}

// last is the last byte wanted, -1 when that is the content's own.
func (r *Request) last() int64 {
	switch {
	case r.Length > 0 && r.Size > 0:
		return min(r.Offset+r.Length, r.Size) - 1
	case r.Length > 0:
		return r.Offset + r.Length - 1
	case r.Size > 0:
		return r.Size - 1
	}
	return -1
}

// header is what is sent, to the registry and wherever it redirects to.
func (r *Request) header() http.Header {
	h := r.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	h.Del("Authorization")
	h.Del("Range")
	h.Del("User-Agent")
	h.Set("Accept-Encoding", "identity")
	if h.Get("Accept") == "" && strings.Contains(r.Path, "/manifests/") {
		h.Set("Accept", ManifestAccept)
	}
	if r.isRanged() {
		end := ""
		if last := r.last(); last >= 0 {
			end = strconv.FormatInt(last, 10)
		}
		h.Set("Range", fmt.Sprintf("bytes=%d-%s", r.Offset, end))
	}
	return h
}

// extent is where in a response's body the bytes wanted lie, and how large the
// whole content is.
type extent struct {
	skip   int64 // bytes to discard first
	length int64 // bytes to give then, -1 to the end of the body
	total  int64 // -1 when unknown
}

// place finds the bytes wanted in a response of a good status. A registry that
// ignores ranges sends all from byte 0; one that honours them must send the
// range that was asked for (RFC 9110 section 15.3.7).
func (r *Request) place(resp *http.Response) (extent, *Error) {
	all := extent{length: -1, total: resp.ContentLength}
	switch {
	case resp.StatusCode == http.StatusNotModified:
		all.total = -1
		return all, nil
	case resp.StatusCode == http.StatusPartialContent:
		return r.placePartial(resp)
	case !r.isRanged():
		return all, nil
	case r.Size > 0 && all.total >= 0 && all.total != r.Size:
		return all, invalidf("asked for content of %d bytes, sent %d", r.Size, all.total)
	case all.total >= 0 && r.Offset >= all.total:
		return all, invalidf("asked for bytes from %d, sent %d", r.Offset, all.total)
	}
	if all.total < 0 && r.Size > 0 {
		all.total = r.Size
	}
	all.skip = r.Offset
	if r.Length > 0 {
		all.length = r.Length
		if all.total >= 0 {
			all.length = min(all.length, all.total-r.Offset)
		}
	}
	return all, nil
}

func (r *Request) placePartial(resp *http.Response) (extent, *Error) {
	value := resp.Header.Get("Content-Range")
	start, end, total, ok := parseContentRange(value)
	last := r.last()
	switch {
	case !r.isRanged():
		return extent{}, invalidf("sent a part where all was asked for")
	case !ok:
		return extent{}, invalidf("sent a part with Content-Range %.80q", value)
	case start != r.Offset, last >= 0 && end > last, r.Size > 0 && total >= 0 && total != r.Size:
		return extent{}, invalidf("asked for bytes %d to %d of %d (-1 or 0: not known), sent Content-Range %.80q", r.Offset, last, r.Size, value)
	case resp.ContentLength >= 0 && resp.ContentLength != end-start+1:
		return extent{}, invalidf("sent Content-Range %.80q with %d bytes", value, resp.ContentLength)
	}
	if total < 0 && r.Size > 0 {
		total = r.Size
	}
	return extent{length: end - start + 1, total: total}, nil
}

// parseContentRange reads "bytes start-end/total"; total is -1 for "*".
func parseContentRange(value string) (start, end, total int64, ok bool) {
	spec, isBytes := strings.CutPrefix(value, "bytes ")
	positions, whole, hasTotal := strings.Cut(spec, "/")
	first, last, hasEnd := strings.Cut(positions, "-")
	if !isBytes || !hasTotal || !hasEnd || !isDigits(first) || !isDigits(last) || whole != "*" && !isDigits(whole) {
		return 0, 0, 0, false
	}
	start, errStart := strconv.ParseInt(first, 10, 64)
	end, errEnd := strconv.ParseInt(last, 10, 64)
	total = -1
	var errTotal error
	if whole != "*" {
		total, errTotal = strconv.ParseInt(whole, 10, 64)
	}
	if errStart != nil || errEnd != nil || errTotal != nil || end < start || total >= 0 && end >= total {
		return 0, 0, 0, false
	}
	return start, end, total, true
}
