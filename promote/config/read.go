package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Options say how strictly to read. The zero value sets bad entries aside.
type Options struct {
	// Strict turns every Problem that is not a Notice into an error of Read.
	Strict bool
	// MaxFileSize is the largest file to read, in bytes; 0 means 32 MiB.
	MaxFileSize int64
}

// ErrProblems is the error of a strict Read of a tree that has problems.
var ErrProblems = errors.New("the configuration has problems")

// Read reads all roots. Each is the folder of a thin tree of images (it holds
// manifests/ and images/) or of files (filestores/ and manifests/), or a plain
// file. Errors: a root that is neither, or cannot be read; with
// Options.Strict, ErrProblems, and then the Tree is returned as well.
func Read(roots []string, o Options) (*Tree, error) {
	o.MaxFileSize = cmp.Or(o.MaxFileSize, 32<<20)
	var (
		sources []source
		wrong   []error
		t       = &Tree{}
	)
	for _, path := range distinct(roots) {
		found, problems, err := discover(path)
		sources = append(sources, found...)
		t.Problems = append(t.Problems, problems...)
		wrong = append(wrong, err)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		return nil, errors.New("no configuration is given: want a thin tree's folder or a plain file")
	}
	manifests := o.readAll(sources, t)
	t.checkProjects(manifests)
	t.holdPruning(manifests)
	slices.SortStableFunc(t.Projects, func(a, b *Project) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.File, b.File))
	})
	t.checkHomonyms()
	sortProblems(t.Problems)
	if n := t.flaws(); o.Strict && n > 0 {
		return t, fmt.Errorf("%w: %d, the first is %s", ErrProblems, n, t.firstFlaw())
	}
	return t, nil
}

func (t *Tree) firstFlaw() Problem {
	return t.Problems[slices.IndexFunc(t.Problems, func(p Problem) bool { return !p.Notice })]
}

// flaws counts the problems that are more than notices.
func (t *Tree) flaws() int {
	n := 0
	for _, p := range t.Problems {
		if !p.Notice {
			n++
		}
	}
	return n
}

// checkHomonyms tells of projects of one kind and name, which the ledger and
// --project cannot tell apart. Projects are sorted.
func (t *Tree) checkHomonyms() {
	for i := 1; i < len(t.Projects); i++ {
		a, b := t.Projects[i-1], t.Projects[i]
		if a.Kind == b.Kind && a.Name == b.Name {
			r := report{file: b.File, project: b.Name}
			r.notice(0, "the project has the name of another, %s; the ledger cannot tell them apart", a.File)
			t.Problems = append(t.Problems, r.problems...)
		}
	}
}

// distinct leaves each root once, however it is spelt.
func distinct(roots []string) []string {
	var kept []string
	seen := map[string]bool{}
	for _, path := range roots {
		key, err := filepath.Abs(path)
		if err != nil {
			key = path
		}
		if resolved, err := filepath.EvalSymlinks(key); err == nil {
			key = resolved
		}
		if !seen[key] {
			seen[key] = true
			kept = append(kept, path)
		}
	}
	return kept
}

// reading is one file being read, by one goroutine.
type reading struct {
	report
	grammar *grammar
	source  *source
	size    int64

	manifest *manifest // of a manifest or plain file, nil when there is none
	list     *itemList // of a list or plain file, nil when there is none
}

// readAll reads the files of all sources side by side and puts the projects
// together. The YAML library parses some 10 MB/s on a core, which is nearly all
// the time a run without changes takes, so the largest files go first.
func (o Options) readAll(sources []source, t *Tree) map[*Project]*manifest {
	g := newGrammar()
	var all, queue []*reading
	for i := range sources {
		s := &sources[i]
		files := s.lists
		if s.thin && s.manifest != "" {
			files = append([]string{s.manifest}, files...)
		}
		for _, file := range files {
			rd := &reading{report: report{file: file, project: s.name}, grammar: g, source: s}
			if info, err := os.Stat(file); err == nil {
				rd.size = info.Size()
			}
			all = append(all, rd)
		}
	}
	queue = slices.Clone(all)
	slices.SortStableFunc(queue, func(a, b *reading) int { return cmp.Compare(b.size, a.size) })
	next := make(chan *reading)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for rd := range next {
				rd.read(o.MaxFileSize)
			}
		})
	}
	for _, rd := range queue {
		next <- rd
	}
	close(next)
	workers.Wait()

	manifests := map[*Project]*manifest{}
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].source == all[0].source {
			n++
		}
		if p, m := t.addProject(all[0].source, all[:n]); p != nil {
			manifests[p] = m
		}
		all = all[n:]
	}
	return manifests
}

// read reads and parses the file.
func (rd *reading) read(limit int64) {
	text, err := readFile(rd.file, limit)
	if err != nil {
		rd.add(0, "%v; the file is set aside", err)
		return
	}
	rd.take(text)
}

// take parses what the file says.
func (rd *reading) take(text []byte) {
	switch root := rd.parse(text); {
	case rd.bad():
	case !rd.source.thin:
		rd.readPlain(root)
	case rd.file == rd.source.manifest:
		rd.manifest = rd.readManifest(rd.grammar, root, sectionOf(rd.source.kind), nil)
	case rd.source.kind == Images:
		rd.list = rd.readItems(rd.grammar, root, Images, "the list of images")
	default:
		rd.readFiles(root)
	}
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be read: %w", err)
	case int64(len(text)) > limit:
		return nil, fmt.Errorf("is larger than %d bytes", limit)
	}
	return text, nil
}

// readFiles reads a list of files, whose items stand below files:.
func (rd *reading) readFiles(root *yaml.Node) {
	if root == nil {
		rd.list = &itemList{}
		return
	}
	var l *itemList
	if rd.keys(root, "the list of files", []string{"files"}, func(_ string, value *yaml.Node) {
		l = rd.readItems(rd.grammar, value, Files, "files")
	}) {
		rd.list = l
	}
}

// readPlain reads a plain file; its kind shows in its keys.
func (rd *reading) readPlain(root *yaml.Node) {
	kind := Images
	if root != nil && root.Kind == yaml.MappingNode && (hasKey(root, "filestores") || hasKey(root, "files")) {
		kind = Files
	}
	rd.source.kind = kind
	s := sectionOf(kind)
	rd.manifest = rd.readManifest(rd.grammar, root, s, func(value *yaml.Node) {
		rd.list = rd.readItems(rd.grammar, value, kind, s.list)
	})
	if rd.list == nil && rd.manifest != nil {
		rd.add(0, "the file has no %s:; of a thin tree, give the folder that holds %s/ and %s/; the project is set aside",
			s.list, s.manifests, s.lists)
	}
}

// addProject puts the files of one source together and takes over what they
// report. The project is nil when it was set aside.
func (t *Tree) addProject(s *source, files []*reading) (*Project, *manifest) {
	defer func() {
		for _, rd := range files {
			t.Problems = append(t.Problems, rd.problems...)
		}
	}()
	var (
		reports = map[string]*report{}
		lists   []*itemList
		m       *manifest
		items   int
	)
	for _, rd := range files {
		reports[rd.file] = &rd.report
		if rd.manifest != nil {
			m = rd.manifest
		}
		if rd.list != nil {
			lists = append(lists, rd.list)
			items += rd.list.items
		}
	}
	if s.manifest == "" {
		files[0].lonely(items)
		return nil, nil
	}
	if m == nil || !s.thin && len(lists) == 0 {
		return nil, nil
	}
	p := &Project{
		Name: s.name, Kind: s.kind, File: s.manifest, Lists: s.lists,
		Source: m.source, Prune: m.prune, MutableTags: m.mutableTags,
	}
	for _, d := range m.destinations {
		p.Destinations = append(p.Destinations, d.name)
	}
	m.checkImagesPath(p, reports[s.manifest])
	assemble(p, lists, reports)
	t.Projects = append(t.Projects, p)
	return p, m
}

// lonely reports a list that no manifest belongs to.
func (rd *reading) lonely(items int) {
	s := sectionOf(rd.source.kind)
	missing := filepath.Join(s.manifests, rd.source.name, s.manifest)
	if items == 0 && !rd.bad() {
		rd.notice(0, "lists nothing, and has no %s", missing)
		return
	}
	rd.add(0, "has no %s, so that nothing says where it is promoted to; the list is set aside", missing)
}

// checkImagesPath holds imagesPath, which other promoters know and do not
// follow either, to the place where the list stands.
func (m *manifest) checkImagesPath(p *Project, r *report) {
	if m.imagesPath == "" || len(p.Lists) == 0 {
		return
	}
	if path := filepath.Join(filepath.Dir(p.File), filepath.FromSlash(m.imagesPath)); path != p.Lists[0] {
		r.add(m.imagesLine, "imagesPath %s is not where the list is; the list of a project is always %s", quote(m.imagesPath), p.Lists[0])
	}
}

// holdPruning keeps what was set aside from being taken for removed.
func (t *Tree) holdPruning(manifests map[*Project]*manifest) {
	flawed := map[string]bool{}
	for _, problem := range t.Problems {
		if !problem.Notice {
			flawed[problem.Project] = true
		}
	}
	for _, p := range t.Projects {
		if p.Prune && flawed[p.Name] {
			p.Prune = false
			r := report{file: p.File, project: p.Name}
			r.notice(manifests[p].pruneLine, "prune is held off while anything of the project is set aside: nothing is deleted for being absent")
			t.Problems = append(t.Problems, r.problems...)
		}
	}
}
