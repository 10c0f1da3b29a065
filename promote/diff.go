package promote

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"entrepot/promote/config"
	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// want is one name that the configuration asks for.
type want struct {
	name     string
	digest   digest.Digest
	position config.Position
}

// wanted are all names of a project. Content without tags has a name by its
// digest, so that promotion knows that it put it there.
func wanted(p *config.Project) iter.Seq[want] {
	return func(yield func(want) bool) {
		for _, image := range p.Images {
			for _, e := range image.Entries {
				if len(e.Tags) == 0 && !yield(want{byDigest(image.Name, e.Digest), e.Digest, e.Position}) {
					return
				}
				for _, tag := range e.Tags {
					if !yield(want{image.Name + ":" + tag, e.Digest, e.Position}) {
						return
					}
				}
			}
		}
		for _, f := range p.Files {
			if !yield(want{f.Name, f.SHA256, f.Position}) {
				return
			}
		}
	}
}

func byDigest(image string, d digest.Digest) string { return image + "@" + string(d) }

// splitName takes the name of an image apart: "a/b:tag" or "a/b@sha256:…".
func splitName(name string) (image, tag string, d digest.Digest) {
	if image, d, ok := strings.Cut(name, "@"); ok {
		return image, "", digest.Digest(d)
	}
	image, tag, _ = strings.Cut(name, ":")
	return image, tag, ""
}

// kindOf is what the ledger calls the project's names.
func kindOf(p *config.Project) ledger.Kind {
	if p.Kind == config.Files {
		return ledger.File
	}
	return ledger.Image
}

// differ compares what is wanted with what the ledger says there is. It asks
// nobody: what it finds are guesses that the planner still has to confirm at
// source and destination.
type differ struct {
	state *ledger.State
	names map[string][]ledger.Entry // by name, of all destinations
	// contents are the destinations of "image@digest"; made when it is asked for.
	contents map[string][]string
}

func newDiffer(s *ledger.State) *differ {
	d := &differ{state: s, names: make(map[string][]ledger.Entry, s.Len())}
	for e := range s.Names() {
		d.names[e.Name] = append(d.names[e.Name], e)
	}
	return d
}

// project lists what has to change for one project, in the order of its
// configuration, deletions last.
func (d *differ) project(p *config.Project) []*Item {
	var items []*Item
	destinations := slices.Sorted(slices.Values(p.Destinations)) // as the ledger has them
	add := func(action Action, w want, at []string, previous digest.Digest) {
		items = append(items, &Item{
			Action: action, Kind: kindOf(p), Project: p.Name, Name: w.name, Destinations: at,
			Source: p.Source, Digest: w.digest, Previous: previous, Position: w.position,
		})
	}
	for w := range wanted(p) {
		absent, others := d.compare(destinations, w)
		if len(absent) > 0 {
			add(Create, w, absent, "")
		}
		for _, other := range others {
			add(Move, w, other.destinations, other.digest)
		}
	}
	for _, i := range items {
		i.trusted = p.Kind == config.Images && d.brought(i)
	}
	items = append(items, d.revocations(p)...)
	return append(items, d.deletions(p, destinations)...)
}

// brought says whether promotion has the content of an item at each of the
// item's destinations already, under another name or an older one.
func (d *differ) brought(i *Item) bool {
	if d.contents == nil {
		d.contents = map[string][]string{}
		for name, held := range d.names {
			image, _, _ := splitName(name)
			for _, e := range held {
				content := byDigest(image, e.Digest)
				d.contents[content] = append(d.contents[content], e.Destinations...)
			}
		}
	}
	image, _, _ := splitName(i.Name)
	at := d.contents[byDigest(image, i.Digest)]
	return !slices.ContainsFunc(i.Destinations, func(destination string) bool { return !slices.Contains(at, destination) })
}

// other is content that a name has at some destinations instead of the wanted.
type other struct {
	digest       digest.Digest
	destinations []string
}

// compare sorts destinations by what the name has there; those
// where it is right are left out.
func (d *differ) compare(destinations []string, w want) (absent []string, others []other) {
	held := d.names[w.name]
	for _, e := range held { // nearly always there is one, and it is right
		if e.Digest == w.digest && slices.Equal(e.Destinations, destinations) {
			return nil, nil
		}
	}
	for _, destination := range destinations {
		at := slices.IndexFunc(held, func(e ledger.Entry) bool { return slices.Contains(e.Destinations, destination) })
		switch {
		case at < 0:
			absent = append(absent, destination)
		case held[at].Digest != w.digest:
			i := slices.IndexFunc(others, func(o other) bool { return o.digest == held[at].Digest })
			if i < 0 {
				i, others = len(others), append(others, other{digest: held[at].Digest})
			}
			others[i].destinations = append(others[i].destinations, destination)
		}
	}
	return absent, others
}

// deletions are the names that the project is to lose: those that its list of
// removals has and, if it prunes, those that it no longer lists. Only what the
// ledger has for this project is ever deleted; and what promotion found there,
// and did not write, only by name.
func (d *differ) deletions(p *config.Project, all []string) []*Item {
	if len(p.Removed) == 0 && !p.Prune {
		return nil
	}
	keep := map[string]bool{}
	for w := range wanted(p) {
		keep[w.name] = true
		if image, _, _ := splitName(w.name); p.Kind == config.Images {
			keep[byDigest(image, w.digest)] = true // its content, which tags need
		}
	}
	var items []*Item
	for name, held := range d.names {
		if keep[name] {
			continue
		}
		for _, e := range held {
			destinations := intersect(all, e.Destinations)
			if e.Project != p.Name || e.Kind != kindOf(p) || len(destinations) == 0 {
				continue
			}
			item := &Item{
				Action: Delete, Kind: e.Kind, Project: p.Name, Name: name, Destinations: destinations,
				Digest: e.Digest, Size: e.Size,
			}
			at := slices.IndexFunc(p.Removed, func(r config.Removal) bool { return removes(p, r, e) })
			switch {
			case at >= 0:
				item.Reason, item.Position = p.Removed[at].Reason, p.Removed[at].Position
			case p.Prune:
				item.Reason, item.Position = "left the configuration", config.Position{File: p.File}
				item.Destinations = slices.DeleteFunc(slices.Clone(destinations), func(destination string) bool {
					return !d.state.Wrote(destination, name)
				})
			}
			if item.Reason != "" && len(item.Destinations) > 0 {
				items = append(items, item)
			}
		}
	}
	items = append(items, removedContent(p, items)...)
	slices.SortFunc(items, func(a, b *Item) int { return cmp.Compare(a.Name, b.Name) })
	return items
}

// removedContent are the manifests of deleted tags, where the configuration
// removes the digest and not only its names.
func removedContent(p *config.Project, deletions []*Item) []*Item {
	var items []*Item
	for _, r := range p.Removed {
		if p.Kind != config.Images || r.Digest == "" {
			continue
		}
		name := byDigest(r.Name, r.Digest)
		if slices.ContainsFunc(deletions, func(i *Item) bool { return i.Name == name }) {
			continue // it has that name in the ledger
		}
		at := slices.IndexFunc(deletions, func(i *Item) bool {
			image, _, _ := splitName(i.Name)
			return image == r.Name && i.Digest == r.Digest
		})
		if at >= 0 {
			i := *deletions[at]
			i.Name, i.Reason, i.Position = name, r.Reason, r.Position
			items = append(items, &i)
		}
	}
	return items
}

// removes says whether a removal means a name. One of a digest means every
// name of the image that stands for it.
func removes(p *config.Project, r config.Removal, n ledger.Entry) bool {
	if p.Kind == config.Files {
		return n.Name == r.Name
	}
	image, tag, d := splitName(n.Name)
	switch {
	case image != r.Name:
		return false
	case r.Tag != "":
		return tag == r.Tag
	case r.Digest != "":
		return n.Digest == r.Digest || d == r.Digest
	}
	return true
}

// revocations are digests that the project forbids, or, if it prunes, no
// longer forbids.
func (d *differ) revocations(p *config.Project) []*Item {
	var items []*Item
	listed := map[digest.Digest]bool{}
	for _, r := range p.Revoked {
		listed[r.Digest] = true
		if _, already := d.state.Revoked(r.Digest); !already {
			items = append(items, &Item{
				Action: Revoke, Kind: kindOf(p), Project: p.Name, Name: string(r.Digest),
				Digest: r.Digest, Reason: r.Reason, Position: r.Position,
			})
		}
	}
	if !p.Prune {
		return items
	}
	for r := range d.state.Revocations() {
		if r.Project == p.Name && !listed[r.Digest] {
			items = append(items, &Item{
				Action: Unrevoke, Kind: kindOf(p), Project: p.Name, Name: string(r.Digest),
				Digest: r.Digest, Reason: "left the configuration", Position: config.Position{File: p.File},
			})
		}
	}
	return items
}

func intersect(a, b []string) []string {
	if slices.Equal(a, b) {
		return b // the ledger's, which is shared
	}
	var both []string
	for _, x := range a {
		if slices.Contains(b, x) {
			both = append(both, x)
		}
	}
	return both
}

// companion says whether a tag is one that cosign or the referrers fallback
// makes for a digest: it goes with the image and is not in the configuration.
func companion(tag string) bool {
	algorithm, rest, ok := strings.Cut(tag, "-")
	if !ok || algorithm != "sha256" && algorithm != "sha512" {
		return false
	}
	hex, _, _ := strings.Cut(rest, ".")
	return digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex).Validate() == nil
}
