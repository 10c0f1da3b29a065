package config_test

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/promote/config"
	"entrepot/promote/config/configtest"
)

// sorted brings what an order means nothing in into one order.
func sorted(projects []*config.Project) []*config.Project {
	for _, p := range projects {
		p.File, p.Lists = "", nil
		for _, i := range p.Images {
			slices.SortFunc(i.Entries, func(a, b config.Entry) int { return cmp.Compare(a.Digest, b.Digest) })
			for _, e := range i.Entries {
				slices.Sort(e.Tags)
			}
		}
	}
	return projects
}

func TestWhatIsWrittenReadsBackTheSame(t *testing.T) {
	for _, name := range []string{"images", "files"} {
		want := sorted(read(t, filepath.Join("testdata", name)).Projects)
		dir := t.TempDir()
		if err := config.WriteThin(dir, want); err != nil {
			t.Fatal(err)
		}
		if d := diff(want, sorted(read(t, dir).Projects)); d != "" {
			t.Errorf("%s as a thin tree: %s", name, d)
		}
		if err := config.WriteThin(dir, want); err == nil {
			t.Errorf("%s: written over what was there", name)
		}
		file := filepath.Join(t.TempDir(), want[0].Name+".yaml")
		if err := os.WriteFile(file, config.FormatPlain(want[0]), 0o600); err != nil {
			t.Fatal(err)
		}
		if d := diff(want[:1], sorted(read(t, file).Projects)); d != "" {
			t.Errorf("%s as a plain file: %s", name, d)
		}
	}
}

func TestCanonicalStyle(t *testing.T) {
	a, b := "sha256:"+hex("a"), "sha256:"+hex("b")
	p := &config.Project{
		Kind: config.Images, Source: "staging.example.org/x", Destinations: []string{"registry.example.org/x"}, Prune: true, MutableTags: []string{"latest"},
		Images: []config.Image{
			{Name: "zebra", Entries: []config.Entry{{Digest: sum("z")}}},
			{Name: "ape", Entries: []config.Entry{
				{Digest: sum("none")},
				{Digest: digest.Digest(a), Tags: []string{"v1.10", "latest"}},
				{Digest: digest.Digest(b), Tags: []string{"v1.9"}},
			}},
		},
		Removed: []config.Removal{{Name: "ape", Tag: "v1.8", Reason: "wrong: \"broken\"\nbuild"}},
	}
	want := `registries:
- name: staging.example.org/x
  src: true
- name: registry.example.org/x
prune: true
mutable_tags: ["latest"]
images:
- name: ape
  dmap:
    "` + a + `": ["latest", "v1.10"]
    "` + b + `": ["v1.9"]
    "` + string(sum("none")) + `": []
- name: zebra
  dmap:
    "` + string(sum("z")) + `": []
- removed: ape:v1.8
  reason: "wrong: \"broken\"\nbuild"
`
	if d := diff(want, string(config.FormatPlain(p))); d != "" {
		t.Error(d)
	}
}

func TestGeneratedTreeHasTheShapeAsked(t *testing.T) {
	shape := configtest.TwiceToday()
	shape.Projects, shape.Images, shape.Pairs, shape.Destinations = 5, 17, 300, shape.Destinations[:3]
	dir := t.TempDir()
	if err := shape.Write(dir); err != nil {
		t.Fatal(err)
	}
	tree := read(t, dir)
	if d := diff(sorted(shape.Generate()), sorted(tree.Projects)); d != "" {
		t.Error(d)
	}
	images, tags := 0, 0
	for _, p := range tree.Projects {
		images += len(p.Images)
		for _, i := range p.Images {
			tags += len(i.Entries)
		}
	}
	if len(tree.Projects) != 5 || images != 17 || tags != 300 {
		t.Errorf("%d projects, %d images, %d tags; want 5, 17, 300", len(tree.Projects), images, tags)
	}
}

func TestTreeIsWrittenOfOneKindIntoFoldersOfItsOwn(t *testing.T) {
	for want, projects := range map[string][]*config.Project{
		"project b is of files":                 {{Name: "a", Kind: config.Images}, {Name: "b", Kind: config.Files}},
		`"../a" cannot be the name of a folder`: {{Name: "../a", Kind: config.Images}},
	} {
		if err := config.WriteThin(t.TempDir(), projects); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
