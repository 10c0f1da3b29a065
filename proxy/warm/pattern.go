package warm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"entrepot/registry/access"
)

// Pattern selects names of one upstream: those that it writes out, or those that its
// wildcards mean.
type Pattern struct {
	text     string
	Upstream string
	// File says that it is about files.
	File bool

	name access.Pattern // repositories, or paths
	tag  access.Pattern // of images
	// plain is the name, tag the reference, where they have no wildcard; "" where
	// they have.
	plainName, plainTag string
}

// ParseImages reads a pattern of images: upstream/repository:tag, in which "*" stands
// for any text within an element, and "**" for elements of the repository. Without a
// tag, latest is meant; a digest may stand in for a tag.
func ParseImages(text string) (Pattern, error) {
	p := Pattern{text: text}
	upstream, rest, ok := strings.Cut(text, "/")
	if !ok || upstream == "" || rest == "" || !strings.ContainsAny(upstream, ".:") && upstream != "localhost" || strings.Contains(upstream, "*") {
		return p, fmt.Errorf("%q does not begin with an upstream: want one such as registry.k8s.io/kube-*:v1.3*", text)
	}
	repo, tag := rest, "latest"
	if name, digest, ok := strings.Cut(rest, "@"); ok {
		repo, tag = name, digest
	} else if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		repo, tag = rest[:i], rest[i+1:]
	}
	p.Upstream = upstream
	var err error
	if p.name, err = access.ParsePattern(repo); err != nil {
		return p, err
	}
	if p.tag, err = access.ParsePattern(tag); err != nil {
		return p, err
	}
	if !strings.Contains(tag, "*") {
		p.plainTag = tag
	}
	if strings.Contains(repo, "*") {
		return p, nil
	}
	// As clients mean it: docker.io/nginx is docker.io/library/nginx.
	item, err := ParseName(upstream+"/"+repo, nil)
	if err != nil {
		return p, err
	}
	p.plainName = item.Repository
	if p.plainTag != "" {
		_, err = ParseName(text, nil)
	}
	return p, err
}

// ParseFiles reads a pattern of files: server/path.
func ParseFiles(text string) (Pattern, error) {
	p := Pattern{text: text, File: true}
	server, path, ok := strings.Cut(text, "/")
	if !ok || server == "" || path == "" || strings.Contains(server, "*") {
		return p, fmt.Errorf("%q does not begin with a server of files: want one such as dl.k8s.io/release/v1.36.*/bin/linux/amd64/kubectl", text)
	}
	p.Upstream = server
	var err error
	if p.name, err = access.ParsePattern(path); err != nil {
		return p, err
	}
	if !strings.Contains(path, "*") {
		p.plainName = path
	}
	return p, nil
}

// NeedsNames says whether only a list of all names of the upstream can tell what the
// pattern means: registries have none, and file servers neither; ledgers do.
func (p *Pattern) NeedsNames() bool { return p.plainName == "" }

// Names are what the upstream's names are known by.
type Names interface {
	// All are all names of an upstream, as "repository:tag" or paths, for the caller
	// to keep; false where nobody has a list of them.
	All(upstream string, files bool) (names []string, known bool)
	// Tags are the tags of a repository. Errors are those of asking.
	Tags(ctx context.Context, upstream, repository string) ([]string, error)
}

// errNoNames is of a pattern that cannot be resolved.
var errNoNames = errors.New("its upstream has no ledger: without one nobody can list its names, and only a tag may have a wildcard")

// Resolve are the names that a pattern means, at most limit of them: of tags and
// paths the highest, by the numbers in them. cut is how many more there were.
func (p *Pattern) Resolve(ctx context.Context, names Names, limit int) (items []Item, cut int, err error) {
	if p.plainName != "" && (p.File || p.plainTag != "") {
		return []Item{p.item(p.plainName, p.plainTag)}, 0, nil
	}
	all, known := names.All(p.Upstream, p.File)
	found := slices.DeleteFunc(all, func(name string) bool { return !p.matches(name) }) // "repository:tag", or paths
	switch {
	case p.plainName == "" && !known:
		return nil, 0, fmt.Errorf("%s: %w", p.text, errNoNames)
	case p.plainName != "" && len(found) == 0: // no ledger has heard of it
		tags, err := names.Tags(ctx, p.Upstream, p.plainName)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: listing the tags: %w", p.text, err)
		}
		for _, tag := range tags {
			if p.tag.Match(tag) {
				found = append(found, p.plainName+":"+tag)
			}
		}
	}
	slices.SortFunc(found, func(a, b string) int { return compareNumbers(b, a) })
	cut = max(0, len(found)-limit)
	for _, name := range found[:len(found)-cut] {
		repo, tag := name, ""
		if !p.File {
			repo, tag, _ = strings.Cut(name, ":")
		}
		items = append(items, p.item(repo, tag))
	}
	return items, cut, nil
}

// matches says whether a pattern means a name of a ledger. Names by digest are only
// meant when they are written out.
func (p *Pattern) matches(name string) bool {
	if p.File {
		return p.name.Match(name)
	}
	repo, tag, ok := strings.Cut(name, ":")
	if !ok || strings.Contains(repo, "@") {
		return false
	}
	if p.plainName != "" {
		return repo == p.plainName && p.tag.Match(tag)
	}
	return p.name.Match(repo) && p.tag.Match(tag)
}

func (p *Pattern) item(name, tag string) Item {
	if p.File {
		item := Item{Name: p.Upstream + "/" + name, Upstream: p.Upstream}
		item.Path = escapePath(name)
		return item
	}
	joint := ":"
	if strings.Contains(tag, ":") {
		joint = "@"
	}
	return Item{Name: p.Upstream + "/" + name + joint + tag, Upstream: p.Upstream, Repository: name, Reference: tag}
}

// compareNumbers orders names as people do: v1.9 before v1.10.
func compareNumbers(a, b string) int {
	for a != "" && b != "" {
		x, restA := leading(a)
		y, restB := leading(b)
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
		} else if c := cmp.Compare(x, y); c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return cmp.Compare(a, b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// leading cuts the digits, or what is none, from the beginning of a text.
func leading(text string) (first, rest string) {
	i := 1
	for i < len(text) && isDigit(text[i]) == isDigit(text[0]) {
		i++
	}
	return text[:i], text[i:]
}
