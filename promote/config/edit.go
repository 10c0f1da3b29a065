package config

import (
	"errors"

	"github.com/opencontainers/go-digest"
)

// AddImage lists an image's digest with its tags (none: by digest alone) in the
// project's list, sorted in, and leaves everything else in the file as it is.
// file is the list's path; changed is false when it was listed already.
// Errors: the tag is listed with another digest and is not mutable.
func (p *Project) AddImage(image string, d digest.Digest, tags ...string) (file string, changed bool, err error) {
	return "", false, errors.ErrUnsupported
}

// AddFile lists a file in the list of the project that holds its neighbours,
// or in a new one named for its first folder. Results are those of AddImage.
func (p *Project) AddFile(name string, sum digest.Digest) (file string, changed bool, err error) {
	return "", false, errors.ErrUnsupported
}

// InsertImage is AddImage on the text of a list: of images.yaml, or of a plain
// file. The result is list itself when nothing is to change.
func InsertImage(list []byte, image string, d digest.Digest, tags ...string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// InsertFile is AddFile on the text of a list.
func InsertFile(list []byte, name string, sum digest.Digest) ([]byte, error) {
	return nil, errors.ErrUnsupported
}
