package folder

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// maxSorted is how many entries a folder may have to be sorted for a request,
// and listBatch how many of them a Lister is asked for at a time.
const (
	maxSorted = 20000
	listBatch = 5000
)

// List makes a page of a folder in the form that the client wants most: text,
// HTML or JSON. Errors: ErrNotExist, ErrRequest, those of the Lister.
func List(ctx context.Context, l Lister, req *Request) (*Document, error) {
	q, err := parseQuery(req.Query)
	if err != nil {
		return nil, err
	}
	page := &Page{}
	if req.Path != "" {
		page.Path = req.Path + "/"
	}
	var next query
	if q.sort == byName && !q.descending {
		page.Entries, next, err = q.list(ctx, l, req.Path)
	} else {
		page.Entries, next, err = q.sorted(ctx, l, req.Path)
	}
	if err != nil {
		return nil, err
	}
	if page.Entries == nil {
		page.Entries = []Entry{} // in JSON, a list in any case
	}
	if next.last != "" {
		page.Next = "?" + next.String()
	}
	findPointers(page.Entries)
	var d *Document
	switch Preferred(req.Accept, mediaText, mediaHTML, mediaJSON) {
	case mediaJSON:
		d, err = page.json()
	case mediaHTML:
		d = newDocument(page.html(req, &q), mediaHTML+"; charset=utf-8")
		d.Header.Set("Content-Security-Policy", securityPolicy(style))
		d.Header.Set("Vary", "Accept, X-Forwarded-Proto") // it has commands with the root's URL
	default:
		d = newDocument(page.text(), mediaText+"; charset=utf-8")
	}
	if err != nil {
		return nil, err
	}
	if page.Next != "" {
		d.Header.Set("Link", "<"+page.Next+`>; rel="next"`) // RFC 8288
	}
	return d, nil
}

// list is a page in the order that the Lister has. Of the next page's query,
// last is "" when there is none.
func (q query) list(ctx context.Context, l Lister, path string) (entries []Entry, next query, err error) {
	next = q
	for len(entries) < q.limit {
		var more []Entry
		more, next.last, err = l.List(ctx, path, next.last, q.limit-len(entries))
		if err != nil {
			return nil, next, err
		}
		if entries == nil {
			entries = more
		} else {
			entries = append(entries, more...)
		}
		if next.last == "" {
			break
		}
	}
	return entries, next, nil
}

// sorted is a page in another order, for which all of the folder is sorted.
func (q query) sorted(ctx context.Context, l Lister, path string) (entries []Entry, next query, err error) {
	whole := query{limit: listBatch}
	for {
		var more []Entry
		more, whole, err = whole.list(ctx, l, path)
		if err != nil {
			return nil, q, err
		}
		entries = append(entries, more...)
		if len(entries) > maxSorted {
			return nil, q, fmt.Errorf("%w: %s/ has more than %d entries, too many to be sorted by anything but name in ascending order", ErrRequest, path, maxSorted)
		}
		if whole.last == "" {
			break
		}
	}
	last := sortKey{name: q.last, folder: strings.HasSuffix(q.last, "/"), at: q.at}
	keys := make([]sortKey, 0, len(entries)) // which cost less to move than entries
	for i := range entries {
		key := q.sortKey(&entries[i])
		if key.index = i; q.last == "" || q.compare(key, last) > 0 {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, q.compare)
	next = q
	next.last = ""
	if len(keys) > q.limit {
		keys = keys[:q.limit]
		next.last, next.at = keys[q.limit-1].name, keys[q.limit-1].at
	}
	sorted := make([]Entry, len(keys))
	for i, key := range keys {
		sorted[i] = entries[key.index]
	}
	return sorted, next, nil
}

// sortKey is what an entry's place is decided by.
type sortKey struct {
	name   string
	folder bool
	at     int64 // size or time of a file
	index  int   // of the entry
}

func (q query) sortKey(e *Entry) sortKey {
	key := sortKey{name: e.Name, folder: e.Folder()}
	switch {
	case key.folder:
	case q.sort == bySize:
		key.at = e.Size
	case q.sort == byDate:
		key.at = e.Modified.UnixMilli()
	}
	return key
}

// compare is the order that is asked for. What has neither size nor date comes
// first in both directions; what has the same is in the order of names.
func (q query) compare(a, b sortKey) int {
	switch {
	case q.sort == byName && q.descending:
		return CompareNames(b.name, a.name)
	case q.sort == byName:
		return CompareNames(a.name, b.name)
	case a.folder && !b.folder:
		return -1
	case b.folder && !a.folder:
		return 1
	}
	order := cmp.Compare(a.at, b.at)
	if q.descending {
		order = -order
	}
	if order == 0 {
		return CompareNames(a.name, b.name)
	}
	return order
}
