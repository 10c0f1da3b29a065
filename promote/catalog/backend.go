package catalog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"entrepot/registry"
	"entrepot/registry/folder"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Backend is a [registry.FileBackend] that shows folders of promoted files, and
// leaves all else to the one that it is made of.
type Backend struct {
	files    registry.FileBackend
	catalogs map[string]*Catalog
	fallback *Catalog
}

// NewBackend makes a backend with the catalogs of upstreams, by their names. Those
// without one have a nil catalog: their names count, too, for which upstream a
// request means. fallback is the name of the default, which may be "".
func NewBackend(files registry.FileBackend, catalogs map[string]*Catalog, fallback string) *Backend {
	b := &Backend{files: files, catalogs: map[string]*Catalog{}, fallback: catalogs[fallback]}
	for name, c := range catalogs {
		if c == nil {
			c = new(Catalog)
		}
		b.catalogs[name] = c
	}
	return b
}

// File implements [registry.FileBackend].
func (b *Backend) File(ctx context.Context, req *registry.FileRequest) (registry.File, registry.CacheStatus, error) {
	c, path := registry.RouteFile(req, b.catalogs, b.fallback)
	name, err := url.PathUnescape(path)
	if c == nil || c.newest == nil || err != nil {
		return b.files.File(ctx, req)
	}
	d, err := folder.Open(ctx, c, c.Has, &folder.Request{
		Root: req.Base() + "/" + req.Path[:len(req.Path)-len(path)], Path: name, Query: req.Query, Accept: req.Accept(),
	})
	switch {
	case errors.Is(err, folder.ErrRequest):
		e := registry.Errorf(errcode.ErrorCodeUnsupported, "%w", err)
		e.Status = http.StatusBadRequest
		return registry.File{}, registry.CacheStatus{Outcome: registry.OutcomeError}, e
	case err != nil:
		return registry.File{}, registry.CacheStatus{Outcome: registry.OutcomeError}, err
	case d == nil:
		return b.files.File(ctx, req)
	}
	f := registry.File{Size: int64(len(d.Body)), ETag: d.ETag(), Header: d.Header}
	if !req.Head {
		f.Content = body(d.Body)
	}
	return f, registry.CacheStatus{Outcome: registry.OutcomeHit}, nil
}

// body is content that is in memory.
type body []byte

// WriteRange implements [registry.Content].
func (b body) WriteRange(_ context.Context, w io.Writer, offset, length int64) (int64, error) {
	if length < 0 {
		length = int64(len(b)) - offset
	}
	return io.Copy(w, io.NewSectionReader(bytes.NewReader(b), offset, length))
}

// Ready says that nothing has to be waited for.
func (b body) Ready(int64, int64) bool { return true }

// Close implements [registry.Content].
func (b body) Close() error { return nil }
