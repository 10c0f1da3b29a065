// Package confdoc writes the tables of a configuration reference: a row for each
// key of the struct that the file is read into. The key is put together of yaml
// tags, the type is by the field's, the default by SetDefaults, and the meaning is
// the comment above the field, as Markdown:
//
//	// how long a tag is answered without asking upstream
//	TagTTL Duration `yaml:"tag_ttl"`
//
// A default that follows from other things is told in words at the comment's end,
// and takes the place of the value in the table, in parentheses:
//
//	// tried in this order
//	// Default: `https://NAME`
//	URLs []URL `yaml:"urls"`
//
// Where a struct serves at several places, the comments of its fields are for all of
// them. What is different at one is told above the field that leads there, in lines
// that begin with a dot and the key from there on. `.*` is all keys that have no line
// of their own, and each * in its text stands for the key:
//
//	// .*: as `node.limits.*`
//	// .min_rate: none at an origin
//	Limits LimitsConfig `yaml:"limits"`
//
// Where such lines stand above one another, the outermost holds. A key without a
// meaning is an error, as is a line for a key that is not there, and a meaning above
// a field that only leads to other keys: nobody would read it.
//
// The document keeps its own words around the tables. Each table stands between
// two comments, of which the first names the keys below which it has everything that no
// table of longer names has:
//
//	<!-- generated: log admin -->
//	<!-- end -->
package confdoc

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Key is a row.
type Key struct {
	Path    string // node.upstreams.NAME.urls: NAME stands for any, [] for each of a list
	Kind    string // what its values are, in words
	Default string // as it would be written in the file; in parentheses if it is words; "" without one
	Meaning string // Markdown, on one line
}

func (k Key) row() string {
	value := k.Default
	if value != "" && !strings.HasPrefix(value, "(") {
		value = "`" + value + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", k.Path, k.Kind, value, strings.ReplaceAll(k.Meaning, "|", `\|`))
}

// Tables returns the document with its tables made of keys, each of which has to
// belong to one.
func Tables(document string, keys []Key) (string, error) {
	table := regexp.MustCompile(`(?s)(<!-- generated: ([a-z_. ]+) -->\n).*?(<!-- end -->)`)
	var names []string
	for _, m := range table.FindAllStringSubmatch(document, -1) {
		names = append(names, strings.Fields(m[2])...)
	}
	rows, problems := map[string]string{}, []error(nil)
	for _, key := range keys {
		name := tableOf(key.Path, names)
		if name == "" {
			problems = append(problems, fmt.Errorf("%s belongs to no table of the document: add <!-- generated: %[1]s --> and <!-- end -->", key.Path))
		}
		rows[name] += key.row()
	}
	for _, name := range names {
		if rows[name] == "" {
			problems = append(problems, fmt.Errorf("the document has a table of %s: there are no such keys", name))
		}
	}
	return table.ReplaceAllStringFunc(document, func(old string) string {
		m := table.FindStringSubmatch(old)
		var text strings.Builder
		text.WriteString(m[1] + "\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n")
		for name := range strings.FieldsSeq(m[2]) {
			text.WriteString(rows[name])
		}
		text.WriteString("\n" + m[3])
		return text.String()
	}), errors.Join(problems...)
}

// tableOf is the longest of names that path begins with, by elements.
func tableOf(path string, names []string) string {
	longest := ""
	for _, name := range names {
		within := path == name || strings.HasPrefix(path, name+".") || strings.HasPrefix(path, name+"[]")
		if within && len(name) > len(longest) {
			longest = name
		}
	}
	return longest
}
