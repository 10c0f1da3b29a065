package upstream

import (
	"net/http"
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
	// Path is below /v2/, such as "library/nginx/manifests/latest".
	Path string
	// Query is sent as it is, without "?".
	Query string
	// Header is added to the request: Accept, If-None-Match. Authorization,
	// Range and Accept-Encoding are not the caller's to set.
	Header http.Header

	// Offset is the first byte wanted.
	Offset int64
	// Size is that of the whole content in bytes, 0 or less when unknown. An
	// answer to a request with an Offset that says otherwise is Invalid.
	Size int64
	// Length, when positive, is how many bytes from Offset are wanted.
	Length int64

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
