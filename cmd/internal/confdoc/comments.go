package confdoc

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
)

// comment is what stands above a field.
type comment struct {
	meaning  string            // of the field's own key, on one line
	standard string            // the default, if it is told in words
	below    map[string]string // meanings of keys below, of which * is all others
}

// comments reads what stands above the fields of the structs in the Go files of a
// directory, by names such as NodeConfig.Listen.
func comments(dir string) (map[string]comment, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	found := map[string]comment{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("reading the comments of fields: %w", err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if fields, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range fields.Fields.List {
					for _, name := range field.Names {
						found[spec.Name.Name+"."+name.Name] = parseComment(field.Doc.Text())
					}
				}
			}
			return true
		})
	}
	return found, nil
}

// parseComment takes a comment apart, whose lines may be broken anywhere.
func parseComment(text string) comment {
	begin := regexp.MustCompile(`^\.([A-Za-z0-9_.\[\]]+|\*): (.*)$`)
	var c comment
	into, key := []string(nil), ""
	finish := func() {
		if key != "" {
			c.below[key] = strings.Join(into, " ")
		} else {
			c.meaning, c.standard = withDefault(strings.Join(into, " "))
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := begin.FindStringSubmatch(line); m != nil {
			finish()
			if c.below == nil {
				c.below = map[string]string{}
			}
			into, key, line = nil, m[1], m[2]
		}
		if line != "" {
			into = append(into, line)
		}
	}
	finish()
	return c
}

// withDefault splits the default off a meaning.
func withDefault(text string) (meaning, standard string) {
	meaning, standard, _ = strings.Cut(text, " Default: ")
	return meaning, standard
}
