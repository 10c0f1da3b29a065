package filestore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"entrepot/registry/folder"
)

// list answers GET and HEAD of a folder.
func (x *exchange) list(p Path) error {
	d, err := folder.List(x.r.Context(), x.names, x.folderRequest(p))
	if errors.Is(err, folder.ErrNotExist) {
		if _, err := x.names.file(x.r.Context(), p); err == nil {
			return problemf(http.StatusNotFound, codeUnknown, "%s is a file: want its name without a slash at the end", p)
		}
		return problemf(http.StatusNotFound, codeUnknown, "there is no folder %s/", p)
	}
	return x.serveDocument(d, err)
}

// sums answers GET and HEAD of the checksums of a folder, where nobody put a
// file of that name.
func (x *exchange) sums(p Path) error {
	d, err := folder.Sums(x.r.Context(), x.names, x.folderRequest(p))
	if errors.Is(err, folder.ErrNotExist) {
		return problemf(http.StatusNotFound, codeUnknown, "%w", err)
	}
	return x.serveDocument(d, err)
}

func (x *exchange) folderRequest(p Path) *folder.Request {
	return &folder.Request{
		Root: folder.RootURL(x.r, x.prefix+"/"), Path: string(p), Query: x.r.URL.RawQuery, Accept: x.r.Header.Values("Accept"),
	}
}

// serveDocument sends what was made of a folder, or says why it was not.
func (x *exchange) serveDocument(d *folder.Document, err error) error {
	if errors.Is(err, folder.ErrRequest) {
		return problemf(http.StatusBadRequest, codeRequestInvalid, "%w", err)
	}
	if err != nil {
		return fmt.Errorf("listing: %w", err)
	}
	d.ServeHTTP(x.w, x.r)
	return nil
}

// readAtOnce is how many records one listing reads at a time.
const readAtOnce = 16

// List implements [folder.Lister].
func (n *names) List(ctx context.Context, path, after string, limit int) (entries []folder.Entry, next string, err error) {
	if err := n.load(ctx); err != nil {
		return nil, "", err
	}
	items, next, ok := n.page(path, after, limit)
	if !ok {
		return nil, "", fmt.Errorf("%s/ %w", path, folder.ErrNotExist)
	}
	if err := n.readFiles(ctx, Path(path), items); err != nil {
		return nil, "", err
	}
	entries = make([]folder.Entry, 0, len(items))
	for i := range items {
		item := &items[i]
		switch f := item.Value; {
		case f != nil:
			entries = append(entries, folder.Entry{
				Name: item.Name, SHA256: f.Digest.Encoded(), Size: f.Size, Modified: f.Modified.UTC(),
				ContentType: contentType(f, Path(item.Name)),
			})
		case strings.HasSuffix(item.Name, "/"):
			entries = append(entries, folder.Entry{Name: item.Name})
		default: // it was deleted meanwhile
		}
	}
	return entries, next, nil
}

// page is a page of the tree.
func (n *names) page(path, after string, limit int) (items []folder.Item[*file], next string, ok bool) {
	n.mu.Lock() // the tree may sort
	defer n.mu.Unlock()
	return n.root.Page(path, after, limit)
}

// readFiles reads what the files among the items of a folder are that were not
// read before. Those that are gone stay nil.
func (n *names) readFiles(ctx context.Context, p Path, items []folder.Item[*file]) error {
	var reading sync.WaitGroup
	slots := make(chan struct{}, readAtOnce)
	errs := make([]error, len(items))
	for i := range items {
		if items[i].Value != nil || strings.HasSuffix(items[i].Name, "/") {
			continue
		}
		slots <- struct{}{}
		reading.Go(func() {
			defer func() { <-slots }()
			items[i].Value, errs[i] = n.file(ctx, p.child(items[i].Name))
		})
	}
	reading.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, errNoFile) {
			return err
		}
	}
	return nil
}
