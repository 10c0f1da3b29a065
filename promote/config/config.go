// Package config reads the reviewed configuration of promotion: which images
// and files of which staging registry or bucket are to stand under which names
// in production.
//
// It reads the formats that the Kubernetes project has in use, thin trees and
// plain files of images and of files, together with a few optional keys
// (docs/PROMOTION.md). It needs no network. Whatever is wrong with a tree is a
// [Problem] with file and line, and everything that is wrong is told in one
// run: a bad entry is set aside and named, the others stand. What [Read]
// returns is therefore valid throughout, and nobody parses or checks it again.
//
// The package also writes the formats: [InsertImage] and [InsertFile] edit a
// list as a person would, [FormatPlain] and [WriteThin] write whole
// configurations.
package config

import (
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Kind tells images from files.
type Kind string

// The kinds of projects.
const (
	Images Kind = "images"
	Files  Kind = "files"
)

// Tree is what all roots of one run say together.
type Tree struct {
	// Projects are sorted by kind, name and file.
	Projects []*Project
	// Problems are sorted by file, line and message.
	Problems []Problem
}

// Position is a place in a configuration file.
type Position struct {
	File string `json:"file"`           // path as reached from the root that was given
	Line int    `json:"line,omitempty"` // from 1; 0 when it is about the file or folder as a whole
}

// Problem is one thing that is wrong in the configuration.
type Problem struct {
	Position
	// Project is whose entry it is about, if any one's.
	Project string `json:"project,omitempty"`
	// Message says what is wrong, what would be right, and what was set aside.
	Message string `json:"message"`
	// Notice marks what is worth tidying but changes nothing: nothing was set
	// aside, and Options.Strict lets it pass.
	Notice bool `json:"notice,omitempty"`
}

// String is "file:line: message", as compilers print it.
func (p Problem) String() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.File, p.Message)
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
}

// Project is one project's promotion: everything in its lists goes from its
// source to all of its destinations.
type Project struct {
	// Name is the name of the folder ("k8s-staging-coredns"), or of a plain
	// file without its extension.
	Name string
	Kind Kind
	// File is the manifest that names the registries or file stores.
	File string
	// Lists are the files that list images or files, sorted: for a plain file
	// itself.
	Lists []string

	// Source is what promotion reads: "gcr.io/k8s-staging-coredns", or a URL
	// such as "gs://bucket/path". No slash ends it.
	Source string
	// Destinations are what promotion writes, in the order of the file:
	// "registry.k8s.io/coredns", or URLs such as "s3://bucket/prefix". No slash
	// ends them.
	Destinations []string

	// Images are sorted by name, each name once. Only of Kind Images.
	Images []Image
	// Files are sorted by name, each name once. Only of Kind Files.
	Files []File

	// Prune says that what leaves the configuration is to be deleted. It is
	// false, whatever the file says, while anything of the project is set
	// aside: a mistake must not look like a removal.
	Prune bool
	// MutableTags are patterns of [path.Match] for tags, and for files' names,
	// that may move to another digest.
	MutableTags []string

	Removed []Removal
	Revoked []Revocation
}

// Image is one repository below the project's source and destinations.
type Image struct {
	Position // of its first entry in the list
	// Name is relative to source and destinations: "coredns", "sub/image".
	Name string
	// Entries are in the order of the file, each digest once.
	Entries []Entry
}

// Entry is one manifest and its tags.
type Entry struct {
	Position
	Digest digest.Digest // sha256 or sha512, valid
	// Tags are in the order of the file, each once. Without tags the manifest
	// is promoted by digest alone.
	Tags []string
}

// File is one file below the project's source and destinations.
type File struct {
	Position
	Name   string        // "v1.36.0/bin/linux/amd64/kubectl": clean, relative
	SHA256 digest.Digest // "sha256:…"
}

// Removal is a name that is to go, whether or not the project prunes. A
// Removal of an image has Tag, Digest or neither; of neither, all of the
// image's names are to go.
type Removal struct {
	Position
	Name   string // of the image or file, as in the list
	Tag    string
	Digest digest.Digest
	Reason string // never empty
}

// String is the removal as the list writes it: "coredns:v1.9.3",
// "coredns@sha256:…", "coredns", or the name of a file.
func (r Removal) String() string {
	switch {
	case r.Tag != "":
		return r.Name + ":" + r.Tag
	case r.Digest != "":
		return r.Name + "@" + string(r.Digest)
	}
	return r.Name
}

// Revocation is content that no cache may serve any more, under any name.
type Revocation struct {
	Position
	Digest digest.Digest
	Reason string // never empty
}
