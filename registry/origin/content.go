package origin

import (
	"encoding/json"
	"strings"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The manifests whose meaning is known. All others are kept as they are.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// content is what a manifest says, as far as a registry has to know.
type content struct {
	mediaType    string
	artifactType string
	annotations  map[string]string
	subject      digest.Digest   // "" for none
	blobs        []digest.Digest // that have to be there
	elsewhere    []digest.Digest // blobs that may be fetched from elsewhere
	manifests    []digest.Digest // or blobs, of an index
	strict       bool            // its media type is known: what is missing is an error
}

// document is a manifest as JSON, of any kind.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Blobs         []ocispec.Descriptor `json:"blobs"` // of the former artifact manifests
	Subject       *ocispec.Descriptor  `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
	FSLayers      []struct {           // of Docker's first schema
		BlobSum digest.Digest `json:"blobSum"`
	} `json:"fsLayers"`
}

// parseManifest reads a manifest that is pushed with a media type, which may be
// empty where the manifest itself has one. Errors: MANIFEST_INVALID.
func parseManifest(mediaType string, body []byte) (*content, error) {
	var doc document
	jsonErr := json.Unmarshal(body, &doc)
	if mediaType == "" && jsonErr == nil {
		mediaType = doc.MediaType
	}
	if !validMediaType(mediaType) {
		return nil, invalid("its media type is %q: send it as Content-Type, such as %s", mediaType, ocispec.MediaTypeImageManifest)
	}
	// Clients that go by one of the two must not read another manifest than
	// those that go by the other (CVE-2021-41190).
	if jsonErr == nil && doc.MediaType != "" && doc.MediaType != mediaType {
		return nil, invalid("it says that it is %.100q, and is sent as %.100q", doc.MediaType, mediaType)
	}
	c := &content{mediaType: mediaType}
	isImage := mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
	isIndex := mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerManifestList
	if isImage || isIndex {
		c.strict = true
		if jsonErr != nil {
			return nil, invalid("it is not JSON of its kind: %w", jsonErr)
		}
		if err := doc.check(isIndex); err != nil {
			return nil, err
		}
	}
	if jsonErr != nil {
		return c, nil //nolint:nilerr // of a kind that is not ours to read
	}
	c.read(&doc)
	if isImage && c.artifactType == "" {
		c.artifactType = doc.Config.MediaType
	}
	return c, nil
}

// check says whether a manifest of a known kind is well-formed.
func (doc *document) check(isIndex bool) error {
	switch {
	case doc.SchemaVersion != 2:
		return invalid("its schemaVersion is %d, not 2", doc.SchemaVersion)
	case isIndex && (doc.Config != nil || doc.Layers != nil):
		return invalid("an index has no config and no layers (CVE-2021-41190)")
	case !isIndex && doc.Manifests != nil:
		return invalid("an image manifest has no manifests (CVE-2021-41190)")
	case !isIndex && doc.Config == nil:
		return invalid("an image manifest has a config, this one has none")
	}
	for _, d := range doc.descriptors() {
		if err := d.Digest.Validate(); err != nil {
			return invalid("it names content by the digest %.150q: %w", d.Digest, err)
		}
		if d.Size < 0 {
			return invalid("it gives %s a size of %d bytes", d.Digest, d.Size)
		}
	}
	return nil
}

// descriptors is all that a manifest of a known kind names.
func (doc *document) descriptors() []ocispec.Descriptor {
	all := append(append([]ocispec.Descriptor{}, doc.Layers...), doc.Manifests...)
	if doc.Config != nil {
		all = append(all, *doc.Config)
	}
	if doc.Subject != nil {
		all = append(all, *doc.Subject)
	}
	return all
}

// read takes over what a manifest names. Digests that are none are left out:
// those of a known kind were checked.
func (c *content) read(doc *document) {
	c.artifactType, c.annotations = doc.ArtifactType, doc.Annotations
	if doc.Subject != nil && doc.Subject.Digest.Validate() == nil {
		c.subject = doc.Subject.Digest
	}
	add := func(list *[]digest.Digest, d digest.Digest) {
		if d.Validate() == nil {
			*list = append(*list, d)
		}
	}
	if doc.Config != nil {
		add(&c.blobs, doc.Config.Digest)
	}
	for _, d := range append(append([]ocispec.Descriptor{}, doc.Layers...), doc.Blobs...) {
		if len(d.URLs) > 0 || nondistributable(d.MediaType) {
			add(&c.elsewhere, d.Digest)
		} else {
			add(&c.blobs, d.Digest)
		}
	}
	for _, layer := range doc.FSLayers {
		add(&c.blobs, layer.BlobSum)
	}
	for _, d := range doc.Manifests {
		add(&c.manifests, d.Digest)
	}
}

// nondistributable says whether layers of a media type may be kept from
// registries (image-spec v1.0, "Non-Distributable Layers"; Docker's "foreign").
func nondistributable(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// validMediaType says whether s is a media type without parameters (RFC 6838,
// section 4.2; wildcards are none).
func validMediaType(s string) bool {
	kind, subtype, ok := strings.Cut(s, "/")
	return ok && len(s) <= 255 && validTypeName(kind) && validTypeName(subtype)
}

func validTypeName(s string) bool {
	if s == "" || len(s) > 127 {
		return false
	}
	for i, c := range []byte(s) {
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || strings.IndexByte("!#$&-^_.+", c) < 0) {
			return false
		}
	}
	return true
}

func invalid(format string, args ...any) error {
	return registry.Errorf(errcode.ErrorCodeManifestInvalid, "the manifest is invalid: "+format, args...)
}
