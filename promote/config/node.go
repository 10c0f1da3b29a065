package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// report collects what is wrong with one file.
type report struct {
	file     string
	project  string
	problems []Problem
}

// add notes a problem; line 0 is the file as a whole.
func (r *report) add(line int, format string, args ...any) {
	r.problems = append(r.problems, Problem{
		Position: Position{File: r.file, Line: line}, Project: r.project, Message: fmt.Sprintf(format, args...),
	})
}

// notice notes what changes nothing.
func (r *report) notice(line int, format string, args ...any) {
	r.add(line, format, args...)
	r.problems[len(r.problems)-1].Notice = true
}

// bad says whether anything but notices was noted.
func (r *report) bad() bool {
	return slices.ContainsFunc(r.problems, func(p Problem) bool { return !p.Notice })
}

// parse reads text as one YAML document. It is nil when the file is empty, and
// when it cannot be read, which is reported.
func (r *report) parse(text []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, next yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		r.unparsable(err)
		return nil
	}
	if err := decoder.Decode(&next); err == nil {
		r.add(next.Line, "a second YAML document begins here; want one document a file; the file is set aside")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.unparsable(err)
		return nil
	}
	root := document.Content[0]
	if isNull(root) {
		return nil
	}
	return root
}

// unparsable reports an error of the YAML library, "yaml: line 3: why", which
// carries the line in its text only.
func (r *report) unparsable(err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits by the pattern
		message = message[len(m[0]):]
	}
	r.add(line, "this is no valid YAML: %s; the file is set aside", message)
}

// keys visits the keys of n, which is what. It reports whether every key was
// known and given once; the visitor reports on values itself.
func (r *report) keys(n *yaml.Node, what string, known []string, visit func(key string, value *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		r.add(n.Line, "%s is %s; want keys with values: %s", what, shape(n), strings.Join(known, ", "))
		return false
	}
	good := true
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode || !slices.Contains(known, k.Value):
			r.add(k.Line, "unknown key %s in %s%s; known keys: %s", keyText(k), what, hint(k.Value, known), strings.Join(known, ", "))
			good = false
		case givenBefore(n, i):
			r.add(k.Line, "the key %s is given twice in %s; keep one", k.Value, what)
			good = false
		default:
			visit(k.Value, value)
		}
	}
	return good
}

func givenBefore(n *yaml.Node, i int) bool {
	for j := 0; j < i; j += 2 {
		if n.Content[j].Value == n.Content[i].Value {
			return true
		}
	}
	return false
}

func keyText(k *yaml.Node) string {
	if k.Kind == yaml.ScalarNode {
		return quote(k.Value)
	}
	return "(" + shape(k) + ")"
}

// items are the items of a list; an empty value is a list without any.
func (r *report) items(n *yaml.Node, what string) ([]*yaml.Node, bool) {
	switch {
	case n == nil || isNull(n):
		return nil, true
	case n.Kind != yaml.SequenceNode:
		r.add(n.Line, "%s is %s; want a list", what, shape(n))
		return nil, false
	}
	return n.Content, true
}

// text is a single value, as it is written: an unquoted 1.10 is "1.10".
func (r *report) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		r.add(n.Line, "%s is %s; want a single value", what, shape(n))
		return "", false
	}
	return n.Value, true
}

func (r *report) boolean(n *yaml.Node, what string) (value, ok bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		r.add(n.Line, "%s is %s; want true or false", what, shape(n))
		return false, false
	}
	return strings.EqualFold(n.Value, "true"), true
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// shape is what n is, for a message. Aliases are refused wherever they stand:
// a few of them spell out more than any memory holds, and a reviewer should
// see what is promoted.
func shape(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "empty"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias, which is not followed"
	}
	return quote(n.Value)
}

// hint says what an unknown key may have been meant to be, or where it belongs.
func hint(key string, known []string) string {
	if meant := nearest(key, known); meant != "" {
		return fmt.Sprintf("; did you mean %q?", meant)
	}
	switch key {
	case "removed", "revoked":
		return fmt.Sprintf(`; it is written as an item of the list: "- %s: …" with a "reason: …"`, key)
	case "prune", "mutable_tags":
		return "; it belongs beside the registries or filestores"
	case "registries", "filestores":
		return "; a thin tree has them in the project's manifest"
	}
	return ""
}

// nearest is the candidate that s is a likely misspelling of, or empty.
func nearest(s string, candidates []string) string {
	best, distance := "", 3 // more than two slips are another word
	for _, c := range candidates {
		if d := editDistance(s, c); d < distance && 2*d < len(c) {
			best, distance = c, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete, replace or swap with their
// neighbour (optimal string alignment).
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64 // no misspelling of ours
	}
	previous, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], previous[j-2]+1)
			}
		}
		previous, row, next = row, next, previous
	}
	return row[len(b)]
}
