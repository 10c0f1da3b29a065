package registry

import (
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest is the answer to a manifest request.
type Manifest struct {
	*ManifestHead
	Body []byte // exactly as stored; nil is allowed when the request is a HEAD
}

// ManifestHead describes a manifest and carries its response headers ready
// made, so that answering from memory formats nothing. It is immutable and may
// be shared.
type ManifestHead struct {
	ocispec.Descriptor // MediaType, Digest, Size

	contentType, contentLength, contentDigest, etag []string
}

// NewManifestHead prepares the head of a manifest of size bytes. mediaType is
// sent as Content-Type, whatever it is.
func NewManifestHead(mediaType string, d digest.Digest, size int64) *ManifestHead {
	return &ManifestHead{
		Descriptor:    ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size},
		contentType:   []string{mediaType},
		contentLength: []string{strconv.FormatInt(size, 10)},
		contentDigest: []string{string(d)},
		etag:          []string{`"` + string(d) + `"`},
	}
}
