// Package yamlconf decodes a YAML configuration file strictly and reports
// everything that is wrong with it at once, each problem with its file and
// line: unknown keys (with the key that was probably meant), keys given twice,
// values of the wrong shape, variables that are not set.
//
// The Go types say what is allowed: structs with yaml tags, maps by name,
// lists, strings, booleans, whole numbers, and any type that reads itself from
// text. What the types cannot say, the caller checks afterwards and reports
// through the same [Document], so that those problems have lines as well.
//
// A value may refer to secrets as ${VAR} and ${file:PATH}. What they stand for
// never appears in a problem: problems quote the text of the file.
package yamlconf

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

// MaxSize bounds a configuration file, in bytes.
const MaxSize = 1 << 20

// Defaulter is implemented by pointers to structs whose fields have defaults.
// SetDefaults is called once on a new value, before the file is read into it.
type Defaulter interface{ SetDefaults() }

// Options say how to read a file.
type Options struct {
	// Name is the file's name in problems.
	Name string
	// Env looks up the variable of a ${VAR}, as os.LookupEnv does.
	Env func(name string) (string, bool)
	// ReadFile reads the file of a ${file:PATH}. A newline at its end is cut.
	ReadFile func(path string) ([]byte, error)
	// Refused maps the path of a key ("node.files") to the reason it cannot
	// be used; such keys are not listed as known.
	Refused map[string]string
}

// Problem is one thing wrong in a file.
type Problem struct {
	File    string
	Line    int // from 1
	Message string
}

func (p Problem) Error() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message) }

// Problems is everything wrong in a file, in the order of its lines. It is
// never empty as an error.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Document is a file that was read: where its keys are, and what is wrong.
type Document struct {
	opts     Options
	lines    map[string]int // path of a key → line
	failed   []string       // paths that could not be read
	hidden   []string       // what references stand for, each with its reference
	problems Problems
}

// Decode reads data into v, a pointer to a struct. Problems are collected in
// the document; v holds whatever could be read.
func Decode(data []byte, v any, opts Options) *Document {
	doc := &Document{opts: opts, lines: map[string]int{"": 1}}
	root := doc.parse(data)
	d := decoder{doc}
	d.root(root, v)
	return doc
}

// Err returns the problems found so far as [Problems], or nil.
func (doc *Document) Err() error {
	if len(doc.problems) == 0 {
		return nil
	}
	sorted := slices.Clone(doc.problems)
	slices.SortStableFunc(sorted, func(a, b Problem) int { return a.Line - b.Line })
	return sorted
}

// Has reports whether the file has the key at path ("node.store.dir").
func (doc *Document) Has(path string) bool {
	_, ok := doc.lines[path]
	return ok
}

// Problemf reports that something is wrong with the key at path, on its line or
// that of the nearest key around it. It says nothing when the key, or one
// below it, could not be read: the new problem is most likely a consequence. It
// shows references as they were written.
func (doc *Document) Problemf(path, format string, args ...any) {
	for _, bad := range doc.failed {
		if rest, below := strings.CutPrefix(bad, path); below && (path == "" || rest == "" || rest[0] == '.' || rest[0] == '[') {
			return
		}
	}
	doc.add(doc.line(path), strings.NewReplacer(doc.hidden...).Replace(fmt.Sprintf(format, args...)))
}

func (doc *Document) line(path string) int {
	for {
		if line, ok := doc.lines[path]; ok {
			return line
		}
		// Names of map entries hold dots themselves, so this may pass
		// through paths that are no key; it ends at "", which always is.
		path = path[:max(0, strings.LastIndexByte(path, '.'))]
	}
}

// report adds a problem that was found while reading.
func (doc *Document) report(path string, line int, message string) {
	doc.failed = append(doc.failed, path)
	doc.add(line, message)
}

func (doc *Document) add(line int, message string) {
	doc.problems = append(doc.problems, Problem{doc.opts.Name, max(1, line), message})
}

// parse returns the root of the only YAML document in data, or nil when there
// is none.
func (doc *Document) parse(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		doc.report("", 1, fmt.Sprintf("the file has %d bytes; a configuration may have %d", len(data), MaxSize))
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root, next yaml.Node
	if err := dec.Decode(&root); err != nil {
		if !errors.Is(err, io.EOF) {
			doc.syntax(err)
		}
		return nil
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		doc.report("", next.Line, "a second document begins here; keep one, without ---")
	case !errors.Is(err, io.EOF):
		doc.syntax(err)
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) == 0 {
		return nil
	}
	return root.Content[0]
}

// syntax reports an error of the YAML parser, which names its line in the text
// only, and not always.
func (doc *Document) syntax(err error) {
	message, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := regexp.MustCompile(`^line (\d+): (.*)$`).FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = m[2]
	}
	doc.report("", line, "not valid YAML: "+message)
}
