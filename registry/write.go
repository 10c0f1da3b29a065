package registry

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// Writer is what a [Backend] has besides, that can be written to. The rules for
// errors and for lent Requests are those of Backend; the Request's Caller is
// set, and may be kept.
type Writer interface {
	Uploads

	// Mount makes the blob d, which the repository from holds, readable from
	// req.Repository too; with from empty, whichever repository holds it. It
	// reports false when there is no such blob: the client then uploads it.
	Mount(ctx context.Context, req *Request, d digest.Digest, from string) (bool, error)

	// PutManifest answers a push of KindManifest. Once it returns, the
	// manifest is there under its digest and all the tags. It returns the
	// digest of the manifest's subject, "" when it has none. Errors:
	// MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN.
	PutManifest(ctx context.Context, req *Request, push *ManifestPush) (subject digest.Digest, err error)

	// Delete removes what a request of KindManifest or KindBlob names: a tag;
	// a manifest and the tags that point to it; a blob, from this repository.
	// Errors: MANIFEST_UNKNOWN, BLOB_UNKNOWN.
	Delete(ctx context.Context, req *Request) error
}

// Uploads keeps blobs on their way in. Each upload belongs to the repository
// that it was started in. Errors of all but StartUpload: BLOB_UPLOAD_UNKNOWN.
type Uploads interface {
	// StartUpload begins an upload into req.Repository, and returns its id:
	// 1 to 128 letters, digits, "-" and "_".
	StartUpload(ctx context.Context, req *Request) (id string, err error)
	// UploadSize is how many bytes of the upload req.Upload are there.
	UploadSize(ctx context.Context, req *Request) (int64, error)
	// AppendUpload adds bytes to the upload req.Upload, and returns how many
	// are there, also with an error: what came before Body failed is kept.
	// Errors: [ErrUploadOffset], SIZE_INVALID.
	AppendUpload(ctx context.Context, req *Request, chunk Chunk) (int64, error)
	// FinishUpload makes the upload the blob d of the repository, if its bytes
	// have that digest. If not, the upload is gone. Errors: DIGEST_INVALID.
	FinishUpload(ctx context.Context, req *Request, d digest.Digest) error
	// CancelUpload ends the upload and drops its bytes.
	CancelUpload(ctx context.Context, req *Request) error
}

// Chunk is a part of an upload.
type Chunk struct {
	Offset int64 // of its first byte; negative means wherever the upload ends
	Length int64 // bytes; negative when unknown
	Body   io.Reader
}

// ErrUploadOffset says that a chunk does not begin where the upload ends.
var ErrUploadOffset = errors.New("the chunk does not begin where the upload ends")

// ManifestPush is a manifest to be stored.
type ManifestPush struct {
	MediaType string        // as the client says, without parameters; may be empty
	Digest    digest.Digest // of Body: verified
	Tags      []string      // valid, each once; none when it is pushed by digest alone
	Body      []byte        // the backend's to keep
}

// MaxManifestTags is the most tags that one push of a manifest can set.
const MaxManifestTags = 128

// serveWrite answers what is neither GET nor HEAD.
func (x *exchange) serveWrite() {
	if x.r.ContentLength != 0 {
		// Also for a body that nobody will read: the server reads it off.
		armRead(http.NewResponseController(x.w), x.writeTimeout)
	}
	switch method := x.r.Method; {
	case x.req.Kind == KindUpload && x.req.Upload == "" && method == http.MethodPost:
		x.perform(ActionPush, x.startUpload)
	case x.req.Kind == KindUpload && x.req.Upload != "" && method == http.MethodPatch:
		x.perform(ActionPush, x.appendUpload)
	case x.req.Kind == KindUpload && x.req.Upload != "" && method == http.MethodPut:
		x.perform(ActionPush, x.putUpload)
	case x.req.Kind == KindUpload && x.req.Upload != "" && method == http.MethodDelete:
		x.perform(ActionPush, x.cancelUpload)
	case x.req.Kind == KindManifest && method == http.MethodPut:
		x.perform(ActionPush, x.putManifest)
	case (x.req.Kind == KindManifest || x.req.Kind == KindBlob) && method == http.MethodDelete:
		x.perform(ActionDelete, x.delete)
	default:
		x.methodNotAllowed()
	}
}

func (x *exchange) perform(action Action, do func()) {
	if x.authorize(action) {
		do()
	}
}

// methodNotAllowed answers a method that the endpoint does not have.
func (x *exchange) methodNotAllowed() {
	if x.writer == nil {
		x.header["Allow"] = x.values.allow
		x.fail(Errorf(errcode.ErrorCodeUnsupported,
			"%s is not supported: this registry is read-only here, with GET and HEAD; push to the registry it mirrors", quote(x.r.Method)))
		return
	}
	allow := "GET, HEAD"
	switch {
	case x.req.Kind == KindUpload && x.req.Upload == "":
		allow = "POST"
	case x.req.Kind == KindUpload:
		allow = "GET, PATCH, PUT, DELETE"
	case x.req.Kind == KindManifest:
		allow = "GET, HEAD, PUT, DELETE"
	case x.req.Kind == KindBlob:
		allow = "GET, HEAD, DELETE"
	}
	x.header["Allow"] = []string{allow}
	x.fail(Errorf(errcode.ErrorCodeUnsupported, "%s is not supported here: there are %s", quote(x.r.Method), allow))
}

// delete answers the deletion of a tag, a manifest or a blob.
func (x *exchange) delete() {
	if err := x.writer.Delete(x.r.Context(), &x.req); err != nil {
		x.fail(err)
		return
	}
	x.empty(http.StatusAccepted)
}

// created answers that content is there now, at a path.
func (x *exchange) created(path string, d digest.Digest) {
	x.header["Location"] = []string{path}
	x.header["Docker-Content-Digest"] = []string{string(d)}
	x.empty(http.StatusCreated)
}

// empty answers without a body.
func (x *exchange) empty(status int) {
	x.showID()
	x.header["Cache-Control"] = x.values.noStore
	if status != http.StatusNoContent { // which has no length: RFC 9110, section 8.6
		x.header["Content-Length"] = []string{"0"}
	}
	x.write(status, nil)
}
