package warm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"go.yaml.in/yaml/v3"
)

// MaxList bounds a list, in bytes.
const MaxList = 64 << 20

// Problem is what cannot be read in a list.
type Problem struct {
	Line int // from 1
	Text string
	Err  error
}

func (p Problem) Error() string {
	return fmt.Sprintf("line %d: %s: %v", p.Line, p.Text, p.Err)
}

// List is what a list names, each name once, in its order.
type List struct {
	Items    []Item
	Problems []Problem

	isFile func(server string) bool
	known  map[Item]bool
}

// ReadList reads a list of names: a name on each line, with comments after "#", as
// "kubeadm config images list" writes it; or manifests of Kubernetes, in YAML or
// JSON, in which every image is taken, of whatever kind of object. An image is a
// name as clients write it. A file is a URL, or a path that begins with a server of
// files, which isFile tells. The error is of reading.
func ReadList(r io.Reader, isFile func(server string) bool) (*List, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxList+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxList {
		return nil, fmt.Errorf("the list has more than %d bytes", MaxList)
	}
	l := &List{isFile: isFile, known: map[Item]bool{}}
	if isManifest(text) {
		l.manifests(text)
	} else {
		l.lines(text)
	}
	return l, nil
}

// isManifest says whether a list is YAML or JSON: its first line that says something
// begins an object or a document.
func isManifest(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if line[0] == '{' || bytes.HasPrefix(line, []byte("---")) {
			return true
		}
		break
	}
	return regexp.MustCompile(`(?m)^(- )?\s*(apiVersion|kind|image|images)\s*:(\s|$)`).Match(text)
}

// klogLine is a line of Kubernetes' own logs, which comes along where somebody
// saved both outputs of a command.
var klogLine = regexp.MustCompile(`^[IWEF]\d{4} \d\d:\d\d:\d\d`)

func (l *List) lines(text []byte) {
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line, _, _ = strings.Cut(" "+line, " #")
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(strings.TrimPrefix(line, " #")), "- "))
		if line == "" || klogLine.MatchString(line) {
			continue
		}
		l.add(number, strings.Trim(line, `"'`))
	}
}

// add takes a name into the list, unless it is there.
func (l *List) add(line int, name string) {
	item, err := ParseName(name, l.isFile)
	if err != nil {
		l.Problems = append(l.Problems, Problem{Line: line, Text: name, Err: err})
		return
	}
	key := item
	key.Name = ""
	if !l.known[key] {
		l.known[key] = true
		l.Items = append(l.Items, item)
	}
}

// ParseName reads the name of an image or of a file: see [ReadList].
func ParseName(name string, isFile func(server string) bool) (Item, error) {
	item := Item{Name: name}
	bare := strings.TrimPrefix(strings.TrimPrefix(name, "oci://"), "docker://")
	server, path, isPath := strings.Cut(bare, "/")
	switch {
	case strings.HasPrefix(bare, "http://"), strings.HasPrefix(bare, "https://"):
		u, err := url.Parse(bare)
		if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") == "" || u.RawQuery != "" {
			return item, errors.New("it is no URL of a file: want one such as https://dl.k8s.io/release/stable.txt")
		}
		item.Upstream, item.Path = u.Host, strings.TrimPrefix(u.EscapedPath(), "/")
		return item, nil
	case isPath && path != "" && isFile != nil && isFile(server):
		item.Upstream, item.Path = server, escapePath(path)
		return item, nil
	}
	named, err := reference.ParseNormalizedNamed(bare)
	if err != nil {
		return item, fmt.Errorf("it is no name of an image: %w", err)
	}
	named = reference.TagNameOnly(named)
	item.Upstream, item.Repository = reference.Domain(named), reference.Path(named)
	switch r := named.(type) {
	case reference.Digested:
		item.Reference = r.Digest().String()
	case reference.Tagged:
		item.Reference = r.Tag()
	}
	return item, nil
}

// unrendered is what most lists of YAML that cannot be read are.
const unrendered = "a chart has to be rendered first (helm template)"

// manifests reads documents of YAML, one after another. One that cannot be read
// ends the list: where it ends is not known.
func (l *List) manifests(text []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			line := 0
			if m := regexp.MustCompile(`line (\d+)`).FindStringSubmatch(err.Error()); m != nil {
				_, _ = fmt.Sscan(m[1], &line) // digits
			}
			l.Problems = append(l.Problems, Problem{Line: line, Text: "not valid YAML", Err: errors.New(strings.TrimPrefix(err.Error(), "yaml: ") + "; " + unrendered)})
			return
		}
		l.node(&document)
	}
}

// node takes every image in a tree of YAML. What an alias stands for was seen where
// it was written.
func (l *List) node(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		for _, child := range n.Content {
			l.node(child)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, n.Content[i+1]
		switch {
		case key == "image" && value.Kind == yaml.ScalarNode:
			l.scalar(value)
		case key == "image" && value.Kind == yaml.MappingNode:
			l.imageVolume(value)
		case key == "images" && value.Kind == yaml.SequenceNode: // of kubeadm, in JSON or YAML
			for _, child := range value.Content {
				if child.Kind == yaml.ScalarNode {
					l.scalar(child)
				} else {
					l.node(child)
				}
			}
		default:
			l.node(value)
		}
	}
}

func (l *List) scalar(n *yaml.Node) {
	if n.Value != "" && n.Tag != "!!null" {
		l.add(n.Line, n.Value)
	}
}

// imageVolume takes the image of a volume ("image: {reference: …}"); other objects
// of that name may have images below.
func (l *List) imageVolume(n *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind != yaml.ScalarNode { // "{{ … }}" is YAML, of a kind
			l.Problems = append(l.Problems, Problem{Line: n.Line, Text: "image", Err: errors.New("it is no name: " + unrendered)})
			return
		}
		if n.Content[i].Value == "reference" && n.Content[i+1].Kind == yaml.ScalarNode {
			l.scalar(n.Content[i+1])
			return
		}
	}
	l.node(n)
}

// escapePath is a decoded path as clients send it.
func escapePath(path string) string { return (&url.URL{Path: path}).EscapedPath() }
