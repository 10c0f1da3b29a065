package config

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"
)

// itemList is what one file lists, entry by entry as it stands there: nothing is
// merged or compared yet.
type itemList struct {
	images  []Image
	files   []File
	removed []Removal
	revoked []Revocation
	// lines counts items, for telling an empty list.
	items int
}

// readItems reads the items of a list of kind k.
func (r *report) readItems(g *grammar, n *yaml.Node, k Kind, what string) *itemList {
	l := &itemList{}
	items, _ := r.items(n, what)
	l.items = len(items)
	for _, item := range items {
		switch {
		case item.Kind == yaml.MappingNode && hasKey(item, "removed"):
			l.removed = append(l.removed, r.readRemoved(g, item, k)...)
		case item.Kind == yaml.MappingNode && hasKey(item, "revoked"):
			l.revoked = append(l.revoked, r.readRevoked(item)...)
		case k == Images:
			if image, ok := r.readImage(g, item); ok {
				l.images = append(l.images, image)
			}
		default:
			if file, ok := r.readFile(item); ok {
				l.files = append(l.files, file)
			}
		}
	}
	return l
}

func hasKey(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

func (r *report) position(n *yaml.Node) Position { return Position{File: r.file, Line: n.Line} }

// readImage reads an image with its digests and tags. A bad digest or tag is
// set aside alone.
func (r *report) readImage(g *grammar, item *yaml.Node) (Image, bool) {
	image := Image{Position: r.position(item)}
	var name, dmap *yaml.Node
	good := r.keys(item, "an image", []string{"name", "dmap"}, func(key string, value *yaml.Node) {
		switch key {
		case "name":
			name = value
		case "dmap":
			dmap = value
		}
	})
	if !good {
		return image, false
	}
	if name == nil {
		r.add(item.Line, "an image has no name:; it is set aside")
		return image, false
	}
	var ok bool
	if image.Name, ok = r.text(name, "the name of an image"); !ok {
		return image, false
	}
	if err := g.repository(image.Name); err != nil {
		r.add(name.Line, "image name %s %v; the image is set aside", quote(image.Name), err)
		return image, false
	}
	switch {
	case dmap == nil || isNull(dmap):
		r.notice(item.Line, "image %s has no digests", image.Name)
		return image, true
	case dmap.Kind != yaml.MappingNode:
		r.add(dmap.Line, "dmap of image %s is %s; want digests with lists of tags; the image is set aside", image.Name, shape(dmap))
		return image, false
	}
	image.Entries = make([]Entry, 0, len(dmap.Content)/2)
	for i := 0; i+1 < len(dmap.Content); i += 2 {
		if entry, ok := r.readEntry(&image, dmap.Content[i], dmap.Content[i+1]); ok {
			image.Entries = append(image.Entries, entry)
		}
	}
	return image, true
}

// readEntry reads one digest with its tags.
func (r *report) readEntry(image *Image, key, tags *yaml.Node) (Entry, bool) {
	entry := Entry{Position: r.position(key)}
	text, ok := r.text(key, "a digest of image "+image.Name)
	if !ok {
		return entry, false
	}
	d, err := parseDigest(text)
	if err != nil {
		r.add(key.Line, "digest %s of image %s %v; the digest and its tags are set aside", quote(text), image.Name, err)
		return entry, false
	}
	entry.Digest = d
	if tags.Kind != yaml.SequenceNode {
		r.add(tags.Line, "the tags of %s of image %s are %s; want a list, [] for none; the digest is set aside",
			short(d), image.Name, shape(tags))
		return entry, false
	}
	for _, n := range tags.Content {
		tag, ok := r.text(n, "a tag of image "+image.Name)
		if !ok {
			continue
		}
		if err := checkTag(tag); err != nil {
			r.add(n.Line, "tag %s of image %s %v; the tag is set aside", quote(tag), image.Name, err)
			continue
		}
		entry.Tags = append(entry.Tags, tag)
	}
	// A digest whose every tag is bad is not one that was meant to have none.
	return entry, len(entry.Tags) > 0 || len(tags.Content) == 0
}

// readFile reads one file.
func (r *report) readFile(item *yaml.Node) (File, bool) {
	file := File{Position: r.position(item)}
	var name, sum string
	var sumLine int
	read := map[string]bool{}
	good := r.keys(item, "a file", []string{"name", "sha256"}, func(key string, value *yaml.Node) {
		text, ok := r.text(value, key+" of a file")
		switch key {
		case "name":
			name = text
		case "sha256":
			sum, sumLine = text, value.Line
		}
		read[key] = true
		if !ok {
			read["bad"] = true
		}
	})
	if !good || read["bad"] {
		return file, false
	}
	for _, key := range []string{"name", "sha256"} {
		if !read[key] {
			r.add(item.Line, "a file has no %s:; it is set aside", key)
			return file, false
		}
	}
	if err := checkFileName(name); err != nil {
		r.add(item.Line, "file name %s %v; the file is set aside", quote(name), err)
		return file, false
	}
	d, err := parseSHA256(sum)
	if err != nil {
		r.add(sumLine, "sha256 %s of file %s %v; the file is set aside", quote(sum), quote(name), err)
		return file, false
	}
	file.Name, file.SHA256 = name, d
	return file, true
}

// readReasoned reads an item that gives names under key, one or a list, and the
// reason why.
func (r *report) readReasoned(item *yaml.Node, key string) (names []*yaml.Node, reason string) {
	var value *yaml.Node
	good := r.keys(item, "an item with "+key, []string{key, "reason"}, func(k string, v *yaml.Node) {
		if k == key {
			value = v
			return
		}
		reason, _ = r.text(v, "reason")
	})
	if !good {
		return nil, ""
	}
	if reason = strings.TrimSpace(reason); reason == "" {
		r.add(item.Line, "%s has no reason:; say why, for those who read the ledger; it is set aside", key)
		return nil, ""
	}
	if value.Kind == yaml.SequenceNode {
		return value.Content, reason
	}
	return []*yaml.Node{value}, reason
}

// readRemoved reads "- removed: NAME" of a list.
func (r *report) readRemoved(g *grammar, item *yaml.Node, k Kind) []Removal {
	names, reason := r.readReasoned(item, "removed")
	var removals []Removal
	for _, n := range names {
		text, ok := r.text(n, "a name of removed")
		if !ok {
			continue
		}
		removal := Removal{Position: r.position(n), Name: text, Reason: reason}
		err := checkFileName(text)
		if k == Images {
			removal.Name, removal.Tag, removal.Digest, err = parseImageName(g, text)
		}
		if err != nil {
			r.add(n.Line, "removed %s %v; it is set aside", quote(text), err)
			continue
		}
		removals = append(removals, removal)
	}
	return removals
}

// parseImageName reads "coredns", "coredns:v1.9.3" or "coredns@sha256:…".
func parseImageName(g *grammar, s string) (name, tag string, d digest.Digest, err error) {
	name, text, byDigest := strings.Cut(s, "@")
	if byDigest {
		d, err = parseDigest(text)
	} else {
		var tagged bool
		if name, tag, tagged = strings.Cut(s, ":"); tagged {
			err = checkTag(tag)
		}
	}
	if err != nil {
		return "", "", "", err
	}
	if err := g.repository(name); err != nil {
		return "", "", "", fmt.Errorf("names an image that %w", err)
	}
	return name, tag, d, nil
}

// readRevoked reads "- revoked: DIGEST" of a list.
func (r *report) readRevoked(item *yaml.Node) []Revocation {
	names, reason := r.readReasoned(item, "revoked")
	var revocations []Revocation
	for _, n := range names {
		text, ok := r.text(n, "a digest of revoked")
		if !ok {
			continue
		}
		d, err := parseDigest(text)
		if err != nil {
			r.add(n.Line, "revoked digest %s %v; it is set aside", quote(text), err)
			continue
		}
		revocations = append(revocations, Revocation{Position: r.position(n), Digest: d, Reason: reason})
	}
	return revocations
}
