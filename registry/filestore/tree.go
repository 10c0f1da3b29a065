package filestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
)

// folder is a part of the tree of names, guarded by names.mu. It is there as
// long as anything is in it.
type folder struct {
	files   map[string]*file // nil while what it is was not read
	folders map[string]*folder
	sorted  []string // names of both; nil when they are to be sorted anew
}

// folder is the folder at a path, nil when there is none.
func (f *folder) folder(p Path) *folder {
	if p == "" {
		return f
	}
	for element := range strings.SplitSeq(string(p), "/") {
		if f = f.folders[element]; f == nil {
			return nil
		}
	}
	return f
}

// set puts a file, and the folders that it is in.
func (f *folder) set(p Path, to *file) {
	in, name := p.clone().parent()
	if in != "" {
		for element := range strings.SplitSeq(string(in), "/") {
			next := f.folders[element]
			if next == nil {
				next = &folder{}
				if f.folders == nil {
					f.folders = map[string]*folder{}
				}
				f.folders[element] = next
				f.sorted = nil
			}
			f = next
		}
	}
	if _, ok := f.files[name]; !ok {
		f.sorted = nil
	}
	if f.files == nil {
		f.files = map[string]*file{}
	}
	f.files[name] = to
}

// remove removes a file, and the folders that are empty without it.
func (f *folder) remove(p Path) {
	element, rest, deeper := strings.Cut(string(p), "/")
	if !deeper {
		delete(f.files, element)
		f.sorted = nil
		return
	}
	below := f.folders[element]
	if below == nil {
		return
	}
	below.remove(Path(rest))
	if len(below.files)+len(below.folders) == 0 {
		delete(f.folders, element)
		f.sorted = nil
	}
}

// order is the names in a folder, in the order of their bytes.
func (f *folder) order() []string {
	if f.sorted == nil {
		f.sorted = make([]string, 0, len(f.files)+len(f.folders))
		for name := range f.files {
			f.sorted = append(f.sorted, name)
		}
		for name := range f.folders {
			f.sorted = append(f.sorted, name)
		}
		slices.Sort(f.sorted)
	}
	return f.sorted
}

// item is an entry of a listing.
type item struct {
	name   string
	folder bool
	file   *file // of a file; nil while it was not read
}

// readAtOnce is how many records one listing reads at a time.
const readAtOnce = 16

// page lists at most limit entries of a folder whose names come after one. With
// next, it goes on; next is "" at the end. Errors: errNoFile, when there is no
// such folder.
func (n *names) page(ctx context.Context, p Path, after string, limit int) (items []item, next string, err error) {
	if err := n.load(ctx); err != nil {
		return nil, "", err
	}
	items, more, ok := n.pageNames(p, after, limit)
	if !ok {
		return nil, "", fmt.Errorf("%w: %s/", errNoFile, p)
	}
	if more {
		next = items[len(items)-1].name
	}
	var reading sync.WaitGroup
	slots := make(chan struct{}, readAtOnce)
	errs := make([]error, len(items))
	for i := range items {
		if items[i].folder || items[i].file != nil {
			continue
		}
		slots <- struct{}{}
		reading.Go(func() {
			defer func() { <-slots }()
			items[i].file, errs[i] = n.file(ctx, p.child(items[i].name))
		})
	}
	reading.Wait()
	listed := items[:0]
	for i := range items {
		if errors.Is(errs[i], errNoFile) {
			continue // it was deleted meanwhile
		}
		if errs[i] != nil {
			return nil, "", errs[i]
		}
		listed = append(listed, items[i])
	}
	return listed, next, nil
}

// pageNames is page without what has to be read.
func (n *names) pageNames(p Path, after string, limit int) (items []item, more, ok bool) {
	n.mu.Lock() // order may sort
	defer n.mu.Unlock()
	f := n.root.folder(p)
	if f == nil {
		return nil, false, false
	}
	order := f.order()
	if after != "" {
		order = order[sort.Search(len(order), func(i int) bool { return order[i] > after }):]
	}
	if more = len(order) > limit; more {
		order = order[:limit]
	}
	items = make([]item, len(order))
	for i, name := range order {
		file, isFile := f.files[name]
		items[i] = item{name: name, folder: !isFile, file: file}
	}
	return items, more, true
}
