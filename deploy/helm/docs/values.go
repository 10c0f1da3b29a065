package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is a key of values.yaml.
type value struct {
	path    string // a.b.c; empty for the whole
	about   string // its comment, as one line
	node    *yaml.Node
	entries []value // in order; none of a leaf
}

// parseValues reads values.yaml. A mapping with keys is walked into unless a
// user may put any keys there, which openMaps says.
func parseValues(text []byte) (value, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return value{}, err
	}
	root := value{node: document.Content[0]}
	root.walk()
	return root, nil
}

func (v *value) walk() {
	if v.node.Kind != yaml.MappingNode || openMaps(v.path) {
		return
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, n := v.node.Content[i], v.node.Content[i+1]
		path := key.Value
		if v.path != "" {
			path = v.path + "." + path
		}
		entry := value{path: path, node: n, about: comment(key.HeadComment)}
		entry.walk()
		v.entries = append(v.entries, entry)
	}
}

// openMaps are those with defaults and room for more.
func openMaps(path string) bool {
	return path == "monitoring.dashboard.labels" || strings.HasSuffix(path, ".resources")
}

// comment is a comment's text as one line. Of several, separated by an empty
// line, the last one is about the key.
func comment(text string) string {
	blocks := strings.Split(text, "\n\n")
	var words []string
	for line := range strings.Lines(blocks[len(blocks)-1]) {
		words = append(words, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#")))
	}
	return strings.Join(words, " ")
}

// table is all values with defaults and meanings. Keys that are said once for
// the first role and are the same for another are not said again.
func table(root value) []byte {
	var b bytes.Buffer
	for _, section := range root.entries {
		if len(section.entries) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### `%s`\n\n", section.path)
		if section.about != "" {
			fmt.Fprintf(&b, "%s\n\n", section.about)
		}
		b.WriteString("| value | default | meaning |\n| --- | --- | --- |\n")
		rows(&b, section.entries)
	}
	var plain []value
	for _, v := range root.entries {
		if len(v.entries) == 0 {
			plain = append(plain, v)
		}
	}
	b.WriteString("\n### For all\n\n| value | default | meaning |\n| --- | --- | --- |\n")
	rows(&b, plain)
	return b.Bytes()
}

func rows(b *bytes.Buffer, values []value) {
	for _, v := range values {
		if len(v.entries) > 0 {
			if v.about != "" {
				fmt.Fprintf(b, "| `%s` |  | %s |\n", v.path, v.about)
			}
			rows(b, v.entries)
			continue
		}
		fmt.Fprintf(b, "| `%s` | `%s` | %s |\n", v.path, v.text(), v.about)
	}
}

// text is the default in one line.
func (v value) text() string {
	if v.node.Kind == yaml.ScalarNode && v.node.Value == "" {
		return `""`
	}
	var decoded any
	if err := v.node.Decode(&decoded); err != nil {
		return v.node.Value
	}
	if s, ok := decoded.(string); ok {
		return s
	}
	text, err := json.Marshal(decoded)
	if err != nil {
		return v.node.Value
	}
	return string(text)
}
