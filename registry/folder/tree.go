package folder

import (
	"slices"
	"strings"
)

// Tree keeps values of files by their paths, so that any page of a folder is at
// hand. A folder is there as long as anything is in it; the root always is. Paths
// are elements joined by slashes, as of [Entry]. The zero Tree is empty. It is not
// safe for concurrent use, not even by readers: what is listed first is sorted.
type Tree[V any] struct{ root node[V] }

// node is a folder.
type node[V any] struct {
	files   map[string]V
	folders map[string]*node[V]
	sorted  []string // names of entries; nil while nobody wanted them in order
}

// Item is a file or a folder of a [Tree].
type Item[V any] struct {
	Name  string // of an [Entry]
	Value V      // of a file
}

// Get is the value of a file.
func (t *Tree[V]) Get(path string) (value V, ok bool) {
	in, name := split(path)
	if n := t.root.find(in); n != nil {
		value, ok = n.files[name]
	}
	return value, ok
}

// HasFolder says whether there is a folder.
func (t *Tree[V]) HasFolder(path string) bool { return t.root.find(path) != nil }

// Set puts a file, and the folders that it is in. The tree keeps the path's
// memory.
func (t *Tree[V]) Set(path string, value V) {
	in, name := split(path)
	n := &t.root
	for element := range elements(in) {
		next := n.folders[element]
		if next == nil {
			next = &node[V]{}
			if n.folders == nil {
				n.folders = map[string]*node[V]{}
			}
			n.folders[element] = next
			n.listed(element + "/")
		}
		n = next
	}
	if _, ok := n.files[name]; !ok {
		n.listed(name)
	}
	if n.files == nil {
		n.files = map[string]V{}
	}
	n.files[name] = value
}

// Remove removes a file, and the folders that are empty without it.
func (t *Tree[V]) Remove(path string) { t.root.remove(path) }

func (n *node[V]) remove(path string) {
	element, rest, deeper := strings.Cut(path, "/")
	if !deeper {
		if _, ok := n.files[element]; ok {
			delete(n.files, element)
			n.unlisted(element)
		}
		return
	}
	below := n.folders[element]
	if below == nil {
		return
	}
	below.remove(rest)
	if len(below.files)+len(below.folders) == 0 {
		delete(n.folders, element)
		n.unlisted(element + "/")
	}
}

// Page returns at most limit entries of a folder that come after a name, in order.
// With next, it goes on; next is "" at the end. It reports false when there is no
// such folder.
func (t *Tree[V]) Page(path, after string, limit int) (items []Item[V], next string, ok bool) {
	n := t.root.find(path)
	if n == nil {
		return nil, "", false
	}
	order := n.order()
	if after != "" {
		at, found := slices.BinarySearchFunc(order, after, CompareNames)
		if found {
			at++
		}
		order = order[at:]
	}
	if len(order) > limit {
		order = order[:limit]
		next = order[limit-1]
	}
	items = make([]Item[V], len(order))
	for i, name := range order {
		items[i] = Item[V]{name, n.files[name]} // no file's name ends in a slash
	}
	return items, next, true
}

// find is the folder at a path, nil when there is none.
func (n *node[V]) find(path string) *node[V] {
	for element := range elements(path) {
		if n = n.folders[element]; n == nil {
			return nil
		}
	}
	return n
}

// order is the names of entries, sorted.
func (n *node[V]) order() []string {
	if n.sorted == nil {
		n.sorted = make([]string, 0, len(n.files)+len(n.folders))
		for name := range n.files {
			n.sorted = append(n.sorted, name)
		}
		for name := range n.folders {
			n.sorted = append(n.sorted, name+"/")
		}
		slices.SortFunc(n.sorted, CompareNames)
	}
	return n.sorted
}

// listed puts a new entry where it belongs, if the folder is sorted.
func (n *node[V]) listed(name string) {
	if n.sorted == nil {
		return
	}
	if at, found := slices.BinarySearchFunc(n.sorted, name, CompareNames); !found {
		n.sorted = slices.Insert(n.sorted, at, name)
	}
}

// unlisted takes an entry away.
func (n *node[V]) unlisted(name string) {
	if n.sorted == nil {
		return
	}
	if at, found := slices.BinarySearchFunc(n.sorted, name, CompareNames); found {
		n.sorted = slices.Delete(n.sorted, at, at+1)
	}
}

// split is the folder that a path lies in, and its last element.
func split(path string) (in, name string) {
	at := strings.LastIndexByte(path, '/')
	return path[:max(at, 0)], path[at+1:]
}

// elements are those of a path; the root's has none.
func elements(path string) func(yield func(string) bool) {
	if path == "" {
		return func(func(string) bool) {}
	}
	return strings.SplitSeq(path, "/")
}
