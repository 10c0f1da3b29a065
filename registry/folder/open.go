package folder

import (
	"context"
	"errors"
	"path"
	"strings"
)

// Open is the page or the checksums that a path asks for: "a/b/", or
// "a/b/SHA256SUMS" unless has says that there is such a file; req.Path is the
// decoded path. The document is nil for every other path, and for a folder that
// does not exist. Errors: ErrRequest.
func Open(ctx context.Context, l Lister, has func(path string) bool, req *Request) (*Document, error) {
	var d *Document
	var err error
	of := *req
	switch name := req.Path; {
	case name == "" || strings.HasSuffix(name, "/"):
		of.Path = strings.TrimSuffix(name, "/")
		d, err = List(ctx, l, &of)
	case path.Base(name) == SumsName && !has(name):
		of.Path = strings.TrimSuffix(strings.TrimSuffix(name, SumsName), "/")
		d, err = Sums(ctx, l, &of)
	}
	if errors.Is(err, ErrNotExist) {
		return nil, nil //nolint:nilnil // whoever asks goes on
	}
	return d, err
}
