// Package catalog is the folders of the files that a ledger says are there, for
// whoever follows the ledger and has to show them: a node, or the router, which
// has none of the content.
//
// A name is what the rule of nodes makes it: of the destinations given, the first
// counts of which the ledger ever heard the name. What was deleted is not listed,
// nor what was revoked, which nobody can download.
package catalog

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"entrepot/promote/ledger"
	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

// Catalog implements [folder.Lister] for the files below some destinations of a
// ledger. It keeps their names, some 100 bytes for each, and takes in what the
// ledger has new when it is asked next. It is safe for concurrent use.
type Catalog struct {
	newest func() *ledger.State
	names  []string
	has    func(path string) bool // nil when all that the ledger has is there

	mu    sync.Mutex
	state *ledger.State        // that the tree is of
	files folder.Tree[nothing] // what a file is, the state knows
}

type nothing = struct{}

// New makes the catalog of what a ledger has below destinations, such as
// "https://dl.example.org", in the order in which they count. newest returns the
// newest state, each of the same log: [ledger.Follower.State] does.
func New(newest func() *ledger.State, names ...string) *Catalog {
	return &Catalog{newest: newest, names: names, state: new(ledger.State)}
}

// Only has the catalog show what a function says is there, of what the ledger has: for
// whoever holds a part of it and can fetch no other. What is there may not change.
func (c *Catalog) Only(has func(path string) bool) { c.has = has }

// List implements [folder.Lister].
func (c *Catalog) List(_ context.Context, path, after string, limit int) (entries []folder.Entry, next string, err error) {
	items, next, state, ok := c.page(path, after, limit)
	if !ok {
		return nil, "", fmt.Errorf("%s/ %w", path, folder.ErrNotExist)
	}
	if path != "" {
		path += "/"
	}
	entries = make([]folder.Entry, 0, len(items))
	for _, item := range items {
		if strings.HasSuffix(item.Name, "/") {
			entries = append(entries, folder.Entry{Name: item.Name})
			continue
		}
		e, ok := c.lookup(state, path+item.Name)
		if !ok {
			continue
		}
		if _, revoked := state.Revoked(e.Digest); !revoked {
			entries = append(entries, describe(item.Name, &e))
		}
	}
	return entries, next, nil
}

// Has says whether there is a file, by its path.
func (c *Catalog) Has(path string) bool {
	_, exists := c.lookup(c.newest(), path)
	return exists
}

// page is a page of the tree, as of the state that is returned with it.
func (c *Catalog) page(path, after string, limit int) (items []folder.Item[nothing], next string, state *ledger.State, ok bool) {
	newest := c.newest()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(newest)
	items, next, ok = c.files.Page(path, after, limit)
	return items, next, c.state, ok
}

// advance takes in the entries that a state has and the tree has not. Another
// request may have brought a newer one already.
func (c *Catalog) advance(to *ledger.State) {
	from := c.state.Len()
	if to.Len() <= from {
		return
	}
	c.state = to
	for e := range to.Entries(from) {
		if e.Kind != ledger.File {
			continue
		}
		for _, destination := range e.Destinations {
			for _, name := range c.names {
				if path, ok := below(name, destination, e.Name); ok {
					c.settle(path)
				}
			}
		}
	}
}

// settle puts a file where the state has it, or takes it away.
func (c *Catalog) settle(path string) {
	if _, exists := c.lookup(c.state, path); exists {
		c.files.Set(path, nothing{})
	} else {
		c.files.Remove(path)
	}
}

// lookup is the entry of a file that is there.
func (c *Catalog) lookup(s *ledger.State, path string) (ledger.Entry, bool) {
	e, known := s.LookupFile(c.names, path)
	return e, known && e.Exists() && (c.has == nil || c.has(path))
}

// below is the path below a name of the file called file at a destination, if it
// lies there and is one that a URL can lead to.
func below(name, destination, file string) (path string, ok bool) {
	switch rest, found := strings.CutPrefix(destination, name); {
	case found && rest == "":
		path = file
	case found && rest[0] == '/':
		path = rest[1:] + "/" + file
	default: // the name may be one of a folder at the destination
		inside, found := strings.CutPrefix(name, destination+"/")
		if !found {
			return "", false
		}
		if path, found = strings.CutPrefix(file, inside+"/"); !found {
			return "", false
		}
	}
	for element := range strings.SplitSeq(path, "/") {
		if element == "" || element == "." || element == ".." {
			return "", false
		}
	}
	return path, true
}

// describe is a file as folders show it.
func describe(name string, e *ledger.Entry) folder.Entry {
	entry := folder.Entry{Name: name, Size: e.Size, Modified: e.Time, ContentType: e.MediaType}
	if e.Digest.Algorithm() == digest.SHA256 {
		entry.SHA256 = e.Digest.Encoded()
	}
	if e.Size == 0 && e.Digest != digest.FromBytes(nil) {
		entry.Size = -1 // the ledger leaves out what it does not know, and what is 0
	}
	return entry
}
