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
	if q.last != "" {
		last := sortKey{q.last, q.at}
		entries = slices.DeleteFunc(entries, func(e Entry) bool { return q.compare(sortKey{e.Name, q.key(&e)}, last) <= 0 })
	}
	slices.SortFunc(entries, func(a, b Entry) int { return q.compare(sortKey{a.Name, q.key(&a)}, sortKey{b.Name, q.key(&b)}) })
	if len(entries) > q.limit {
		entries = entries[:q.limit]
		return entries, q.after(&entries[q.limit-1]), nil
	}
	q.last = ""
	return entries, q, nil
}

// sortKey is what an entry's place is decided by.
type sortKey struct {
	name string
	at   int64 // size or time
}

// key is what an entry is sorted by besides its name.
func (q query) key(e *Entry) int64 {
	switch {
	case e.Folder():
		return 0
	case q.sort == bySize:
		return e.Size
	case q.sort == byDate:
		return e.Modified.UnixMilli()
	}
	return 0
}

// compare is the order that is asked for. What has neither size nor date comes
// first in both directions; what has the same is in the order of names.
func (q query) compare(a, b sortKey) int {
	if q.sort == byName {
		if q.descending {
			a, b = b, a
		}
		return CompareNames(a.name, b.name)
	}
	folderA, folderB := strings.HasSuffix(a.name, "/"), strings.HasSuffix(b.name, "/")
	if folderA != folderB {
		if folderA {
			return -1
		}
		return 1
	}
	order := cmp.Compare(a.at, b.at)
	if q.descending {
		order = -order
	}
	return cmp.Or(order, CompareNames(a.name, b.name))
}
