package transfer

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Copy is an image to copy.
type Copy struct {
	From, To Repository
	// Digest is the image's root: an index or a manifest.
	Digest digest.Digest
	// Tags are set at the destination when all is there. They may be none.
	Tags []string
	// Trusted says that an image whose root is at the destination is complete
	// there, attachments included, because promotion put it there before. Else
	// all of it is looked for, blob by blob.
	Trusted bool
}

// Copied is what [Client.Copy] did.
type Copied struct {
	// Root describes the image, as the ledger records it.
	Root ocispec.Descriptor
	// Present says that the root was at the destination before.
	Present bool
	// Attached are the manifests that belong to the image without being below
	// it: its referrers and theirs, and what cosign keeps at tags.
	Attached []Attachment
	// Lost are referrers that the source lists and does not have. They do not
	// stop an image: such lists go stale when content is deleted.
	Lost []digest.Digest
	// Kept are cosign's tags that were left as they are at the destination,
	// because neither side has all signatures of the other.
	Kept []string
}

// Attachment is a manifest about another manifest.
type Attachment struct {
	Subject digest.Digest
	Tag     string // cosign's, such as "sha256-….sig"; empty for a referrer
	ocispec.Descriptor
}

// Image is what belongs to an image by digest.
type Image struct {
	Root ocispec.Descriptor
	// Manifests are all manifests, the root included; Blobs all configs and
	// layers but those that registries are not to hold. Each digest is once in
	// it.
	Manifests, Blobs []ocispec.Descriptor
	// Size is the bytes of all of them.
	Size int64
}
