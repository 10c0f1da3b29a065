package registry

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// blob answers KindBlob.
func (x *exchange) blob() {
	b, cs, err := x.backend.Blob(x.r.Context(), &x.req)
	if b.Content != nil {
		defer b.Content.Close()
	}
	x.cacheStatus(&cs)
	x.showID()
	if err != nil {
		x.fail(err)
		return
	}
	if b.Digest != x.req.Digest {
		x.fail(fmt.Errorf("the backend gave blob %q for %s", b.Digest, x.req.Digest))
		return
	}
	opaque := string(b.Digest)
	if status := precondition(x.r.Header, opaque, b.Modified); status != 0 {
		x.blobValidators(&b)
		x.conditional(status, opaque)
		return
	}
	if b.Redirect != "" {
		x.header["Docker-Content-Digest"] = []string{opaque}
		x.header["Location"] = []string{b.Redirect}
		x.header["Content-Length"] = []string{"0"}
		// The URL may be signed, and will expire.
		x.header["Cache-Control"] = x.values.noStore
		x.write(http.StatusTemporaryRedirect, nil)
		return
	}
	if x.req.Head {
		x.blobHeaders(&b, b.Size, nil)
		x.write(http.StatusOK, nil)
		return
	}
	if b.Content == nil {
		x.fail(fmt.Errorf("the backend gave no content for blob %s", b.Digest))
		return
	}
	x.blobContent(&b)
}

// blobContent sends a blob, or the parts of it that are asked for.
func (x *exchange) blobContent(b *Blob) {
	ranges, verdict := x.blobRanges(b)
	x.sendRanges(b, ranges, verdict, "blob", func(length int64, part *byteRange) { x.blobHeaders(b, length, part) })
}

// sendRanges sends content, or the parts of it that are asked for. headers puts the
// headers of a body of length bytes (negative when unknown), or of a part, into the
// header; what is what the content is called.
func (x *exchange) sendRanges(b *Blob, ranges []byteRange, verdict rangeVerdict, what string, headers func(length int64, part *byteRange)) {
	switch {
	case verdict == rangeUnsatisfiable:
		x.header["Content-Range"] = []string{"bytes */" + strconv.FormatInt(b.Size, 10)}
		x.header["Accept-Ranges"] = x.values.bytes
		x.fail(Errorf(errcode.ErrorCodeRangeInvalid,
			"the range %s lies outside the %s, which has %d bytes: want one that begins before its end", quote(x.r.Header.Get("Range")), what, b.Size))
	case verdict == rangePartial && len(ranges) == 1:
		r := ranges[0]
		headers(r.length, &r)
		x.send(b, http.StatusPartialContent, r.length, ranges, nil)
	case verdict == rangePartial:
		parts := newMultipart(ranges, b)
		headers(parts.length, nil)
		x.header["Content-Type"] = []string{"multipart/byteranges; boundary=" + parts.boundary}
		x.send(b, http.StatusPartialContent, parts.length, ranges, parts)
	case b.Size < 0 && !x.r.ProtoAtLeast(1, 1):
		// HTTP/1.0 ends such a body by closing the connection, and so cannot
		// tell the end from a cut.
		e := Errorf(errcode.ErrorCodeUnsupported, "the size of the %s is not known yet: ask with HTTP/1.1, or again when it is", what)
		e.Status = http.StatusHTTPVersionNotSupported
		x.fail(e)
	default:
		headers(b.Size, nil)
		x.ranges[0] = byteRange{length: b.Size}
		x.send(b, http.StatusOK, b.Size, x.ranges[:], nil)
	}
}

// blobRanges says which parts of a blob are wanted.
func (x *exchange) blobRanges(b *Blob) ([]byteRange, rangeVerdict) {
	values := x.r.Header["Range"]
	if len(values) != 1 || b.Size < 0 || !rangeApplies(x.r.Header, string(b.Digest), b.Modified) {
		return nil, rangeWhole
	}
	return parseRange(x.ranges[:0], values[0], b.Size)
}

// send sends a response's headers, and its body of length bytes (negative when
// unknown): the one part of the blob, or several within a multipart body.
// Headers do not wait for content: some clients give up on them after 30
// seconds.
func (x *exchange) send(b *Blob, status int, length int64, parts []byteRange, around *multipartBody) {
	x.body.reset(x.w, x.r, status, length, x.writeTimeout, &x.buffers)
	x.obs.Status = status
	var whole Gatherer
	if ready(b.Content, parts) {
		whole = x.gather(length)
	} else {
		x.body.flush()
	}
	var err error
	if around != nil {
		err = x.sendMultipart(around, b.Content, parts)
	} else {
		err = x.sendRange(b.Content, parts[0])
	}
	if whole != nil && err != nil {
		err = errors.Join(err, x.sendBroken(whole))
	}
	x.obs.Bytes = x.body.written
	switch {
	case err == nil:
		x.body.start() // an empty body has not done it
	case x.body.started:
		x.abort(err)
	default:
		for _, key := range []string{
			"Accept-Ranges", "Cache-Control", "Content-Length", "Content-Range",
			"Content-Type", "Docker-Content-Digest", "Etag", "Last-Modified",
			"Content-Disposition", "Content-Encoding", "Expires", "Repr-Digest", // of files
		} {
			delete(x.header, key)
		}
		x.fail(err)
	}
}

// sendRange sends a part of the content; a negative length means to the end.
func (x *exchange) sendRange(content Content, r byteRange) error {
	before, length := x.body.written, r.length
	if r.toEnd { // so that the content knows
		length = -1
	}
	if _, err := content.WriteRange(x.r.Context(), &x.body, r.start, length); err != nil {
		return err
	}
	if n := x.body.written - before; r.length >= 0 && n != r.length {
		return fmt.Errorf("content gave %d of %d bytes from %d: %w", n, r.length, r.start, errWrongLength)
	}
	return nil
}

// errWrongLength says that a backend's content is not as long as it announced.
var errWrongLength = errors.New("content differs from the size announced")

// ready says whether all that will be sent is at hand. A response then leaves
// with its headers and first bytes in one segment.
func ready(content Content, parts []byteRange) bool {
	c, ok := content.(interface {
		Ready(offset, length int64) bool
	})
	if !ok {
		return false
	}
	for _, part := range parts {
		if part.length < 0 || !c.Ready(part.start, part.length) {
			return false
		}
	}
	return true
}
