package transfer

import (
	"encoding/json"
	"mime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxManifest bounds a manifest, in bytes, as registries do.
	maxManifest = 4 << 20

	dockerManifestType = "application/vnd.docker.distribution.manifest.v2+json"
	dockerListType     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerForeignType  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	ociForeignPrefix   = "application/vnd.oci.image.layer.nondistributable."
	schema1Prefix      = "application/vnd.docker.distribution.manifest.v1+"
	// artifactType was an OCI manifest type in release candidates of v1.1.
	artifactManifestType = "application/vnd.oci.artifact.manifest.v1+json"

	// manifestAccept lists every manifest type in use: a registry answers 404,
	// or converts, when a manifest's own type is not listed.
	manifestAccept = ocispec.MediaTypeImageIndex + ", " + ocispec.MediaTypeImageManifest + ", " +
		dockerListType + ", " + dockerManifestType + ", " + artifactManifestType + ", */*;q=0.1"
)

// manifest is a manifest as its registry sent it, and what it names.
type manifest struct {
	ocispec.Descriptor // with artifact type and annotations, as referrers are listed

	content  []byte
	children []ocispec.Descriptor // manifests, or what may be one
	blobs    []ocispec.Descriptor // those that registries hold
	subject  *ocispec.Descriptor
}

// manifestJSON is what manifests and indexes of all kinds have in common.
type manifestJSON struct {
	MediaType    string               `json:"mediaType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Blobs        []ocispec.Descriptor `json:"blobs"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	FSLayers     json.RawMessage      `json:"fsLayers"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	ArtifactType string               `json:"artifactType"`
	Annotations  map[string]string    `json:"annotations"`
}

// parseManifest reads a manifest whose digest was verified. contentType is what
// the registry calls it. A manifest of a type that is not known names nothing.
// Errors: ErrUnsupported.
func parseManifest(d digest.Digest, contentType string, content []byte) (*manifest, error) {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		mediaType = ""
	}
	var told manifestJSON
	if err := json.Unmarshal(content, &told); err != nil {
		if isManifestType(mediaType) {
			return nil, failf(ErrUnsupported, "manifest %s is no JSON: %w", d, err)
		}
		told = manifestJSON{}
	}
	switch mediaType {
	case "", "application/json", "application/octet-stream", "text/plain": // of a server that knows no manifests
		mediaType = told.kind()
	}
	m := &manifest{content: content, Descriptor: ocispec.Descriptor{
		MediaType: mediaType, Digest: d, Size: int64(len(content)),
		ArtifactType: told.ArtifactType, Annotations: told.Annotations,
	}}
	switch {
	case strings.HasPrefix(mediaType, schema1Prefix), told.FSLayers != nil:
		return nil, failf(ErrUnsupported, "manifest %s is of Docker's schema 1, which has no digests of what it needs: build the image anew", d)
	case mediaType == "":
		return nil, failf(ErrUnsupported, "manifest %s has no media type", d)
	case !isManifestType(mediaType) && !isManifestType(told.MediaType):
		return m, nil
	case told.MediaType != "" && told.MediaType != mediaType,
		isIndexType(mediaType) && (told.Config != nil || told.Layers != nil),
		!isIndexType(mediaType) && told.Manifests != nil:
		// CVE-2021-41190: one document must not be two things.
		return nil, failf(ErrUnsupported, "manifest %s can be read as another type than %s", d, mediaType)
	}
	m.take(&told)
	return m, m.check()
}

// kind is the media type that a document claims, or looks like.
func (t *manifestJSON) kind() string {
	switch {
	case t.MediaType != "":
		return t.MediaType
	case t.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case t.Config != nil && t.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return ""
}

func (m *manifest) take(told *manifestJSON) {
	m.children, m.subject = told.Manifests, told.Subject
	if told.Config != nil {
		m.blobs = append(m.blobs, *told.Config)
		if m.ArtifactType == "" {
			m.ArtifactType = told.Config.MediaType
		}
	}
	for _, layer := range append(told.Layers, told.Blobs...) {
		if !isForeign(layer) {
			m.blobs = append(m.blobs, layer)
		}
	}
}

// check finds descriptors that cannot be asked for.
func (m *manifest) check() error {
	for _, list := range [][]ocispec.Descriptor{m.children, m.blobs} {
		for _, below := range list {
			if err := below.Digest.Validate(); err != nil {
				return failf(ErrUnsupported, "manifest %s names %.100q: %w", m.Digest, below.Digest, err)
			}
			if below.Size < 0 {
				return failf(ErrUnsupported, "manifest %s says that %s has %d bytes", m.Digest, below.Digest, below.Size)
			}
		}
	}
	return nil
}

// isForeign says whether a layer is one that registries do not hold, but say
// where else it is. That place is never asked (CVE-2020-15157).
func isForeign(d ocispec.Descriptor) bool {
	return len(d.URLs) > 0 && (d.MediaType == dockerForeignType || strings.HasPrefix(d.MediaType, ociForeignPrefix))
}

func isIndexType(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerListType
}

func isManifestType(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, dockerManifestType, artifactManifestType:
		return true
	}
	return isIndexType(mediaType)
}
