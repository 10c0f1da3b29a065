package mirror

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"entrepot/promote/ledger"
	"entrepot/registry/access"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/semver"
)

// Rule selects names. Where it says nothing about something, that does not matter.
type Rule struct {
	// Projects are patterns of the projects that promoted a name.
	Projects []access.Pattern
	// Images are patterns of repositories and Files of paths, each with or without the
	// upstream's name before it. A rule that has only one of them selects names of that
	// kind only.
	Images, Files []access.Pattern
	// Newest is how many versions are selected of each repository, or of each folder
	// that has versions below it: those that are highest by semantic versioning, each
	// with its candidates and variants. Names without a version are all selected. 0 is
	// no bound.
	Newest int
}

// Upstream is one of the node's upstreams whose names are to be held.
type Upstream struct {
	Name string
	Kind ledger.Kind
	// Ledger is what it follows, and Names what the upstream is called there; see
	// [proxy.LedgerConfig].
	Ledger Ledger
	Names  []string
}

// Name is a name that is selected.
type Name struct {
	Upstream string
	Kind     ledger.Kind
	// Path is the name below the upstream: "coredns/coredns:v1.9.3",
	// "pause@sha256:…", "release/v1.36.0/bin/linux/amd64/kubectl".
	Path    string
	Digest  digest.Digest
	Size    int64 // bytes, of the manifest or the file; 0 when it is not known
	Project string
}

// String is the name as clients of the node write it.
func (n *Name) String() string { return n.Upstream + "/" + n.Path }

// repository is the part of an image's path before its tag or digest.
func (n *Name) repository() string {
	if at := strings.IndexAny(n.Path, ":@"); at >= 0 {
		return n.Path[:at]
	}
	return n.Path
}

// All are all names that the upstream has by a state of its ledger. What is revoked
// nobody can have.
func (u *Upstream) All(s *ledger.State) []Name {
	var names []Name
	for path, e := range s.NamesBelow(u.Kind, u.Names) {
		if _, revoked := s.Revoked(e.Digest); !revoked {
			names = append(names, Name{Upstream: u.Name, Kind: u.Kind, Path: path, Digest: e.Digest, Size: e.Size, Project: e.Project})
		}
	}
	return names
}

// choose are the names that any of the rules selects; without rules all.
func choose(rules []Rule, names []Name) []Name {
	if len(rules) == 0 {
		return names
	}
	chosen := make([]bool, len(names))
	for i := range rules {
		rules[i].mark(names, chosen)
	}
	var selected []Name
	for i := range names {
		if chosen[i] {
			selected = append(selected, names[i])
		}
	}
	return selected
}

// mark marks the names that the rule selects.
func (r *Rule) mark(names []Name, chosen []bool) {
	groups := map[string][]versioned{}
	for i := range names {
		n := &names[i]
		if !r.matches(n) {
			continue
		}
		group, version := n.version()
		if r.Newest == 0 || version == "" {
			chosen[i] = true
			continue
		}
		group = string(n.Kind) + " " + n.Upstream + " " + group
		groups[group] = append(groups[group], versioned{version, i})
	}
	for _, group := range groups {
		slices.SortFunc(group, func(a, b versioned) int {
			return cmp.Or(semver.Compare(b.version, a.version), cmp.Compare(a.index, b.index))
		})
		distinct := 0
		for i, v := range group {
			if i == 0 || semver.Compare(v.version, group[i-1].version) != 0 {
				distinct++
			}
			if distinct > r.Newest {
				break
			}
			chosen[v.index] = true
		}
	}
}

// versioned is a name with its version.
type versioned struct {
	version string // in canonical form
	index   int
}

func (r *Rule) matches(n *Name) bool {
	if len(r.Projects) > 0 && !anyMatches(r.Projects, n.Project) {
		return false
	}
	if len(r.Images)+len(r.Files) == 0 {
		return true
	}
	patterns, name := r.Files, n.Path
	if n.Kind == ledger.Image {
		patterns, name = r.Images, n.repository()
	}
	return anyMatches(patterns, name) || anyMatches(patterns, n.Upstream+"/"+name)
}

func anyMatches(patterns []access.Pattern, name string) bool {
	return slices.ContainsFunc(patterns, func(p access.Pattern) bool { return p.Match(name) })
}

// version is what version a name is of, and of what: "v1.9.3" of the repository
// coredns/coredns, "v1.36.0" of the folder release. It is empty where there is none.
func (n *Name) version() (of, version string) {
	if n.Kind == ledger.Image {
		repo := n.repository()
		return repo, canonical(strings.TrimPrefix(n.Path[len(repo):], ":"))
	}
	folder := ""
	for element := range strings.SplitSeq(n.Path, "/") {
		if v := canonical(element); v != "" && len(folder)+len(element) < len(n.Path) {
			return folder, v
		}
		folder += element + "/"
	}
	return "", ""
}

// canonical is the version that a tag or a folder is of, "v" and three numbers; empty
// when it is none. Candidates and variants, what follows a "-" or a "+", belong to the
// version that they are of.
func canonical(text string) string {
	if !strings.HasPrefix(text, "v") {
		text = "v" + text
	}
	if end := strings.IndexAny(text, "-+"); end >= 0 {
		text = text[:end]
	}
	return semver.Canonical(text)
}

// ParseRule reads the patterns of a rule. Errors name the pattern.
func ParseRule(projects, images, files []string, newest int) (Rule, error) {
	r := Rule{Newest: newest}
	if newest < 0 {
		return r, fmt.Errorf("newest is %d: want a number of versions, or 0 for all", newest)
	}
	for _, list := range []struct {
		texts []string
		into  *[]access.Pattern
	}{{projects, &r.Projects}, {images, &r.Images}, {files, &r.Files}} {
		for _, text := range list.texts {
			p, err := access.ParsePattern(text)
			if err != nil {
				return r, err
			}
			*list.into = append(*list.into, p)
		}
	}
	return r, nil
}
