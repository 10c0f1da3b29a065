package config

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// parsePlain reads text as a plain file, without a file.
func parsePlain(text []byte) *Tree {
	s := &source{name: "fuzz", manifest: "fuzz.yaml", lists: []string{"fuzz.yaml"}}
	rd := &reading{report: report{file: "fuzz.yaml", project: s.name}, grammar: newGrammar(), source: s}
	rd.take(text)
	t := &Tree{}
	manifests := map[*Project]*manifest{}
	if p, m := t.addProject(s, []*reading{rd}); p != nil {
		manifests[p] = m
	}
	t.checkProjects(manifests)
	t.holdPruning(manifests)
	return t
}

func addExamples(f *testing.F, pattern string) {
	f.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		f.Fatalf("examples %s: %v, %v", pattern, files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
}

// What stands after reading is valid by others' judgement, and writing it and
// reading that finds nothing wrong and the same names.
func checkStanding(t *testing.T, text []byte) {
	t.Helper()
	for _, p := range parsePlain(text).Projects {
		for _, i := range p.Images {
			for _, e := range i.Entries {
				if err := e.Digest.Validate(); err != nil {
					t.Fatalf("digest %q: %v", e.Digest, err)
				}
				for _, d := range p.Destinations {
					for _, tag := range append([]string{"none"}, e.Tags...) {
						if _, err := reference.Parse(d + "/" + i.Name + ":" + tag); err != nil && len(d+i.Name) < maxRepository {
							t.Fatalf("name %q: %v", d+"/"+i.Name+":"+tag, err)
						}
					}
				}
			}
		}
		for _, file := range p.Files {
			if !filepath.IsLocal(file.Name) || path.Clean(file.Name) != file.Name || file.SHA256.Validate() != nil {
				t.Fatalf("file %q with %q", file.Name, file.SHA256)
			}
		}
		written := FormatPlain(p)
		again := parsePlain(written)
		for _, problem := range again.Problems {
			t.Fatalf("written and read again: %s\n%s", problem, written)
		}
		if second := FormatPlain(again.Projects[0]); string(second) != string(written) {
			t.Fatalf("written twice:\n%s\n%s", written, second)
		}
	}
}

func FuzzReadImages(f *testing.F) {
	addExamples(f, "testdata/plain-images.yaml")
	head, err := os.ReadFile("testdata/plain-images.yaml")
	if err != nil {
		f.Fatal(err)
	}
	list, err := os.ReadFile("testdata/images/images/staging-harbour/images.yaml")
	if err != nil {
		f.Fatal(err)
	}
	manifest, _, _ := strings.Cut(string(head), "- name: buoy")
	f.Add([]byte(manifest + string(list)))
	f.Add([]byte("registries: [&a {name: a.b, src: true}, *a, {name: c.d:1/e}]\nimages: [{name: x, dmap: {? [] : []}}]"))
	f.Fuzz(checkStanding)
}

func FuzzReadFiles(f *testing.F) {
	addExamples(f, "testdata/plain-files.yaml")
	f.Add([]byte("filestores: [{base: 'gs://a/', src: true}, {base: https://b}]\nfiles:\n- {name: 'a b: \"c\"', sha256: " + strings.Repeat("0", 64) + "}\n- removed: [\"x\", '#y']\n  reason: '[why'\n"))
	f.Fuzz(checkStanding)
}

// An edit either fails or leaves a list that says what it said before, and the
// addition.
func FuzzInsertImage(f *testing.F) {
	addExamples(f, "testdata/images/images/*/images.yaml")
	addExamples(f, "testdata/plain-images.yaml")
	f.Add([]byte("- name: x\n  dmap:\n    ? sha256:12\n    : [ a,\n   b ]\n# é\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d := digest.FromString("new")
		after, err := InsertImage(text, "harbour", d, "v1.9.1")
		if err != nil {
			return
		}
		_, _, before, err := openText(text, Images)
		if err != nil {
			t.Fatalf("inserted into what does not parse: %v", err)
		}
		_, _, l, err := openText(after, Images)
		if err != nil {
			t.Fatalf("the result does not parse: %v\n%s", err, after)
		}
		facts := l.facts()
		if !facts[imageFact("harbour", "v1.9.1", d)] {
			t.Fatalf("the addition is missing:\n%s", after)
		}
		for fact := range before.facts() {
			if !facts[fact] {
				t.Fatalf("%s is lost:\n%s", fact, after)
			}
		}
		again, err := InsertImage(after, "harbour", d, "v1.9.1")
		if err != nil || string(again) != string(after) {
			t.Fatalf("inserted again: %v\n%s", err, again)
		}
	})
}
