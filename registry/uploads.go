package registry

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// startUpload answers POST of an upload (OCI Distribution v1.1, "Pushing
// Blobs"): a mount, a whole blob in one request, or the start of a session.
func (x *exchange) startUpload() {
	query, err := parseUploadQuery(x.r.URL.RawQuery)
	if err != nil {
		x.fail(err)
		return
	}
	ctx := x.r.Context()
	if query.mount != "" {
		mounted, err := x.writer.Mount(ctx, &x.req, query.mount, query.from)
		if err != nil {
			x.fail(err)
			return
		}
		if mounted {
			x.blobCreated(query.mount)
			return
		}
	}
	if x.req.Upload, err = x.writer.StartUpload(ctx, &x.req); err != nil {
		x.fail(err)
		return
	}
	if query.digest == "" {
		x.uploadState(http.StatusAccepted, 0)
		return
	}
	if !x.finishUpload(query.digest) {
		// The client knows no id to go on with, and may be gone itself.
		if err := x.writer.CancelUpload(context.WithoutCancel(ctx), &x.req); err != nil {
			if _, told := errors.AsType[*Error](err); !told { // else it is gone with the failure already
				x.logger.WarnContext(ctx, "cancelling a failed upload", "repository", x.req.Repository, "error", err)
			}
		}
	}
}

// appendUpload answers PATCH of an upload: a chunk, or a stream.
func (x *exchange) appendUpload() {
	if size, ok := x.appendBody(); ok {
		x.uploadState(http.StatusAccepted, size)
	}
}

// putUpload answers PUT of an upload: its end, with the last bytes or none.
func (x *exchange) putUpload() {
	query, err := parseUploadQuery(x.r.URL.RawQuery)
	if err == nil && query.digest == "" {
		err = Errorf(errcode.ErrorCodeDigestInvalid, "the query has no digest: want digest=sha256:<hex> of the whole blob")
	}
	if err != nil {
		x.fail(err)
		return
	}
	x.finishUpload(query.digest)
}

// finishUpload ends an upload with the request's body, if it has one.
func (x *exchange) finishUpload(d digest.Digest) bool {
	if x.r.ContentLength != 0 || x.r.Header["Content-Range"] != nil {
		if _, ok := x.appendBody(); !ok {
			return false
		}
	}
	if err := x.writer.FinishUpload(x.r.Context(), &x.req, d); err != nil {
		x.fail(err)
		return false
	}
	x.blobCreated(d)
	return true
}

// cancelUpload answers DELETE of an upload.
func (x *exchange) cancelUpload() {
	if err := x.writer.CancelUpload(x.r.Context(), &x.req); err != nil {
		x.fail(err)
		return
	}
	x.empty(http.StatusNoContent)
}

// uploadStatus answers GET of an upload: how far it is.
func (x *exchange) uploadStatus() {
	size, err := x.writer.UploadSize(x.r.Context(), &x.req)
	if err != nil {
		x.fail(err)
		return
	}
	x.uploadState(http.StatusNoContent, size)
}

// appendBody adds the request's body to the upload. If that fails, it has
// answered.
func (x *exchange) appendBody() (size int64, ok bool) {
	chunk := Chunk{Offset: -1, Length: x.r.ContentLength}
	if values := x.r.Header["Content-Range"]; values != nil {
		r, err := parseContentRange(values)
		if err == nil && chunk.Length >= 0 && chunk.Length != r.length {
			err = Errorf(errcode.ErrorCodeSizeInvalid, "the body has %d bytes, its Content-Range %s has %d", chunk.Length, quote(values[0]), r.length)
		}
		if err != nil {
			x.fail(err)
			return 0, false
		}
		chunk.Offset, chunk.Length = r.start, r.length
	}
	body := newRequestBody(x.w, x.r, x.writeTimeout)
	chunk.Body = body
	size, err := x.writer.AppendUpload(x.r.Context(), &x.req, chunk)
	body.finish()
	switch {
	case err == nil:
		return size, true
	case errors.Is(err, ErrUploadOffset):
		x.uploadHeaders(size)
		x.fail(Errorf(errcode.ErrorCodeRangeInvalid,
			"the chunk begins at byte %d, but the upload has %d bytes: send what follows them", chunk.Offset, size))
	case body.err != nil:
		x.fail(body.told())
	default:
		x.fail(err)
	}
	return 0, false
}

// uploadState answers how far an upload is, and where it goes on.
func (x *exchange) uploadState(status int, size int64) {
	x.uploadHeaders(size)
	x.empty(status)
}

func (x *exchange) uploadHeaders(size int64) {
	x.header["Location"] = []string{x.req.Path()}
	// The specification has no form for "no bytes": this is what distribution
	// sends, and what its clients read.
	x.header["Range"] = []string{"0-" + strconv.FormatInt(max(size-1, 0), 10)}
	x.header["Docker-Upload-Uuid"] = []string{x.req.Upload}
}

func (x *exchange) blobCreated(d digest.Digest) {
	x.created(apiPrefix+x.req.Repository+"/"+blobsElement+"/"+string(d), d)
}
