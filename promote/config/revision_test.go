package config_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"entrepot/promote/config"
)

func revision(t *testing.T, roots ...string) string {
	t.Helper()
	revision, err := config.Revision(t.Context(), roots)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestRevisionIsTheCommitOfACleanCheckout(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not here")
	}
	dir := write(t, map[string]string{
		"tree/manifests/a/promoter-manifest.yaml": "registries: []\n", "tree/images/a/images.yaml": "",
		"plain.yaml": "images: []\n", ".gitignore": "ignored.yaml\n",
	})
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{
			"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false",
		}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	tree, plain := filepath.Join(dir, "tree"), filepath.Join(dir, "plain.yaml")
	hashed := regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	if got := revision(t, tree); !hashed.MatchString(got) {
		t.Errorf("before the first commit: %q, want a hash", got)
	}
	git("add", ".")
	git("commit", "-qm", "first")
	commit := git("rev-parse", "HEAD")
	for name, roots := range map[string][]string{"a tree": {tree}, "a plain file": {plain}, "both": {tree, plain}} {
		if got := revision(t, roots...); got != commit {
			t.Errorf("%s: %q, want %s", name, got, commit)
		}
	}
	for name, file := range map[string]string{
		"a change":        "tree/images/a/images.yaml",
		"a new file":      "tree/images/a/new.yaml",
		"an ignored file": "tree/images/a/ignored.yaml",
	} {
		path := filepath.Join(dir, file)
		before, missing := os.ReadFile(path)
		if err := os.WriteFile(path, []byte("# changed\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := revision(t, tree, plain); !hashed.MatchString(got) {
			t.Errorf("%s: %q, want a hash", name, got)
		}
		if got := revision(t, plain); got != commit {
			t.Errorf("%s elsewhere: %q, want %s", name, got, commit)
		}
		if missing != nil {
			_ = os.Remove(path)
		} else if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := revision(t, tree); got != commit {
		t.Errorf("changed back: %q, want %s", got, commit)
	}
}

func TestRevisionWithoutGitIsAHashOfTheFiles(t *testing.T) {
	files := map[string]string{"images/a/images.yaml": "one", "manifests/a/promoter-manifest.yaml": "two", "README.md": "three"}
	first, second := write(t, files), write(t, files)
	want := revision(t, first)
	if got := revision(t, second); got != want {
		t.Errorf("the same tree elsewhere: %s, want %s", got, want)
	}
	seen := map[string]string{want: "the tree"}
	for name, change := range map[string]map[string]string{
		"another content":  {"images/a/images.yaml": "1", "manifests/a/promoter-manifest.yaml": "two"},
		"another name":     {"images/b/images.yaml": "one", "manifests/a/promoter-manifest.yaml": "two"},
		"contents swapped": {"images/a/images.yaml": "two", "manifests/a/promoter-manifest.yaml": "one"},
	} {
		got := revision(t, write(t, change))
		if seen[got] != "" {
			t.Errorf("%s has the revision of %s", name, seen[got])
		}
		seen[got] = name
	}
	files["README.md"] = "what no promotion reads"
	if got := revision(t, write(t, files)); got != want {
		t.Errorf("another README: %s, want %s", got, want)
	}
	if _, err := config.Revision(t.Context(), []string{filepath.Join(first, "missing")}); err == nil {
		t.Error("a root that is missing: no error")
	}
}
