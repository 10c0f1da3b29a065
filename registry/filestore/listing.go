package filestore

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Bounds of a page of a listing, in entries.
const (
	defaultPage = 1000
	maxPage     = 10000
)

// Listing is a page of a folder's listing, as JSON.
type Listing struct {
	// Path is the folder's, with a slash at its end; "" for the root.
	Path string `json:"path"`
	// Entries are in the order of the bytes of their names.
	Entries []ListingEntry `json:"entries"`
	// Next is the URL of the next page, relative to this one; "" at the end.
	Next string `json:"next,omitempty"`
}

// ListingEntry is a file or a folder.
type ListingEntry struct {
	// Name is the last element of its path; a folder's ends in a slash.
	Name string `json:"name"`
	// SHA256 is a file's, in hexadecimal. The rest is of files only.
	SHA256      string    `json:"sha256,omitempty"`
	Size        int64     `json:"size"`                  // bytes; 0 of a folder
	Modified    time.Time `json:"modified,omitzero"`     // when the name was last set, in UTC
	ContentType string    `json:"contentType,omitempty"` // as it is sent
}

// Folder says whether the entry is a folder.
func (e *ListingEntry) Folder() bool { return strings.HasSuffix(e.Name, "/") }

// list answers GET and HEAD of a folder.
func (x *exchange) list(p Path) error {
	after, limit, err := pageQuery(x.r.URL.RawQuery)
	if err != nil {
		return problemf(http.StatusBadRequest, codeRequestInvalid, "the query: %w", err)
	}
	items, next, err := x.names.page(x.r.Context(), p, after, limit)
	if errors.Is(err, errNoFile) {
		if _, err := x.names.file(x.r.Context(), p); err == nil {
			return problemf(http.StatusNotFound, codeUnknown, "%s is a file: want its name without a slash at the end", p)
		}
		return problemf(http.StatusNotFound, codeUnknown, "there is no folder %s/", p)
	}
	if err != nil {
		return err
	}
	listing := newListing(p, items)
	header := x.w.Header()
	if next != "" {
		listing.Next = "?" + url.Values{"last": {next}, "n": {strconv.Itoa(limit)}}.Encode()
		header.Set("Link", "<"+listing.Next+`>; rel="next"`) // RFC 8288
	}
	body, contentType, err := x.render(listing)
	if err != nil {
		return fmt.Errorf("listing %s/: %w", p, err)
	}
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", cacheRevalidate)
	header.Set("Vary", "Accept")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	header.Set("Etag", entityTag(digest.FromBytes(body)))
	http.ServeContent(x.w, x.r, "", time.Time{}, bytes.NewReader(body))
	return nil
}

// pageQuery reads ?n= and ?last=. Other parameters may be a proxy's.
func pageQuery(query string) (after string, limit int, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", 0, err
	}
	limit = defaultPage
	if n := values.Get("n"); n != "" {
		limit, err = strconv.Atoi(n)
		if err != nil || limit < 1 {
			return "", 0, fmt.Errorf("n is %.40q: want how many entries to list, 1 to %d", n, maxPage)
		}
		limit = min(limit, maxPage)
	}
	return strings.TrimSuffix(values.Get("last"), "/"), limit, nil
}

func newListing(p Path, items []item) *Listing {
	l := &Listing{Entries: make([]ListingEntry, len(items))}
	if p != "" {
		l.Path = string(p) + "/"
	}
	for i, item := range items {
		e := &l.Entries[i]
		e.Name = item.name
		if item.folder {
			e.Name += "/"
			continue
		}
		e.SHA256, e.Size, e.Modified = item.file.Digest.Encoded(), item.file.Size, item.file.Modified.UTC()
		e.ContentType = contentType(item.file, p.child(item.name))
	}
	return l
}

// render makes a listing in the form that the client wants most.
func (x *exchange) render(l *Listing) (body []byte, contentType string, err error) {
	switch preferred(x.r.Header.Values("Accept"), mediaText, mediaHTML, mediaJSON) {
	case mediaJSON:
		body, err = json.Marshal(l)
		return append(body, '\n'), mediaJSON, err
	case mediaHTML:
		body, err = x.html(l)
		return body, mediaHTML + "; charset=utf-8", err
	default:
		return l.text(), mediaText + "; charset=utf-8", nil
	}
}

// noValue stands for what folders do not have.
const noValue = "-"

// text is a line for each entry: sha256, size in bytes, time, name, separated
// by tabs, which no name has.
func (l *Listing) text() []byte {
	var b bytes.Buffer
	for i := range l.Entries {
		e := &l.Entries[i]
		if e.Folder() {
			fmt.Fprintf(&b, "%s\t%s\t%s\t%s\n", noValue, noValue, noValue, e.Name)
			continue
		}
		fmt.Fprintf(&b, "%s\t%d\t%s\t%s\n", e.SHA256, e.Size, e.Modified.Format(time.RFC3339), e.Name)
	}
	return b.Bytes()
}

//go:embed listing.html
var listingPage string

// newListingPage makes the page that shows listings.
func newListingPage() (*template.Template, error) {
	return template.New("listing").Funcs(template.FuncMap{
		"link": entryLink,
		"time": func(t time.Time) string { return t.Format(time.RFC3339) },
	}).Parse(listingPage)
}

// html is the listing as a page, whose links are relative to the folder.
func (x *exchange) html(l *Listing) ([]byte, error) {
	var b bytes.Buffer
	err := x.page.Execute(&b, struct {
		*Listing
		Title string
		Root  bool
	}{l, x.prefix + "/" + l.Path, l.Path == ""})
	return b.Bytes(), err
}

// entryLink is the URL of an entry, relative to its folder. "./" keeps a colon
// in a name from making it a scheme.
func entryLink(name string) string {
	element, isFolder := strings.CutSuffix(name, "/")
	link := "./" + url.PathEscape(element)
	if isFolder {
		link += "/"
	}
	return link
}
