package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Locate finds the project whose source or one of whose destinations holds
// name, and what name is below it: of "gcr.io/k8s-staging-coredns/coredns" the
// project and "coredns". The longest match wins; among equals, the project that
// lists it already. Errors: no project holds it, or several do equally.
func (t *Tree) Locate(name string) (p *Project, below string, err error) {
	var found []*Project
	longest := 0
	for _, p := range t.Projects {
		ends := append([]string{p.Source}, p.Destinations...)
		for _, end := range ends {
			rest, ok := strings.CutPrefix(name, end+"/")
			if !ok || rest == "" || len(end) < longest {
				continue
			}
			if len(end) > longest {
				longest, found = len(end), nil
			}
			below = rest
			if !slices.Contains(found, p) {
				found = append(found, p)
			}
		}
	}
	if len(found) > 1 {
		if listing := slices.DeleteFunc(slices.Clone(found), func(p *Project) bool { return !p.lists(below) }); len(listing) == 1 {
			found = listing
		}
	}
	switch len(found) {
	case 0:
		return nil, "", fmt.Errorf("no project has %s below its source or a destination", quote(name))
	case 1:
		return found[0], below, nil
	}
	files := make([]string, len(found))
	for i, p := range found {
		files[i] = p.File
	}
	return nil, "", fmt.Errorf("%s may belong to any of %s; name the project", quote(name), strings.Join(files, ", "))
}

// lists says whether the project lists an image or file of this name.
func (p *Project) lists(name string) bool {
	return slices.ContainsFunc(p.Images, func(i Image) bool { return i.Name == name }) ||
		slices.ContainsFunc(p.Files, func(f File) bool { return f.Name == name })
}

// listFor is the file that lists, or is to list, a file: the one that has most
// of its neighbours, else one named for its first folder.
func (p *Project) listFor(name string) string {
	if slices.Equal(p.Lists, []string{p.File}) {
		return p.File // a plain file
	}
	best, common := "", 0
	for _, f := range p.Files {
		if n := commonFolders(f.Name, name); n > common {
			best, common = f.File, n
		}
	}
	if best != "" {
		return best
	}
	half := filepath.Join(filepath.Dir(p.File), "..", "..", sectionOf(Files).lists, p.Name)
	return filepath.Join(half, listName(name))
}

// listName is the name of a new list for a file: lists are by release, and a
// release's files share their first folder.
func listName(file string) string {
	folder, _, nested := strings.Cut(file, "/")
	if !nested {
		return "files.yaml"
	}
	return folder + ".yaml"
}

// commonFolders counts the folders that two names begin with alike.
func commonFolders(a, b string) int {
	n := 0
	for {
		x, restA, okA := strings.Cut(a, "/")
		y, restB, okB := strings.Cut(b, "/")
		if !okA || !okB || x != y {
			return n
		}
		n, a, b = n+1, restA, restB
	}
}
