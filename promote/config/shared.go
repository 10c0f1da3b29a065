package config

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// written is a name below a repository, or a file, that a project writes.
type written struct {
	project  *Project
	position Position
	digest   digest.Digest
}

// checkSharedNames finds names that two projects write. With one digest that is
// harmless; with two, neither writes it.
func (t *Tree) checkSharedNames(c *claims) {
	projects := c.overlapping()
	images := map[string][]imageOf{}
	files := map[string]written{}
	drop := map[*Project]map[string]bool{}
	for _, p := range projects {
		drop[p] = map[string]bool{}
		for _, d := range p.Destinations {
			for i := range p.Images {
				repository := d + "/" + p.Images[i].Name
				images[repository] = append(images[repository], imageOf{p, &p.Images[i]})
			}
			for _, f := range p.Files {
				name := d + "/" + f.Name
				if first, taken := files[name]; !taken {
					files[name] = written{p, f.Position, f.SHA256}
				} else if first.project != p && !drop[p][f.Name] {
					t.shared(name, first, written{p, f.Position, f.SHA256}, func() {
						drop[p][f.Name], drop[first.project][f.Name] = true, true
					})
				}
			}
		}
	}
	for _, p := range projects {
		p.Removed = slices.DeleteFunc(p.Removed, func(r Removal) bool { return t.listedByOther(p, r, images, files) })
	}
	tags := map[imageTag]bool{}
	told := map[[2]*Image]bool{}
	for _, p := range projects {
		for _, d := range p.Destinations {
			for i := range p.Images {
				repository := d + "/" + p.Images[i].Name
				t.checkSharedTags(repository, images[repository], tags, told)
				delete(images, repository)
			}
		}
	}
	for _, p := range projects {
		for i := range p.Images {
			image := &p.Images[i]
			image.dropTags(func(tag string) bool { return tags[imageTag{image, tag}] })
		}
		p.Images = slices.DeleteFunc(p.Images, func(i Image) bool { return len(i.Entries) == 0 })
		p.Files = slices.DeleteFunc(p.Files, func(f File) bool { return drop[p][f.Name] })
	}
}

// listedByOther says whether another project lists what p removes, at any of
// the destinations that they share.
func (t *Tree) listedByOther(p *Project, r Removal, images map[string][]imageOf, files map[string]written) bool {
	refuse := func(other *Project, at Position) bool {
		t.note(p, r.Position, "%s is removed, and listed by project %s on %s; the removal is set aside", r, other.Name, at.from(r.Position))
		return true
	}
	for _, d := range p.Destinations {
		name := d + "/" + r.Name
		if f, found := files[name]; found && f.project != p {
			return refuse(f.project, f.position)
		}
		for _, o := range images[name] {
			if at, found := o.image.listing(r); found && o.project != p {
				return refuse(o.project, at)
			}
		}
	}
	return false
}

// imageOf is an image and whose it is.
type imageOf struct {
	project *Project
	image   *Image
}

type imageTag struct {
	image *Image
	tag   string
}

// checkSharedTags compares the images of one repository. The tags that are in
// conflict go into drop. Repositories of the same two images are told of once:
// each of 22 regions has one.
func (t *Tree) checkSharedTags(repository string, by []imageOf, drop map[imageTag]bool, told map[[2]*Image]bool) {
	if len(by) < 2 {
		return
	}
	type tagged struct {
		written
		image *Image
	}
	first := map[string]tagged{}
	for _, o := range by {
		for _, entry := range o.image.Entries {
			for _, tag := range entry.Tags {
				here := tagged{written{o.project, entry.Position, entry.Digest}, o.image}
				before, taken := first[tag]
				if !taken {
					first[tag] = here
					continue
				}
				if before.project == o.project || told[[2]*Image{before.image, o.image}] {
					continue
				}
				t.shared(repository+":"+tag, before.written, here.written, func() {
					drop[imageTag{before.image, tag}], drop[imageTag{o.image, tag}] = true, true
				})
			}
		}
	}
	for i, a := range by {
		for _, b := range by[i+1:] {
			told[[2]*Image{a.image, b.image}] = true
		}
	}
}

// shared reports a name that two projects write; conflict is called when they
// disagree.
func (t *Tree) shared(name string, first, second written, conflict func()) {
	r := report{file: second.position.File, project: second.project.Name}
	where := first.position.from(second.position)
	if first.digest == second.digest {
		r.notice(second.position.Line, "%s is written by project %s as well, on %s, with the same digest", name, first.project.Name, where)
	} else {
		r.add(second.position.Line, "%s is written by two projects: %s here, and %s by %s on %s; it is set aside in both",
			name, short(second.digest), short(first.digest), first.project.Name, where)
		// Both have lost something, and neither may take that for a removal.
		r.problems = append(r.problems, Problem{
			Position: first.position, Project: first.project.Name,
			Message: name + " is written by two projects; see " + second.position.from(first.position),
		})
		conflict()
	}
	t.Problems = append(t.Problems, r.problems...)
}

// checkRevoked sets aside what is listed though any project revokes it.
func (t *Tree) checkRevoked() {
	revoked := map[digest.Digest]Position{}
	for _, p := range t.Projects {
		for _, r := range p.Revoked {
			revoked[r.Digest] = r.Position
		}
	}
	if len(revoked) == 0 {
		return
	}
	refuse := func(p *Project, name string, d digest.Digest, at Position) bool {
		by, found := revoked[d]
		if found {
			t.note(p, at, "%s has the digest %s, which is revoked on %s; it is set aside", name, short(d), by.from(at))
		}
		return found
	}
	for _, p := range t.Projects {
		for i := range p.Images {
			image := &p.Images[i]
			image.Entries = slices.DeleteFunc(image.Entries, func(e Entry) bool { return refuse(p, image.Name, e.Digest, e.Position) })
		}
		p.Images = slices.DeleteFunc(p.Images, func(i Image) bool { return len(i.Entries) == 0 })
		p.Files = slices.DeleteFunc(p.Files, func(f File) bool { return refuse(p, f.Name, f.SHA256, f.Position) })
	}
}
