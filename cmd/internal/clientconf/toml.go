package clientconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/pelletier/go-toml/v2"
)

// statement is one of a TOML file's: a key with its value, or the header of a
// table, over as many lines as it takes. Comments and empty lines are none.
type statement struct {
	start, end int // offsets of its first line and of the line after it
	header     bool
}

// statements finds the statements of a valid TOML file. All it has to know is
// where a line does not end one: within brackets and strings of several lines.
func statements(text []byte) []statement {
	var all []statement
	for at := 0; at < len(text); {
		start := at
		at = statementEnd(text, start)
		first := bytes.TrimLeft(text[start:at], " \t\r\n")
		if len(first) == 0 || first[0] == '#' {
			continue
		}
		all = append(all, statement{start: start, end: at, header: first[0] == '['})
	}
	return all
}

// statementEnd is the offset of the line after the statement that begins at an
// offset.
func statementEnd(text []byte, at int) int {
	depth := 0
	for at < len(text) {
		switch c := text[at]; c {
		case '#':
			if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
				at += i
				continue
			}
			return len(text)
		case '\n':
			if depth == 0 {
				return at + 1
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '"', '\'':
			at = stringEnd(text, at)
			continue
		}
		at++
	}
	return len(text)
}

// stringEnd is the offset behind the string that begins at an offset.
func stringEnd(text []byte, at int) int {
	quote := text[at : at+1]
	if triple := bytes.Repeat(quote, 3); bytes.HasPrefix(text[at:], triple) {
		quote = triple
	}
	for i := at + len(quote); i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote[0] == '"':
			i++
		case bytes.HasPrefix(text[i:], quote):
			i += len(quote)
			for len(quote) == 3 && i < len(text) && text[i] == quote[0] {
				i++ // a quote or two may come before the three that end it
			}
			return i
		}
	}
	return len(text)
}

// firstTable is the offset before the first table and the comments right above
// it: what is put there comes before all tables, and after the keys that are in
// none.
func firstTable(text []byte) int {
	end := 0 // of the keys that are in no table
	for _, s := range statements(text) {
		if s.header {
			return aboveComments(text, end, s.start)
		}
		end = s.end
	}
	return len(text)
}

// aboveComments is the offset before the comment lines right above an offset,
// not before least.
func aboveComments(text []byte, least, at int) int {
	for at > least {
		line := bytes.LastIndexByte(text[:at-1], '\n') + 1
		if line < least || !bytes.HasPrefix(bytes.TrimLeft(text[line:at], " \t"), []byte("#")) {
			break
		}
		at = line
	}
	return at
}

// parseTOML reads a file. The error says where it is not TOML.
func parseTOML(text []byte) (map[string]any, error) {
	tree := map[string]any{}
	if err := toml.Unmarshal(text, &tree); err != nil {
		if d, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, column := d.Position()
			return nil, fmt.Errorf("line %d, column %d is not valid TOML, so that nothing can be added: %w", row, column, err)
		}
		return nil, fmt.Errorf("it is not valid TOML, so that nothing can be added: %w", err)
	}
	return tree, nil
}

// table is the table at a path of keys, nil when there is none.
func table(tree map[string]any, path ...string) map[string]any {
	for _, key := range path {
		tree, _ = tree[key].(map[string]any) // nil has no keys either
	}
	return tree
}

// tableOf is the statement with the header of the table at a path of keys, and
// those after it that are the table's; nil when no header names it.
func tableOf(text []byte, path ...string) []statement {
	all := statements(text)
	for i, s := range all {
		if !s.header || !names(text[s.start:s.end], path) {
			continue
		}
		end := i + 1
		for end < len(all) && !all[end].header {
			end++
		}
		return all[i:end]
	}
	return nil
}

// names says whether a header is that of the table at a path of keys.
func names(header []byte, path []string) bool {
	tree, err := parseTOML(header)
	if err != nil {
		return false
	}
	for _, key := range path {
		next, ok := tree[key].(map[string]any)
		if !ok {
			return false
		}
		tree = next
	}
	return len(tree) == 0
}

// quote writes a string as TOML reads it. JSON's strings are TOML's, too.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings can be written
	}
	return string(b)
}

var errShape = errors.New("it is written in a way that nothing can be added to by a line; add it by hand")

// checkTOML says whether a merged file is what the old one was, but for what
// undo takes out of both.
func checkTOML(old, merged []byte, without func(tree map[string]any)) error {
	before, err := parseTOML(old)
	if err != nil {
		return err
	}
	after, err := parseTOML(merged)
	if err != nil {
		return errShape
	}
	without(before)
	without(after)
	if !reflect.DeepEqual(before, after) {
		return errShape
	}
	return nil
}
