package filestore

import (
	"context"
	"errors"
	"net/http"

	"entrepot/registry"
)

// delete answers DELETE of a file. Its content stays.
func (x *exchange) delete(p Path) error {
	caller, err := x.authorize(registry.ActionDelete, string(p))
	if err != nil {
		return err
	}
	if err := x.names.load(x.r.Context()); err != nil {
		return err
	}
	p = p.clone()
	unlock := x.names.locks.write(p)
	defer unlock()
	ctx := context.WithoutCancel(x.r.Context())
	present, err := x.names.readFile(ctx, p)
	if errors.Is(err, errNoFile) {
		if x.names.isFolder(p) {
			return problemf(http.StatusConflict, codeNameConflict, "%s is a folder: it goes with the last file in it", p)
		}
		return problemf(http.StatusNotFound, codeUnknown, "there is no file %s", p)
	}
	if err != nil {
		return err
	}
	c := conditions{ifMatch: x.r.Header.Values("If-Match"), ifNoneMatch: x.r.Header.Values("If-None-Match")}
	if err := c.check(p, present); err != nil {
		return err
	}
	if err := x.names.remove(ctx, p); err != nil {
		return err
	}
	x.listener.Deleted(Event{
		Path: string(p), Digest: present.Digest, Size: present.Size, ContentType: present.ContentType, Caller: caller,
	})
	x.w.Header().Set("Cache-Control", "no-store")
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}
