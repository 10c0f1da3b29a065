package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// source is one project before it is read: the file with its registries or
// stores, and the files with its lists.
type source struct {
	name     string
	kind     Kind
	thin     bool
	manifest string
	lists    []string
}

// root is a thin tree being looked through.
type root struct {
	section
	dir      string // as given
	resolved string // without symbolic links
	problems []Problem
}

// discover finds the projects of a root. Errors: it is neither a thin tree nor
// a plain file.
func discover(path string) ([]source, []Problem, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("reading the configuration: %w", err)
	case info.Mode().IsRegular():
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		return []source{{name: name, manifest: path, lists: []string{path}}}, nil, nil
	case !info.IsDir():
		return nil, nil, fmt.Errorf("reading the configuration: %s is neither a folder nor a file", path)
	}
	path = filepath.Clean(path)
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the configuration: %w", err)
	}
	kind, err := kindOf(path)
	if err != nil {
		return nil, nil, err
	}
	r := &root{section: sectionOf(kind), dir: path, resolved: resolved}
	return r.projects(), r.problems, nil
}

// kindOf tells what kind of thin tree a folder is, from the folders in it.
func kindOf(dir string) (Kind, error) {
	has := func(parts ...string) bool {
		info, err := os.Stat(filepath.Join(append([]string{dir}, parts...)...))
		return err == nil && info.IsDir()
	}
	switch {
	case has("images") && has("filestores"):
		return "", fmt.Errorf("%s holds both images/ and filestores/: whose is manifests/? Put the trees into folders of their own", dir)
	case has("filestores"):
		return Files, nil
	case has("images"):
		return Images, nil
	}
	const want = "want a folder with manifests/ and images/ (a thin tree of images), one with filestores/ and manifests/ (of files), or a plain file"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("reading the configuration: %w", err)
	}
	var below []string
	for _, e := range entries {
		if has(e.Name(), "images") || has(e.Name(), "filestores") {
			below = append(below, filepath.Join(dir, e.Name()))
		}
	}
	switch meant := folderNearest(entries, "images", "filestores"); {
	case len(below) > 0:
		return "", fmt.Errorf("%s is no tree itself; give the trees in it: %s", dir, strings.Join(below, " "))
	case has("manifests") && meant != "":
		return "", fmt.Errorf("%s holds manifests/ and %s; %s", dir, meant, want)
	case has("manifests"):
		return "", fmt.Errorf("%s holds manifests/ but neither images/ nor filestores/; %s", dir, want)
	}
	return "", fmt.Errorf("%s is no configuration; %s", dir, want)
}

// folderNearest names a folder that is a likely misspelling of one wanted.
func folderNearest(entries []fs.DirEntry, wanted ...string) string {
	for _, e := range entries {
		if meant := nearest(e.Name(), wanted); meant != "" && e.IsDir() && e.Name() != meant {
			return fmt.Sprintf("%s/ (did you mean %s/?)", e.Name(), meant)
		}
	}
	return ""
}

// projects pairs the folders of manifests with those of lists.
func (r *root) projects() []source {
	manifests, haveManifests := r.folders(r.manifests)
	lists, haveLists := r.folders(r.lists)
	if !haveManifests || !haveLists {
		return nil
	}
	var found []source
	for _, name := range manifests {
		s := source{name: name, kind: r.kind, thin: true}
		file, ok := r.manifestIn(filepath.Join(r.dir, r.manifests, name))
		if !slices.Contains(lists, name) {
			r.add(filepath.Join(r.dir, r.manifests, name), "has no folder %s%s; the project is set aside",
				filepath.Join(r.lists, name), hintFolder(name, r.lists, lists, manifests))
			continue
		}
		if !ok {
			continue
		}
		s.manifest = file
		s.lists = r.listsIn(filepath.Join(r.dir, r.lists, name))
		found = append(found, s)
	}
	for _, name := range lists {
		if !slices.Contains(manifests, name) {
			// Whether that matters is known when the lists are read.
			found = append(found, source{name: name, kind: r.kind, thin: true, lists: r.listsIn(filepath.Join(r.dir, r.lists, name))})
		}
	}
	return found
}

// hintFolder suggests the folder that a lone one belongs to.
func hintFolder(name, other string, candidates, paired []string) string {
	var lone []string
	for _, c := range candidates {
		if !slices.Contains(paired, c) {
			lone = append(lone, c)
		}
	}
	if meant := nearest(name, lone); meant != "" {
		return fmt.Sprintf("; is %s meant?", filepath.Join(other, meant))
	}
	return ""
}

// folders are the names of the projects' folders in one half of the tree.
func (r *root) folders(half string) (names []string, ok bool) {
	dir := filepath.Join(r.dir, half)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		around, _ := os.ReadDir(r.dir) // says no more than the error at hand
		hint := ""
		if meant := folderNearest(around, half); meant != "" {
			hint = "; there is " + meant
		}
		r.add(r.dir, "the tree has no folder %s/%s", half, hint)
		return nil, false
	}
	if err != nil {
		r.add(dir, "cannot be read: %v", err)
		return nil, false
	}
	if info, err := os.Lstat(dir); err == nil {
		if _, ok := r.stat(dir, fs.FileInfoToDirEntry(info)); !ok {
			return nil, false
		}
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch info, ok := r.stat(path, e); {
		case !ok, strings.HasPrefix(e.Name(), "."):
		case info.IsDir():
			names = append(names, e.Name())
		case isYAML(e.Name()):
			r.add(path, "stands beside the projects' folders and is not read; move it into a project's folder")
		}
	}
	return names, true
}

// manifestIn is the manifest in a project's folder.
func (r *root) manifestIn(dir string) (file string, ok bool) {
	for _, path := range r.yamlFiles(dir, false) {
		if filepath.Base(path) == r.manifest {
			file = path
			continue
		}
		r.add(path, "is not read; the manifest of a project is called %s", r.manifest)
	}
	if file == "" {
		r.add(dir, "has no file %s; the project is set aside", r.manifest)
	}
	return file, file != ""
}

// listsIn are the lists in a project's folder: images.yaml, or of files every
// YAML file.
func (r *root) listsIn(dir string) []string {
	files := r.yamlFiles(dir, r.kind == Files)
	files = slices.DeleteFunc(files, func(path string) bool {
		switch {
		case r.kind == Images && filepath.Base(path) != "images.yaml":
			r.add(path, "is not read; the list of a project is called images.yaml")
			return true
		case filepath.Ext(path) != ".yaml":
			r.add(path, "is not read; the name of a list ends in .yaml")
			return true
		}
		return false
	})
	if len(files) == 0 {
		r.add(dir, "has no list: no file %s; the project is set aside", map[Kind]string{Images: "images.yaml", Files: "*.yaml"}[r.kind])
	}
	return files
}

// yamlFiles are the YAML files in a folder, and with deep in those below.
func (r *root) yamlFiles(dir string, deep bool) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.add(dir, "cannot be read: %v", err)
		return nil
	}
	var files []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch info, ok := r.stat(path, e); {
		case !ok, strings.HasPrefix(e.Name(), "."):
		case info.IsDir() && deep && e.IsDir(): // a linked folder might lead around in a circle
			files = append(files, r.yamlFiles(path, deep)...)
		case info.IsDir():
			r.notice(path, "is a folder where none is read")
		case !isYAML(e.Name()):
		case !info.Mode().IsRegular():
			r.add(path, "is no regular file; it is not read")
		default:
			files = append(files, path)
		}
	}
	slices.Sort(files)
	return files
}

// stat follows a symbolic link, if it stays in the tree.
func (r *root) stat(path string, e fs.DirEntry) (fs.FileInfo, bool) {
	if e.Type()&fs.ModeSymlink != 0 {
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			r.add(path, "is a symbolic link that leads nowhere; it is set aside")
			return nil, false
		}
		if below, err := filepath.Rel(r.resolved, target); err != nil || !filepath.IsLocal(below) {
			r.add(path, "is a symbolic link out of the tree, to %s; it is set aside", target)
			return nil, false
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		r.add(path, "cannot be read: %v", err)
		return nil, false
	}
	return info, true
}

// add notes a problem of a file or folder as a whole. Its project is the folder
// below one of the tree's halves in which it stands.
func (r *root) add(path, format string, args ...any) {
	p := Problem{Position: Position{File: path}, Message: fmt.Sprintf(format, args...)}
	if below, err := filepath.Rel(r.dir, path); err == nil {
		if parts := strings.Split(filepath.ToSlash(below), "/"); len(parts) > 1 {
			p.Project = parts[1]
		}
	}
	r.problems = append(r.problems, p)
}

func (r *root) notice(path, format string, args ...any) {
	r.add(path, format, args...)
	r.problems[len(r.problems)-1].Notice = true
}

func isYAML(name string) bool { return slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(name)) }

// sortProblems brings problems into the order in which a person mends them.
func sortProblems(problems []Problem) {
	slices.SortFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
}
