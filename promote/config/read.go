package config

import (
	"context"
	"errors"
)

// Options say how strictly to read. The zero value sets bad entries aside.
type Options struct {
	// Strict turns every Problem that is not a Notice into an error of Read.
	Strict bool
	// MaxFileSize is the largest file to read, in bytes; 0 means 32 MiB.
	MaxFileSize int64
}

// ErrProblems is the error of a strict Read of a tree that has problems.
var ErrProblems = errors.New("the configuration has problems")

// Read reads all roots. Each is the folder of a thin tree of images (it holds
// manifests/ and images/) or of files (filestores/ and manifests/), or a plain
// file. Errors: a root that is neither, or cannot be read; with
// Options.Strict, ErrProblems, and then the Tree is returned as well.
func Read(roots []string, o Options) (*Tree, error) {
	return nil, errors.ErrUnsupported
}

// Revision names what the roots say, for the ledger: the git commit that is
// checked out when the roots are all of one commit and nothing in them is
// changed, added or ignored; otherwise "sha256:" and the hash of their files.
func Revision(ctx context.Context, roots []string) (string, error) {
	return "", errors.ErrUnsupported
}

// Locate finds the project whose source or one of whose destinations holds
// name, and what name is below it: of "gcr.io/k8s-staging-coredns/coredns" the
// project and "coredns". The longest match wins. Errors: no project holds it,
// or several do equally.
func (t *Tree) Locate(name string) (p *Project, below string, err error) {
	return nil, "", errors.ErrUnsupported
}
