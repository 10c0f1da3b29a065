// Package bundle carries images and files to where there is no network: in a tar that is
// an OCI image layout, with the whole ledger up to a signed checkpoint.
//
// A bundle has
//
//	oci-layout             as the OCI image layout has it
//	blobs/sha256/<hex>     manifests, configs, layers and files, each once
//	ledger/checkpoint      and ledger/tile/…: the ledger as C2SP's tlog-tiles has it
//	entrepot.json          what the names are: see [Contents]
//	index.json             the images, by their full names
//
// so that skopeo, podman and others read the images of it as an oci-archive. It may be
// split into parts, which are the tar's bytes and nothing else; a list of SHA-256 sums
// beside it, as sha256sum writes them, says that it is complete.
//
// What it proves: the ledger's key signed the checkpoint, the entries come to its hash,
// and each name is what the newest entry about it, up to that checkpoint, says. A proof of
// inclusion alone would not show that there is no newer entry, so all of them are in it.
// What it cannot prove is that there is no newer checkpoint: whoever brings bundles can
// bring an old one. An importer that has seen a newer one refuses it. Nor can it say what
// the ledger calls an upstream, since nothing signs entrepot.json: that the importer knows.
//
// A [Writer] makes a bundle, and goes on with one that was interrupted. A [Reader] checks
// and serves one.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Contents say what a bundle is for.
type Contents struct {
	Version int `json:"version"`
	// Created is when the newest entry of the ledger was written; zero without one. The same
	// names and ledger come to the same bytes, whenever and however often they are exported.
	Created time.Time `json:"created,omitzero"`
	// Upstreams are what the names are below.
	Upstreams []Upstream `json:"upstreams"`
	Images    []Image    `json:"images"`
	Files     []File     `json:"files"`
}

// contentsVersion is the one that is written, and read.
const contentsVersion = 1

// Upstream is a registry or a file server.
type Upstream struct {
	Name string      `json:"name"` // by which clients know it
	Kind ledger.Kind `json:"kind"`
}

// Image is an image under one of its names.
type Image struct {
	Upstream   string             `json:"upstream"`
	Repository string             `json:"repository"`
	Tag        string             `json:"tag,omitempty"` // none of an image that is known by its digest alone
	Root       ocispec.Descriptor `json:"root"`
	Attached   []Attached         `json:"attached,omitempty"`
}

// Attached is what is about a manifest of an image: a referrer, or what cosign keeps at a
// tag.
type Attached struct {
	Subject    digest.Digest      `json:"subject"`
	Tag        string             `json:"tag,omitempty"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
}

// File is a file under one of its names.
type File struct {
	Upstream string        `json:"upstream"`
	Path     string        `json:"path"`
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"`
}

// Ref is an image's name below its upstream, as ledgers write it.
func (i *Image) Ref() string {
	if i.Tag == "" {
		return i.Repository + "@" + i.Root.Digest.String()
	}
	return i.Repository + ":" + i.Tag
}

// The paths in a bundle.
const (
	layoutPath   = ocispec.ImageLayoutFile
	indexPath    = ocispec.ImageIndexFile
	contentsPath = "entrepot.json"
	ledgerPrefix = "ledger/"
	blobPrefix   = "blobs/sha256/"
)

// What callers decide on.
var (
	// ErrCorrupt is about a bundle that is not what it was when it was written.
	ErrCorrupt = errors.New("the bundle is damaged")
	// ErrIncomplete is about a bundle, or one of its parts, that is not all there.
	ErrIncomplete = errors.New("the bundle is not complete")
	// ErrUnproven is about a name that is not what the ledger says.
	ErrUnproven = errors.New("the ledger does not say so")
)

// errUnknown is about a name that the ledger never had.
var errUnknown = fmt.Errorf("%w: it has no such name", ErrUnproven)

// sumsSuffix ends the name of the list of sums.
const sumsSuffix = ".sha256sums"

func blobPath(d digest.Digest) string { return blobPrefix + d.Encoded() }

// digestOfPath is the reverse of blobPath.
func digestOfPath(path string) (digest.Digest, bool) {
	hex, ok := strings.CutPrefix(path, blobPrefix)
	d := digest.NewDigestFromEncoded(digest.SHA256, hex)
	return d, ok && d.Validate() == nil
}

// Check holds every name against a ledger, whose state has to be of the bundle. called are
// the names that the ledger has for an upstream; they come from the importer, since whoever
// carries a bundle could have it prove one upstream's names by another's. The ledger knows
// nothing of an upstream without any; with unknown, such names pass. Errors: ErrUnproven.
func (c *Contents) Check(s *ledger.State, called func(kind ledger.Kind, upstream string) []string, unknown bool) error {
	var wrong []error
	check := func(kind ledger.Kind, upstream, path string, d digest.Digest) {
		err := proven(s, called(kind, upstream), kind, path, d)
		if err != nil && !(unknown && errors.Is(err, errUnknown)) {
			wrong = append(wrong, fmt.Errorf("%s/%s: %w", upstream, path, err))
		}
	}
	for i := range c.Images {
		check(ledger.Image, c.Images[i].Upstream, c.Images[i].Ref(), c.Images[i].Root.Digest)
	}
	for i := range c.Files {
		check(ledger.File, c.Files[i].Upstream, c.Files[i].Path, c.Files[i].Digest)
	}
	const shown = 10
	if more := len(wrong) - shown; more > 0 {
		wrong = append(wrong[:shown], fmt.Errorf("and %d more names: %w", more, ErrUnproven))
	}
	return errors.Join(wrong...)
}

// proven says whether a name is what the newest entry about it says.
func proven(s *ledger.State, names []string, kind ledger.Kind, path string, d digest.Digest) error {
	for _, name := range names {
		e, known := s.LookupFull(name + "/" + path)
		switch {
		case !known || e.Kind != kind:
			continue
		case !e.Exists():
			return fmt.Errorf("%w: entry %d deleted it", ErrUnproven, e.Sequence)
		case e.Digest != d:
			return fmt.Errorf("%w: it is %s in the bundle, and %s since entry %d", ErrUnproven, d, e.Digest, e.Sequence)
		}
		if r, revoked := s.Revoked(d); revoked {
			return fmt.Errorf("%w: entry %d revoked %s", ErrUnproven, r.Sequence, d)
		}
		return nil
	}
	return errUnknown
}

func parseContents(b []byte) (*Contents, error) {
	c := new(Contents)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, contentsPath, err)
	}
	if c.Version != contentsVersion {
		return nil, fmt.Errorf("%s is of version %d; this program reads version %d", contentsPath, c.Version, contentsVersion)
	}
	for i := range c.Images {
		for _, a := range c.Images[i].Attached {
			if !a.ofItsSubject() {
				return nil, fmt.Errorf("%w: %s has %s at the tag %q, which is none for what is about %s", ErrCorrupt, c.Images[i].Ref(), a.Descriptor.Digest, a.Tag, a.Subject)
			}
		}
	}
	return c, nil
}

// ofItsSubject says whether a tag, if there is one, is for what is about the subject:
// sha256-HEX, or that with a suffix. No ledger speaks of these, so that any other tag
// would be a name that nothing proves.
func (a *Attached) ofItsSubject() bool {
	rest, ok := strings.CutPrefix(a.Tag, strings.Replace(a.Subject.String(), ":", "-", 1))
	return a.Tag == "" || ok && (rest == "" || rest[0] == '.')
}

// Has says whether there are names below an upstream.
func (c *Contents) Has(up Upstream) bool {
	if up.Kind == ledger.Image {
		return slices.ContainsFunc(c.Images, func(i Image) bool { return i.Upstream == up.Name })
	}
	return slices.ContainsFunc(c.Files, func(f File) bool { return f.Upstream == up.Name })
}
