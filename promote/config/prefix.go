package config

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// A project's own prefix. Production is one space of names that projects share
// by giving each a prefix: registry.k8s.io/coredns is coredns's. No file says
// which prefix is whose; three rules read it from the tree.
//
//  1. A prefix belongs to the project among those that list it as a destination
//     that is called like it, in whole ("coredns") or abbreviated ("npd" for
//     node-problem-detector). Nobody else's destination may be it or lie in it.
//  2. Where projects have prefixes side by side and at least half of them are
//     called like theirs, the others have to be as well.
//  3. A project that lists what prefixes lie side by side in ("registry.k8s.io"
//     itself) is top-level: rules 1 and 2 let it pass, since reviewers saw it
//     ask for more than a prefix. But its names must not lie in a prefix that
//     belongs to another project.

// claims are all destinations of a tree.
type claims struct {
	by     map[string][]*Project // destination → who lists it
	owners map[string]*Project   // destination → whose prefix it is, if anyone's
	parent map[string]bool       // what destinations lie directly in
	names  map[*Project][]string // what a project is called
}

// checkProjects compares the projects with each other.
func (t *Tree) checkProjects(manifests map[*Project]*manifest) {
	c := newClaims(t.Projects)
	for _, p := range t.Projects {
		c.checkDestinations(t, p, manifests[p])
	}
	t.Projects = slices.DeleteFunc(t.Projects, func(p *Project) bool { return len(p.Destinations) == 0 })
	c = newClaims(t.Projects)
	t.checkForeignNames(c)
	t.checkSharedNames(c)
	t.checkRevoked()
}

func newClaims(projects []*Project) *claims {
	c := &claims{
		by: map[string][]*Project{}, owners: map[string]*Project{}, parent: map[string]bool{}, names: map[*Project][]string{},
	}
	for _, p := range projects {
		c.names[p] = calledLike(p)
		for _, d := range p.Destinations {
			c.by[d] = append(c.by[d], p)
			if above, _ := split(d); above != "" {
				c.parent[above] = true
			}
		}
	}
	for d, by := range c.by {
		c.owners[d] = c.ownerAmong(d, by)
	}
	return c
}

// calledLike is what a project may call its prefix: its folder, or an element
// of its source, without what marks it as staging.
func calledLike(p *Project) []string {
	_, below, _ := strings.Cut(strings.TrimPrefix(p.Source, schemeOf(p.Source)), "/")
	if p.Kind == Files {
		below = strings.TrimPrefix(p.Source, schemeOf(p.Source))
	}
	names := []string{unstaged(p.Name)}
	for element := range strings.SplitSeq(below, "/") {
		names = append(names, unstaged(element))
	}
	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}

func unstaged(s string) string {
	if _, after, found := strings.Cut(s, "staging-"); found {
		return after
	}
	return strings.TrimSuffix(s, "-staging")
}

func schemeOf(s string) string {
	if i := strings.Index(s, "://"); i >= 0 {
		return s[:i+len("://")]
	}
	return ""
}

// split is a destination's last element and what it lies in; above is empty
// for a whole host, bucket or file system.
func split(d string) (above, last string) {
	scheme := schemeOf(d)
	i := strings.LastIndexByte(d[len(scheme):], '/')
	if i <= 0 {
		return "", d[len(scheme):]
	}
	return d[:len(scheme)+i], d[len(scheme)+i+1:]
}

// ownerAmong is the one of several projects that is called like the prefix.
func (c *claims) ownerAmong(d string, by []*Project) *Project {
	_, last := split(d)
	for _, alike := range []func(name, last string) bool{isCalled, abbreviates} {
		var found []*Project
		for _, p := range by {
			if slices.ContainsFunc(c.names[p], func(name string) bool { return alike(name, last) }) {
				found = append(found, p)
			}
		}
		if len(found) == 1 {
			return found[0]
		}
	}
	return nil
}

func isCalled(name, last string) bool { return name == last }

// abbreviates says whether the letters of name come in last, in that order:
// "tg-exporter" in "testgrid-exporter".
func abbreviates(name, last string) bool {
	for i := range len(last) {
		if name != "" && name[0] == last[i] {
			name = name[1:]
		}
	}
	return name == ""
}

// ownNamed says whether any element of d after the host is called like p.
func (c *claims) ownNamed(p *Project, d string) bool {
	for above, last := split(d); above != ""; above, last = split(above) {
		if slices.ContainsFunc(c.names[p], func(name string) bool { return abbreviates(name, last) }) {
			return true
		}
	}
	return false
}

// topLevel says whether p lists something that holds d and other destinations.
func (c *claims) topLevel(p *Project, d string) bool {
	for above, _ := split(d); above != ""; above, _ = split(above) {
		if slices.Contains(c.by[above], p) && c.parent[above] && c.owners[above] != p {
			return true
		}
	}
	return false
}

// checkDestinations applies rules 1 and 2 to the destinations of p.
func (c *claims) checkDestinations(t *Tree, p *Project, m *manifest) {
	r := report{file: p.File, project: p.Name}
	thin := !slices.Contains(p.Lists, p.File)
	var kept []string
	for i, d := range p.Destinations {
		line := m.destinations[i].line
		owner, prefix := c.holder(p, d)
		above, _ := split(d)
		switch {
		case c.topLevel(p, d):
			kept = append(kept, d)
		case owner != nil:
			r.add(line, "destination %s is outside the project's own prefix: %s belongs to project %s (%s); the destination is set aside",
				d, prefix, owner.Name, owner.File)
		case thin && above != "" && !c.parent[d] && !c.ownNamed(p, d) && c.named(above):
			r.add(line, "destination %s is outside the project's own prefix: destinations in %s end in the name of their project, such as %s/%s; the destination is set aside",
				d, above, above, c.names[p][0])
		default:
			kept = append(kept, d)
		}
	}
	p.Destinations = kept
	if len(kept) == 0 {
		r.add(0, "no destination is left; the project is set aside")
	}
	t.Problems = append(t.Problems, r.problems...)
}

// holder is another project that owns a prefix which d is or lies in.
func (c *claims) holder(p *Project, d string) (owner *Project, prefix string) {
	for above := d; above != ""; above, _ = split(above) {
		if owner := c.owners[above]; owner != nil && owner != p {
			return owner, above
		}
	}
	return nil, ""
}

// named says whether the prefixes in above are called like their projects, for
// at least half of the projects that have one there.
func (c *claims) named(above string) bool {
	members, alike := map[*Project]bool{}, map[*Project]bool{}
	for d, by := range c.by {
		if in, _ := split(d); in != above {
			continue
		}
		for _, p := range by {
			if !slices.Contains(c.by[above], p) {
				members[p] = true
				if c.ownNamed(p, d) {
					alike[p] = true
				}
			}
		}
	}
	return 2*len(alike) >= len(members) && len(alike) > 0
}

// checkForeignNames applies rule 3: a name must not lie in another's prefix.
func (t *Tree) checkForeignNames(c *claims) {
	for _, p := range t.Projects {
		var wide []string // destinations that hold prefixes
		for _, d := range p.Destinations {
			if c.parent[d] {
				wide = append(wide, d)
			}
		}
		foreign := func(name string, at Position) bool {
			for _, d := range wide {
				for below := path.Dir(name); below != "."; below = path.Dir(below) {
					if owner := c.owners[d+"/"+below]; owner != nil && owner != p {
						t.note(p, at, "%s would stand in %s/%s, the prefix of project %s (%s); it is set aside", name, d, below, owner.Name, owner.File)
						return true
					}
				}
			}
			return false
		}
		if len(wide) > 0 {
			p.Images = slices.DeleteFunc(p.Images, func(i Image) bool { return foreign(i.Name, i.Position) })
			p.Files = slices.DeleteFunc(p.Files, func(f File) bool { return foreign(f.Name, f.Position) })
			p.Removed = slices.DeleteFunc(p.Removed, func(r Removal) bool { return foreign(r.Name, r.Position) })
		}
	}
}

func (t *Tree) note(p *Project, at Position, format string, args ...any) {
	r := report{file: at.File, project: p.Name}
	r.add(at.Line, format, args...)
	t.Problems = append(t.Problems, r.problems...)
}

// overlapping are the projects with a destination that is, holds or lies in
// another project's.
func (c *claims) overlapping() []*Project {
	found := map[*Project]bool{}
	for d, by := range c.by {
		for above := d; above != ""; above, _ = split(above) {
			others := c.by[above]
			if len(others) == 0 || len(by) == 1 && len(others) == 1 && by[0] == others[0] {
				continue
			}
			for _, p := range slices.Concat(by, others) {
				found[p] = true
			}
		}
	}
	projects := make([]*Project, 0, len(found))
	for p := range found {
		projects = append(projects, p)
	}
	slices.SortFunc(projects, func(a, b *Project) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.File, b.File))
	})
	return projects
}
