package config

import (
	"path"
	"slices"

	"go.yaml.in/yaml/v3"
)

// manifest is what names the ends of a project's promotion: the manifest of a
// thin tree, or that part of a plain file.
type manifest struct {
	source       string
	destinations []endpoint
	prune        bool
	pruneLine    int
	mutableTags  []string
	imagesPath   string
	imagesLine   int
}

// endpoint is a registry or store that a manifest names.
type endpoint struct {
	name string
	line int
}

// section says how a kind's manifests are spelt.
type section struct {
	kind     Kind
	ends     string // key of the list of registries or stores
	end      string // key of its name
	list     string // key of the list of images or files in a plain file
	manifest string // name of a thin tree's manifest
	// folders of a thin tree: of the manifests, and of the lists.
	manifests, lists string
	parse            func(g *grammar, s string) (string, error)
}

func sectionOf(k Kind) section {
	if k == Files {
		return section{
			kind: Files, ends: "filestores", end: "base", list: "files", manifest: "filepromoter-manifest.yaml",
			manifests: "filestores", lists: "manifests",
			parse: func(_ *grammar, s string) (string, error) { return parseStore(s) },
		}
	}
	return section{
		kind: Images, ends: "registries", end: "name", list: "images", manifest: "promoter-manifest.yaml",
		manifests: "manifests", lists: "images",
		parse: (*grammar).registry,
	}
}

// readManifest reads the keys of a manifest. list is called for the value of
// the list's key, where the file may have one (plain files). The result is nil
// when the project cannot be promoted as it stands, which is reported.
func (r *report) readManifest(g *grammar, root *yaml.Node, s section, list func(*yaml.Node)) *manifest {
	what := "the manifest"
	known := []string{s.ends, "prune", "mutable_tags"}
	if list != nil {
		what = "the file"
		known = append(known, s.list)
	} else if s.kind == Images {
		known = append(known, "imagesPath")
	}
	if root == nil {
		if !r.bad() {
			r.add(0, "the file is empty; want %s:", s.ends)
		}
		return nil
	}
	m := &manifest{}
	var ends *yaml.Node
	good := r.keys(root, what, known, func(key string, value *yaml.Node) {
		switch key {
		case s.ends:
			ends = value
		case "prune":
			m.prune, _ = r.boolean(value, "prune")
			m.pruneLine = value.Line
		case "mutable_tags":
			m.mutableTags = r.patterns(value)
		case "imagesPath":
			m.imagesPath, _ = r.text(value, "imagesPath")
			m.imagesLine = value.Line
		case s.list:
			list(value)
		}
	})
	if ends == nil {
		if good {
			r.add(root.Line, "%s has no %s:; the project is set aside", what, s.ends)
		}
		return nil
	}
	if !r.readEnds(g, ends, s, m) || !good {
		return nil
	}
	return m
}

// readEnds reads the registries or file stores into m. A bad destination is set
// aside; without one source and one destination there is no promotion.
func (r *report) readEnds(g *grammar, n *yaml.Node, s section, m *manifest) bool {
	items, ok := r.items(n, s.ends)
	if !ok {
		return false
	}
	var sources []endpoint
	var flawed bool
	lines := map[string]int{}
	for _, item := range items {
		end, source, ok := r.readEnd(g, item, s)
		switch {
		case !ok:
			flawed = true
		case source:
			sources = append(sources, end)
		case lines[end.name] != 0:
			r.notice(end.line, "destination %s is listed already, on line %d", end.name, lines[end.name])
		default:
			lines[end.name] = end.line
			m.destinations = append(m.destinations, end)
		}
	}
	switch {
	case len(sources) == 0 && flawed:
		return false // the source may be what is flawed: that is said already
	case len(sources) == 0:
		r.add(n.Line, "no one of the %s has src: true; want one source; the project is set aside", s.ends)
		return false
	case len(sources) > 1:
		r.add(sources[1].line, "%s is a second source, after %s on line %d; want one; the project is set aside",
			sources[1].name, sources[0].name, sources[0].line)
		return false
	}
	m.source = sources[0].name
	m.destinations = slices.DeleteFunc(m.destinations, func(d endpoint) bool {
		if d.name != m.source {
			return false
		}
		r.add(d.line, "destination %s is the source as well; the destination is set aside", d.name)
		return true
	})
	if len(m.destinations) == 0 {
		if !r.bad() {
			r.add(n.Line, "the %s have no destination, only a source; the project is set aside", s.ends)
		}
		return false
	}
	return true
}

// readEnd reads one registry or file store.
func (r *report) readEnd(g *grammar, item *yaml.Node, s section) (end endpoint, source, ok bool) {
	known := []string{s.end, "src", "service-account"}
	var name *yaml.Node
	ok = true
	good := r.keys(item, "an item of "+s.ends, known, func(key string, value *yaml.Node) {
		switch key {
		case s.end:
			name = value
		case "src":
			source, ok = r.boolean(value, "src")
		case "service-account":
			// Known to other promoters; our credentials are not in the tree.
			if _, plain := r.text(value, key); !plain {
				ok = false
			}
		}
	})
	if !good || !ok {
		return end, source, false
	}
	if name == nil {
		r.add(item.Line, "an item of %s has no %s:; it is set aside", s.ends, s.end)
		return end, source, false
	}
	text, ok := r.text(name, s.end)
	if !ok {
		return end, source, false
	}
	noun := "registry"
	if s.kind == Files {
		noun = "file store"
	}
	if hasCredentials(text) { // which are not to be repeated in a log
		r.add(name.Line, "a %s has credentials in its name; they do not belong into the configuration; it is set aside", noun)
		return end, source, false
	}
	parsed, err := s.parse(g, text)
	if err != nil {
		r.add(name.Line, "%s %s %v; it is set aside", noun, quote(text), err)
		return end, source, false
	}
	return endpoint{name: parsed, line: name.Line}, source, true
}

// patterns reads mutable_tags.
func (r *report) patterns(n *yaml.Node) []string {
	items, _ := r.items(n, "mutable_tags")
	var patterns []string
	for _, item := range items {
		text, ok := r.text(item, "a pattern of mutable_tags")
		if !ok {
			continue
		}
		if _, err := path.Match(text, ""); err != nil || text == "" {
			r.add(item.Line, "%s in mutable_tags is no pattern: want a tag in which * and ? stand for others; it is set aside", quote(text))
			continue
		}
		patterns = append(patterns, text)
	}
	return patterns
}
