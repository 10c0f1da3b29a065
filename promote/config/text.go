package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"
)

// text is a list being edited line by line, which keeps comments, order and
// style as their authors left them.
type text struct {
	lines  []string // without their ends
	eol    string
	starts []int // lines on which a YAML node begins, sorted
	edited bool
	added  map[string]bool // facts that the edit adds

	dash   int        // spaces before an item's dash
	holder *yaml.Node // the empty value where the list belongs, if there is no item
}

// openText parses a list for editing. Errors: it is not one.
func openText(source []byte, k Kind) (*text, []*yaml.Node, *itemList, error) {
	t := &text{eol: "\n", added: map[string]bool{}}
	body := string(source)
	// Where ends of lines are mixed, each line keeps its own.
	if n := strings.Count(body, "\r\n"); n > 0 && n == strings.Count(body, "\n") {
		t.eol = "\r\n"
		body = strings.ReplaceAll(body, "\r\n", "\n")
	}
	if body = strings.TrimSuffix(body, "\n"); body != "" {
		t.lines = strings.Split(body, "\n")
	}
	r := &report{file: "the list"}
	root := r.parse([]byte(body))
	if r.bad() {
		return nil, nil, nil, errors.New(r.problems[0].String())
	}
	if root == nil {
		if k == Files {
			t.insertLines(len(t.lines), "files:")
			t.edited = false // by itself, that says nothing
		}
		return t, nil, &itemList{}, nil
	}
	list := root
	if root.Kind == yaml.MappingNode {
		if list = valueOf(root, sectionOf(k).list); list == nil {
			return nil, nil, nil, fmt.Errorf("it has no key %s", sectionOf(k).list)
		}
	}
	walk(root, func(n *yaml.Node) { t.starts = append(t.starts, n.Line) })
	slices.Sort(t.starts)
	switch {
	case isNull(list), list.Kind == yaml.SequenceNode && len(list.Content) == 0:
		t.holder = list
		return t, nil, &itemList{}, nil
	case list.Kind != yaml.SequenceNode || list.Style&yaml.FlowStyle != 0:
		return nil, nil, nil, fmt.Errorf("line %d: want a list with an item a line, begun by dashes", list.Line)
	}
	t.dash = list.Column - 1
	// What is bad in the list stays as it is.
	return t, list.Content, r.readItems(newGrammar(), list, k, "the list"), nil
}

func walk(n *yaml.Node, visit func(*yaml.Node)) {
	visit(n)
	for _, child := range n.Content {
		walk(child, visit)
	}
}

// valueOf is the value of a key of a mapping, or nil.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func (t *text) bytes() []byte {
	return []byte(strings.Join(t.lines, t.eol) + t.eol)
}

// insertLines puts lines after the first n.
func (t *text) insertLines(n int, lines ...string) {
	t.lines = slices.Insert(t.lines, n, lines...)
	t.edited = true
}

// splice replaces length bytes of a line; line and column count from 1.
func (t *text) splice(line, column, length int, with string) error {
	s := t.lines[line-1]
	if column < 1 || column-1+length > len(s) {
		return fmt.Errorf("line %d: its style defeats editing by line; add the entry by hand", line)
	}
	t.lines[line-1] = strings.TrimRight(s[:column-1]+with+s[column-1+length:], " ")
	t.edited = true
	return nil
}

// end is the number of the last line of n: comments and empty lines before the
// next node belong to that.
func (t *text) end(n *yaml.Node) int {
	last := 0
	walk(n, func(child *yaml.Node) { last = max(last, child.Line) })
	next, _ := slices.BinarySearch(t.starts, last+1)
	line := len(t.lines)
	if next < len(t.starts) {
		line = t.starts[next] - 1
	}
	for line > last {
		s := strings.TrimSpace(t.lines[line-1])
		if s != "" && !strings.HasPrefix(s, "#") {
			break
		}
		line--
	}
	return line
}

// insertItem puts the lines of a new item at its place among items that have a
// name: sorted if they are, else at their end.
func (t *text) insertItem(items []*yaml.Node, name string, lines ...string) error {
	for i := range lines {
		lead := "  "
		if i == 0 {
			lead = "- "
		}
		lines[i] = strings.Repeat(" ", t.dash) + lead + lines[i]
	}
	var named []*yaml.Node
	for _, item := range items {
		if item.Kind == yaml.MappingNode && valueOf(item, "name") != nil {
			named = append(named, item)
		}
	}
	nameOf := func(n *yaml.Node) string { return valueOf(n, "name").Value }
	sorted := slices.IsSortedFunc(named, func(a, b *yaml.Node) int { return strings.Compare(nameOf(a), nameOf(b)) })
	at := len(named)
	if sorted {
		for at > 0 && nameOf(named[at-1]) > name {
			at--
		}
	}
	switch {
	case at > 0:
		t.insertLines(t.end(named[at-1]), lines...)
	case len(items) > 0:
		t.insertLines(items[0].Line-1, lines...)
	case t.holder == nil:
		t.insertLines(len(t.lines), lines...)
	default:
		return t.fillHolder(lines)
	}
	return nil
}

// fillHolder puts the first item where an empty value stands: "images:" or
// "images: []".
func (t *text) fillHolder(lines []string) error {
	line := t.holder.Line
	if !isNull(t.holder) || t.holder.Value != "" {
		length := len(t.holder.Value)
		if t.holder.Kind == yaml.SequenceNode {
			length = strings.IndexByte(t.lines[line-1][t.holder.Column-1:], ']') + 1
		}
		if err := t.splice(line, t.holder.Column, length, ""); err != nil {
			return err
		}
		if t.lines[line-1] == "" {
			t.lines = slices.Delete(t.lines, line-1, line)
			line--
		}
	}
	t.insertLines(line, lines...)
	return nil
}

// insertFile lists a file.
func (t *text) insertFile(items []*yaml.Node, files []File, name string, sum digest.Digest) error {
	for _, f := range files {
		switch {
		case f.Name != name:
		case f.SHA256 == sum:
			return nil
		default:
			return fmt.Errorf("file %s is listed on line %d with the sha256 %s: a published file does not change", name, f.Line, f.SHA256.Encoded())
		}
	}
	t.added[name+" "+string(sum)] = true
	return t.insertItem(items, name, "name: "+plain(name), "sha256: "+sum.Encoded())
}

// insertImage lists a digest and its tags.
func (t *text) insertImage(items []*yaml.Node, images []Image, image string, d digest.Digest, tags []string) error {
	listed := false
	for _, i := range images {
		if i.Name != image {
			continue
		}
		for _, e := range i.Entries {
			if e.Digest == d {
				listed = true
				tags = slices.DeleteFunc(tags, func(tag string) bool { return slices.Contains(e.Tags, tag) })
				continue
			}
			for _, tag := range tags {
				if slices.Contains(e.Tags, tag) {
					return fmt.Errorf("tag %s of image %s is listed on line %d with %s; to move it, take it from there first", tag, image, e.Line, e.Digest)
				}
			}
		}
	}
	if listed && len(tags) == 0 {
		return nil
	}
	t.added[imageFact(image, "", d)] = true
	for _, tag := range tags {
		t.added[imageFact(image, tag, d)] = true
	}
	var dmaps []*yaml.Node // of the items of that name
	var holder *yaml.Node  // an item of that name
	for _, item := range items {
		if item.Kind == yaml.MappingNode {
			if name := valueOf(item, "name"); name != nil && name.Value == image {
				holder = item
				if dmap := valueOf(item, "dmap"); dmap != nil && dmap.Kind == yaml.MappingNode && len(dmap.Content) > 0 {
					dmaps = append(dmaps, dmap)
				}
			}
		}
	}
	for _, dmap := range dmaps {
		for i := 0; i+1 < len(dmap.Content); i += 2 {
			if dmap.Content[i].Value == string(d) {
				return t.addTags(dmap.Content[i+1], tags)
			}
		}
	}
	switch {
	case len(dmaps) > 0:
		return t.insertEntry(dmaps[len(dmaps)-1], d, tags)
	case holder != nil:
		return fmt.Errorf("line %d: image %s has no digests to put this one beside; add it by hand", holder.Line, image)
	}
	return t.insertItem(items, image, "name: "+plain(image), "dmap:", fmt.Sprintf("  %q: %s", string(d), flow(tags)))
}
