package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/promote/config"
)

func TestInsertImageWritesAsTheFileDoes(t *testing.T) {
	a, b, c := "sha256:"+hex("a"), "sha256:"+hex("b"), "sha256:"+hex("c")
	for name, test := range map[string]struct {
		before string
		image  string
		digest string
		tags   []string
		after  string
	}{
		"into an empty file": {
			"# No images yet\n", "x", a,
			[]string{"v1"},
			"# No images yet\n- name: x\n  dmap:\n    \"" + a + "\": [\"v1\"]\n",
		},
		"into no file": {"", "x", a, nil, "- name: x\n  dmap:\n    \"" + a + "\": []\n"},
		"after the last older tag": {
			"- name: x\n  dmap:\n    \"" + c + "\": [\"v1.9\"] # first\n    # the tenth\n    \"" + a + "\": [\"v1.11\"]\n", "x", b,
			[]string{"v1.10"},
			"- name: x\n  dmap:\n    \"" + c + "\": [\"v1.9\"] # first\n    \"" + b + "\": [\"v1.10\"]\n    # the tenth\n    \"" + a + "\": [\"v1.11\"]\n",
		},
		"before the first": {
			"- name: x\n  dmap:\n    '" + a + "': ['v2']\n", "x", b,
			[]string{"v1"},
			"- name: x\n  dmap:\n    '" + b + "': ['v1']\n    '" + a + "': ['v2']\n",
		},
		"by digest where that is the order": {
			"- name: x\n  dmap:\n    " + a + ": [ v9 ]\n    " + c + ": [ v1 ]\n\n# the end\n", "x", b,
			[]string{"v5", "v6"},
			"- name: x\n  dmap:\n    " + a + ": [ v9 ]\n    " + b + ": [ v5, v6 ]\n    " + c + ": [ v1 ]\n\n# the end\n",
		},
		"a tag a line": {
			"- name: x\n  dmap:\n    " + a + ":\n    - v1\n", "x", b,
			[]string{"v2"},
			"- name: x\n  dmap:\n    " + a + ":\n    - v1\n    " + b + ":\n    - v2\n",
		},
		"another tag for a digest": {
			"- name: x\n  dmap:\n    \"" + a + "\": [\"v1\"] # signed\n", "x", a,
			[]string{"v1", "v1.0"},
			"- name: x\n  dmap:\n    \"" + a + "\": [\"v1\", \"v1.0\"] # signed\n",
		},
		"another tag on a line of its own": {
			"- name: x\n  dmap:\n    " + a + ":\n    - v1 # first\n    # more to come\n", "x", a,
			[]string{"v2"},
			"- name: x\n  dmap:\n    " + a + ":\n    - v1 # first\n    - v2\n    # more to come\n",
		},
		"the first tag of a digest": {
			"- name: x\n  dmap:\n    " + a + ": []\n", "x", a,
			[]string{"v1"},
			"- name: x\n  dmap:\n    " + a + ": [\"v1\"]\n",
		},
		"a new image among sorted ones": {
			"- name: a\n  dmap:\n    " + a + ": [v1]\n\n# about c\n- name: c\n  dmap:\n    " + c + ": [v1]\n- removed: d\n  reason: old\n", "b", b,
			[]string{"v1"},
			"- name: a\n  dmap:\n    " + a + ": [v1]\n- name: b\n  dmap:\n    \"" + b + "\": [\"v1\"]\n\n# about c\n- name: c\n  dmap:\n    " + c + ": [v1]\n- removed: d\n  reason: old\n",
		},
		"a new image at the end of unsorted ones": {
			"- name: c\n  dmap:\n    " + c + ": [v1]\n- name: a\n  dmap:\n    " + a + ": [v1]\n", "b", b,
			[]string{"v1"},
			"- name: c\n  dmap:\n    " + c + ": [v1]\n- name: a\n  dmap:\n    " + a + ": [v1]\n- name: b\n  dmap:\n    \"" + b + "\": [\"v1\"]\n",
		},
		"the last item of a name": {
			"- name: x\n  dmap:\n    " + a + ": [v1]\n# two\n- name: x\n  dmap:\n    " + b + ": [v2]\n", "x", c,
			[]string{"v3"},
			"- name: x\n  dmap:\n    " + a + ": [v1]\n# two\n- name: x\n  dmap:\n    " + b + ": [v2]\n    " + c + ": [v3]\n",
		},
		"a plain file": {
			"registries:\n- name: a.b/c\n  src: true\nimages:\n  - name: x\n    dmap:\n      " + a + ": [v1]\nprune: true", "z", b,
			[]string{"v1"},
			"registries:\n- name: a.b/c\n  src: true\nimages:\n  - name: x\n    dmap:\n      " + a + ": [v1]\n  - name: z\n    dmap:\n      \"" + b + "\": [\"v1\"]\nprune: true\n",
		},
		"a plain file without images yet": {
			"images: []\nregistries: []\n", "z", b,
			[]string{"v1"},
			"images:\n- name: z\n  dmap:\n    \"" + b + "\": [\"v1\"]\nregistries: []\n",
		},
		"lines of mixed ends": {
			"- name: x\r\n  dmap:\n    " + a + ": [v1]\r\n", "x", b,
			[]string{"v2"},
			"- name: x\r\n  dmap:\n    " + a + ": [v1]\r\n    " + b + ": [v2]\n",
		},
		"lines that end as on Windows": {
			"- name: x\r\n  dmap:\r\n    " + a + ": [v1]\r\n", "x", b,
			[]string{"v2"},
			"- name: x\r\n  dmap:\r\n    " + a + ": [v1]\r\n    " + b + ": [v2]\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := config.InsertImage([]byte(test.before), test.image, digest.Digest(test.digest), test.tags...)
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(test.after, string(got)); d != "" {
				t.Fatal(d)
			}
			again, err := config.InsertImage(got, test.image, digest.Digest(test.digest), test.tags...)
			if err != nil || string(again) != string(got) {
				t.Errorf("listed again: %v\n%s", err, diff(string(got), string(again)))
			}
		})
	}
}

func TestInsertImageRefusesWhatAPersonMustDecide(t *testing.T) {
	a, b := digest.Digest("sha256:"+hex("a")), digest.Digest("sha256:"+hex("b"))
	list := "- name: x\n  dmap:\n    " + string(a) + ": [v1]\n"
	for name, test := range map[string]struct {
		list, image string
		digest      digest.Digest
		tag         string
		want        string
	}{
		"a tag that stands elsewhere": {list, "x", b, "v1", "tag v1 of image x is listed on line 3 with " + string(a) + "; to move it, take it from there first"},
		"a bad tag":                   {list, "x", b, "-", `tag "-" begins with "-"`},
		"a bad digest":                {list, "x", b[:70], "v2", "has 63 hex digits; want 64"},
		"a bad name":                  {list, "X", b, "v2", "has an upper-case letter"},
		"no YAML":                     {"- name: [", "x", b, "v2", "no valid YAML"},
		"no list":                     {"images: {a: b}", "x", b, "v2", "want a list with an item a line"},
		"another file":                {"files: []", "x", b, "v2", "it has no key images"},
		"braces":                      {"- name: x\n  dmap: {" + string(a) + ": [v1]}\n", "x", b, "v2", "line 2: dmap is written in braces; add the entry by hand"},
		"an image without digests":    {"- name: x\n", "x", b, "v2", "add it by hand"},
		"tags over several lines":     {"- name: x\n  dmap:\n    " + string(a) + ": [\n    ]\n", "x", a, "v2", "does not end on its line; add the tag by hand"},
	} {
		if got, err := config.InsertImage([]byte(test.list), test.image, test.digest, test.tag); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q\n%s", name, err, test.want, got)
		}
	}
}

func TestInsertFileWritesAsTheFileDoes(t *testing.T) {
	a, b := digest.Digest("sha256:"+hex("a")), digest.Digest("sha256:"+hex("b"))
	before := "files:\n- name: v1/a\n  sha256: " + hex("a") + "\n# about c\n- name: v1/c\n  sha256: " + hex("a") + "\n- removed: x\n  reason: |\n    old\n    and wrong\n"
	after := "files:\n- name: v1/a\n  sha256: " + hex("a") + "\n- name: v1/b\n  sha256: " + hex("b") + "\n# about c\n- name: v1/c\n  sha256: " + hex("a") + "\n- removed: x\n  reason: |\n    old\n    and wrong\n"
	got, err := config.InsertFile([]byte(before), "v1/b", b)
	if err != nil || string(got) != after {
		t.Errorf("error %v\n%s", err, diff(after, string(got)))
	}
	if again, err := config.InsertFile(got, "v1/b", b); err != nil || string(again) != after {
		t.Errorf("listed again: error %v\n%s", err, diff(after, string(again)))
	}
	if _, err := config.InsertFile(got, "v1/b", a); err == nil || !strings.Contains(err.Error(), "listed on line 4 with the sha256 "+hex("b")) {
		t.Errorf("another content: error %v", err)
	}
	if got, err := config.InsertFile(nil, "v 1: x", b); err != nil || string(got) != "files:\n- name: \"v 1: x\"\n  sha256: "+hex("b")+"\n" {
		t.Errorf("into no file: error %v\n%s", err, got)
	}
}

func TestAddPicksTheRightFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	images, files := filepath.Join(dir, "images"), filepath.Join(dir, "files")
	tree := read(t, images, files)
	p, name, err := tree.Locate("staging.example.org/staging-harbour/tools/pilot")
	if err != nil || p.Name != "staging-harbour" || name != "tools/pilot" {
		t.Fatalf("located %v, %q, %v", p, name, err)
	}
	file, changed, err := p.AddImage(name, sum("p3"), "v2.2")
	if want := filepath.Join(images, "images/staging-harbour/images.yaml"); file != want || !changed || err != nil {
		t.Errorf("added to %s, %v, %v; want %s", file, changed, err, want)
	}
	if _, changed, err := p.AddImage(name, sum("p3"), "v2.2"); changed || err != nil {
		t.Errorf("added again: %v, %v", changed, err)
	}
	for file, list := range map[string]string{
		"v1.1.0/linux/arm64/crane": "v1.1.0.yaml",
		"v1.2.0/linux/amd64/crane": "v1.2.0.yaml",
		"install.sh":               "files.yaml",
	} {
		p, name, err := tree.Locate("https://origin.example.org/files/crane/" + file)
		if err != nil || name != file {
			t.Fatalf("located %v, %q, %v", p, name, err)
		}
		got, changed, err := p.AddFile(name, sum(file))
		if want := filepath.Join(files, "manifests/staging-crane", list); got != want || !changed || err != nil {
			t.Errorf("%s added to %s, %v, %v; want %s", file, got, changed, err, want)
		}
	}
	after := read(t, images, files)
	if got := after.Projects[0].Files; len(got) != 6 {
		t.Errorf("files listed afterwards: %v, want 6", got)
	}
	if got := after.Projects[1].Images[1].Entries; len(got) != 3 || got[2].Digest != sum("p3") {
		t.Errorf("pilot afterwards: %v, want the third digest last", got)
	}
}

func TestLocateTellsApartWhatItCan(t *testing.T) {
	const host = "registry.example.org/prod"
	tree := read(t, write(t, thin(map[string][2]string{
		"kubernetes": {host + " " + host + "/kubernetes", one("pause", "a")},
		"etcd":       {host + " " + host + "/kubernetes", one("etcd", "b")},
		"alpha":      {host + "/alpha", one("x", "c")},
	})))
	for name, want := range map[string]string{
		host + "/alpha/new":                           "alpha new",
		host + "/kubernetes/pause":                    "kubernetes pause",
		"staging.example.org/staging-etcd/deep/image": "etcd deep/image",
		host + "/pause":                               "kubernetes pause",
	} {
		if p, below, err := tree.Locate(name); err != nil || p.Name+" "+below != want {
			t.Errorf("Locate(%q) = %v, %q, %v; want %s", name, p, below, err, want)
		}
	}
	for name, want := range map[string]string{
		"docker.io/library/nginx": "no project has",
		host + "/new":             "may belong to any of",
	} {
		if _, _, err := tree.Locate(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Locate(%q): error %v, want %q", name, err, want)
		}
	}
}

// An entry added to any list of the real tree is lines added to it, and nothing
// else: what a reviewer sees is what was added.
func TestAddingToRealListsOnlyAddsLines(t *testing.T) {
	tree, err := config.Read(realTree(t), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range tree.Projects {
		for _, file := range p.Lists {
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var after []byte
			lines := 2 // a new file's, or those of a digest with its tag a line
			if p.Kind == config.Files {
				after, err = config.InsertFile(before, "v999.0.0/linux/amd64/new", sum("new"))
			} else if len(p.Images) == 0 {
				continue
			} else {
				image := p.Images[len(p.Images)/2]
				after, err = config.InsertImage(before, image.Name, sum("new"), "v1.999.0")
				if !strings.Contains(string(after), "- v1.999.0") {
					lines = 1
				}
			}
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			was, is := strings.Fields(strings.ReplaceAll(string(before), " ", "_")), strings.Fields(strings.ReplaceAll(string(after), " ", "_"))
			added := 0
			for _, line := range is {
				if len(was) > 0 && line == was[0] {
					was = was[1:]
				} else {
					added++
				}
			}
			if added != lines || len(was) > 0 {
				t.Errorf("%s: %d lines were added, want %d; %d were lost", file, added, lines, len(was))
			}
		}
	}
}
