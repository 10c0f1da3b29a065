package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"
)

// insertEntry puts a digest into a dmap, in the order that the dmap has: by
// digest, or else after the last tag that is not newer.
func (t *text) insertEntry(dmap *yaml.Node, d digest.Digest, tags []string) error {
	if dmap.Style&yaml.FlowStyle != 0 {
		return fmt.Errorf("line %d: dmap is written in braces; add the entry by hand", dmap.Line)
	}
	at := placeIn(dmap, Entry{Digest: d, Tags: tags})
	neighbour := max(at-1, 0)
	lines, err := t.entryLike(dmap.Content[2*neighbour], dmap.Content[2*neighbour+1], d, tags)
	if err != nil {
		return err
	}
	if at == 0 {
		t.insertLines(dmap.Content[0].Line-1, lines...)
		return nil
	}
	t.insertLines(t.end(dmap.Content[2*at-1]), lines...)
	return nil
}

// placeIn is the number of entries that come before e.
func placeIn(dmap *yaml.Node, e Entry) int {
	entries := make([]Entry, len(dmap.Content)/2)
	for i := range entries {
		entries[i].Digest = digest.Digest(dmap.Content[2*i].Value)
		for _, tag := range dmap.Content[2*i+1].Content {
			entries[i].Tags = append(entries[i].Tags, tag.Value)
		}
	}
	byDigest := func(a, b Entry) int { return strings.Compare(string(a.Digest), string(b.Digest)) }
	compare := compareEntries
	if len(entries) > 1 && slices.IsSortedFunc(entries, byDigest) {
		compare = byDigest
	}
	at := len(entries)
	for at > 0 && compare(entries[at-1], e) > 0 {
		at--
	}
	if at == 0 && !slices.IsSortedFunc(entries, compare) {
		return len(entries) // the dmap has no order that a place can be found in
	}
	return at
}

// entryLike writes an entry in the style of another.
func (t *text) entryLike(key, value *yaml.Node, d digest.Digest, tags []string) ([]string, error) {
	indent := strings.Repeat(" ", key.Column-1)
	name := quoteLike(key, string(d))
	if value.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: the tags are no list; add the entry by hand", value.Line)
	}
	if value.Style&yaml.FlowStyle == 0 && len(tags) > 0 {
		lines := []string{indent + name + ":"}
		for _, tag := range tags {
			lines = append(lines, strings.Repeat(" ", value.Column-1)+"- "+quoteLike(value.Content[0], tag))
		}
		return lines, nil
	}
	quoted := make([]string, len(tags))
	for i, tag := range tags {
		quoted[i] = fmt.Sprintf("%q", tag)
		if len(value.Content) > 0 {
			quoted[i] = quoteLike(value.Content[0], tag)
		}
	}
	pad := ""
	if line := t.lines[value.Line-1]; value.Style&yaml.FlowStyle != 0 && value.Column < len(line) && line[value.Column] == ' ' && len(tags) > 0 {
		pad = " "
	}
	return []string{indent + name + ": [" + pad + strings.Join(quoted, ", ") + pad + "]"}, nil
}

// quoteLike writes a digest or tag in the quotes that another has. None of
// their letters needs any.
func quoteLike(n *yaml.Node, s string) string {
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		return `"` + s + `"`
	case n.Style&yaml.SingleQuotedStyle != 0:
		return "'" + s + "'"
	}
	return plain(s)
}

// addTags adds tags to a digest's list of them.
func (t *text) addTags(list *yaml.Node, tags []string) error {
	if len(list.Content) == 0 {
		length := strings.IndexByte(t.lines[list.Line-1][list.Column-1:], ']') + 1
		if length == 0 {
			return fmt.Errorf("line %d: the empty list of tags does not end on its line; add the tag by hand", list.Line)
		}
		return t.splice(list.Line, list.Column, length, flow(tags))
	}
	last := list.Content[len(list.Content)-1]
	if list.Style&yaml.FlowStyle == 0 {
		var lines []string
		for _, tag := range tags {
			lines = append(lines, strings.Repeat(" ", list.Column-1)+"- "+quoteLike(last, tag))
		}
		t.insertLines(t.end(last), lines...)
		return nil
	}
	quoted := make([]string, len(tags))
	for i, tag := range tags {
		quoted[i] = quoteLike(last, tag)
	}
	return t.splice(last.Line, last.Column+len(quoteLike(last, last.Value)), 0, ", "+strings.Join(quoted, ", "))
}
