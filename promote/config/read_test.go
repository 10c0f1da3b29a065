package config_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"

	"entrepot/promote/config"
)

// sum is the digest that the examples give to content.
func sum(content string) digest.Digest {
	return digest.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content))))
}

// read reads roots that have no problems.
func read(t *testing.T, roots ...string) *config.Tree {
	t.Helper()
	tree, err := config.Read(roots, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range tree.Problems {
		t.Errorf("unexpected problem: %s", p)
	}
	return tree
}

// diff compares without positions.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.IgnoreTypes(config.Position{}), cmpopts.EquateEmpty())
}

func TestThinTreeOfImages(t *testing.T) {
	dir := filepath.Join("testdata", "images")
	tree := read(t, dir)
	want := []*config.Project{
		{
			Name: "staging-harbour", Kind: config.Images,
			File:         filepath.Join(dir, "manifests/staging-harbour/promoter-manifest.yaml"),
			Lists:        []string{filepath.Join(dir, "images/staging-harbour/images.yaml")},
			Source:       "staging.example.org/staging-harbour",
			Destinations: []string{"registry.example.org/harbour", "mirror.example.net:8443/prod/harbour"},
			Prune:        true, MutableTags: []string{"latest", "stable-*"},
			Images: []config.Image{
				{Name: "harbour", Entries: []config.Entry{
					{Digest: sum("h1"), Tags: []string{"v1.9.0"}},
					{Digest: sum("h2"), Tags: []string{"v1.10.0", "stable-1"}},
					{Digest: sum("h3")},
					{Digest: sum("h4"), Tags: []string{"1.11"}},
				}},
				{Name: "tools/pilot", Entries: []config.Entry{
					{Digest: sum("p1"), Tags: []string{"v2.0"}},
					{Digest: sum("p2"), Tags: []string{"v2.1", "latest"}},
				}},
			},
			Removed: []config.Removal{
				{Name: "harbour", Tag: "v1.8.0", Reason: "built from the wrong branch"},
				{Name: "harbour", Digest: sum("h0"), Reason: "built from the wrong branch"},
				{Name: "tools/buoy", Reason: "given up in favour of tools/pilot"},
			},
			Revoked: []config.Revocation{{Digest: sum("h0"), Reason: "carries a leaked key"}},
		},
		{
			Name: "staging-quay", Kind: config.Images,
			File:         filepath.Join(dir, "manifests/staging-quay/promoter-manifest.yaml"),
			Lists:        []string{filepath.Join(dir, "images/staging-quay/images.yaml")},
			Source:       "staging.example.org/staging-quay",
			Destinations: []string{"registry.example.org/quay"},
		},
	}
	if d := diff(want, tree.Projects); d != "" {
		t.Error(d)
	}
	entry := tree.Projects[0].Images[0].Entries[3]
	if want := (config.Position{File: want[0].Lists[0], Line: 17}); entry.Position != want {
		t.Errorf("the entry of the second release stands at %v, want %v", entry.Position, want)
	}
}

func TestThinTreeOfFiles(t *testing.T) {
	dir := filepath.Join("testdata", "files")
	tree := read(t, dir)
	want := []*config.Project{{
		Name: "staging-crane", Kind: config.Files,
		File: filepath.Join(dir, "filestores/staging-crane/filepromoter-manifest.yaml"),
		Lists: []string{
			filepath.Join(dir, "manifests/staging-crane/v1.0.0.yaml"),
			filepath.Join(dir, "manifests/staging-crane/v1.1.0.yaml"),
		},
		Source:       "gs://staging-crane/releases",
		Destinations: []string{"s3://artifacts-prod/binaries/crane", "https://origin.example.org/files/crane"},
		Files: []config.File{
			{Name: "v1.0.0/linux/amd64/crane", SHA256: sum("c1")},
			{Name: "v1.0.0/linux/amd64/crane.sha256", SHA256: sum("c2")},
			{Name: "v1.1.0/linux/amd64/crane", SHA256: sum("c3")},
		},
		Removed: []config.Removal{{Name: "v0.9.0/linux/amd64/crane", Reason: "never worked"}},
		Revoked: []config.Revocation{{Digest: sum("c0"), Reason: "CVE-2026-00001"}},
	}}
	if d := diff(want, tree.Projects); d != "" {
		t.Error(d)
	}
}

func TestPlainFilesOfBothKinds(t *testing.T) {
	images, files := filepath.Join("testdata", "plain-images.yaml"), filepath.Join("testdata", "plain-files.yaml")
	tree := read(t, images, files, "./"+images)
	want := []*config.Project{
		{
			Name: "plain-files", Kind: config.Files, File: files, Lists: []string{files},
			Source: "file:///srv/staging", Destinations: []string{"file:///srv/prod"},
			Files:   []config.File{{Name: "buoy.tar.gz", SHA256: sum("b2")}},
			Removed: []config.Removal{{Name: "old/buoy.tar.gz", Reason: "empty archive"}},
		},
		{
			Name: "plain-images", Kind: config.Images, File: images, Lists: []string{images},
			Source: "localhost:5000/staging", Destinations: []string{"localhost:5001/prod"},
			Images: []config.Image{{Name: "buoy", Entries: []config.Entry{{Digest: sum("b1"), Tags: []string{"v1"}}}}},
		},
	}
	if d := diff(want, tree.Projects); d != "" {
		t.Error(d)
	}
}

func TestRootThatIsNoConfigurationSaysWhatIsWanted(t *testing.T) {
	base := write(t, map[string]string{
		"empty/README.md":               "",
		"halves/manifests/a/x.yaml":     "",
		"slip/manifests/a/x.yaml":       "",
		"slip/image/a/images.yaml":      "",
		"both/images/a/images.yaml":     "",
		"both/filestores/a/x.yaml":      "",
		"parent/one/images/a/x.yaml":    "",
		"parent/one/manifests/a/x.yaml": "",
	})
	for root, want := range map[string]string{
		"empty":   "is no configuration; want a folder with manifests/ and images/",
		"halves":  "holds manifests/ but neither images/ nor filestores/",
		"slip":    "holds manifests/ and image/ (did you mean images/?)",
		"both":    "holds both images/ and filestores/",
		"parent":  "is no tree itself; give the trees in it: " + filepath.Join(base, "parent", "one"),
		"missing": "no such file or directory",
	} {
		_, err := config.Read([]string{filepath.Join(base, root)}, config.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", root, err, want)
		}
	}
	if _, err := config.Read(nil, config.Options{}); err == nil {
		t.Error("no root: no error")
	}
}

func TestStrictReadFailsAndStillTellsAll(t *testing.T) {
	file := filepath.Join(write(t, map[string]string{"plain.yaml": plainImages("- name: a\n  dmap:\n    sha256:12: [v1]\n- name: B\n")}), "plain.yaml")
	tree, err := config.Read([]string{file}, config.Options{Strict: true})
	if !errors.Is(err, config.ErrProblems) || !strings.Contains(err.Error(), file+":8: ") {
		t.Errorf("error %v, want ErrProblems and the first of them", err)
	}
	if len(tree.Problems) != 2 {
		t.Errorf("problems %v, want 2", tree.Problems)
	}
}

func TestStrictReadPassesNotices(t *testing.T) {
	file := filepath.Join(write(t, map[string]string{"plain.yaml": plainImages("- name: a\n")}), "plain.yaml")
	tree, err := config.Read([]string{file}, config.Options{Strict: true})
	if err != nil || len(tree.Problems) != 1 || !tree.Problems[0].Notice {
		t.Errorf("error %v, problems %v; want one notice", err, tree)
	}
}

// plainImages is a plain file whose list begins on line 6.
func plainImages(list string) string {
	return "registries:\n- name: staging.example.org/x\n  src: true\n- name: registry.example.org/x\nimages:\n" + list
}

// write writes files into a new folder.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// realTree is a real configuration, which lies beside checkouts of the project
// and is no part of it.
func realTree(t testing.TB) []string {
	t.Helper()
	shared := filepath.Join("..", "..", "..", "shared", "data", "promotion-tree")
	if _, err := os.Stat(shared); err != nil {
		t.Skip("the real tree is not here")
	}
	return []string{filepath.Join(shared, "k8s.gcr.io"), filepath.Join(shared, "artifacts")}
}

// The real tree of 2022 is read whole: nothing of it is set aside.
func TestRealTreeStandsWhole(t *testing.T) {
	tree, err := config.Read(realTree(t), config.Options{Strict: true})
	if err != nil {
		t.Error(err)
	}
	digests := map[config.Kind]int{}
	projects := map[config.Kind]int{}
	for _, p := range tree.Projects {
		projects[p.Kind]++
		digests[p.Kind] += len(p.Files)
		for _, i := range p.Images {
			digests[p.Kind] += len(i.Entries)
		}
	}
	// Its own tool counts 12,344 digests: two are listed twice.
	if projects[config.Images] != 76 || digests[config.Images] != 12342 || projects[config.Files] != 2 {
		t.Errorf("read %v projects with %v digests, want 76 with 12,342 of images, and 2 of files", projects, digests)
	}
}
