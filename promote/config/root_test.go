package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/promote/config"
)

func TestTreeWhoseHalvesDoNotMatch(t *testing.T) {
	ok := [2]string{"registry.example.org/alpha", "- name: x\n  dmap: {sha256:" + hex("a") + ": [v1]}\n"}
	for name, test := range map[string]struct {
		change func(files map[string]string)
		told   []string
	}{
		"a list without a manifest": {
			func(f map[string]string) { f["images/beta/images.yaml"] = ok[1] },
			[]string{`images/beta/images.yaml: has no manifests/beta/promoter-manifest.yaml, so that nothing says where it is promoted to; the list is set aside`},
		},
		"an empty list without a manifest": {
			func(f map[string]string) { f["images/beta/images.yaml"] = "# none yet\n" },
			[]string{`(images/beta/images.yaml: lists nothing, and has no manifests/beta/promoter-manifest.yaml)`},
		},
		"folders that differ by a slip": {
			func(f map[string]string) {
				f["images/betta/images.yaml"] = ok[1]
				f["manifests/beta/promoter-manifest.yaml"] = f["manifests/alpha/promoter-manifest.yaml"]
			},
			[]string{
				`images/betta/images.yaml: has no manifests/betta/promoter-manifest.yaml, so that nothing says where it is promoted to; the list is set aside`,
				`manifests/beta: has no folder images/beta; is images/betta meant?; the project is set aside`,
			},
		},
		"files of other names": {
			func(f map[string]string) {
				f["images/alpha/image.yaml"] = ok[1]
				f["manifests/alpha/OWNERS"] = "approvers: []"
				f["manifests/alpha/promoter-manifest.yml"] = ""
				f["images/loose.yaml"] = ok[1]
			},
			[]string{
				`images/alpha/image.yaml: is not read; the list of a project is called images.yaml`,
				`images/loose.yaml: stands beside the projects' folders and is not read; move it into a project's folder`,
				`manifests/alpha/promoter-manifest.yml: is not read; the manifest of a project is called promoter-manifest.yaml`,
			},
		},
		"a manifest that is missing": {
			func(f map[string]string) {
				f["manifests/beta/README.md"] = ""
				f["images/beta/images.yaml"] = ok[1]
			},
			[]string{`manifests/beta: has no file promoter-manifest.yaml; the project is set aside`},
		},
		"a list that names another place": {
			func(f map[string]string) {
				f["manifests/alpha/promoter-manifest.yaml"] += "imagesPath: ../../elsewhere.yaml\n"
			},
			[]string{`manifests/alpha/promoter-manifest.yaml:5: imagesPath "../../elsewhere.yaml" is not where the list is; the list of a project is always images/alpha/images.yaml`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			files := thin(map[string][2]string{"alpha": ok})
			test.change(files)
			check(t, files, "", test.told, []string{"alpha/x@av1"})
		})
	}
	t.Run("manifest for manifests", func(t *testing.T) {
		check(t, map[string]string{"manifest/a/promoter-manifest.yaml": "", "images/a/images.yaml": ok[1]}, "",
			[]string{`ROOT: the tree has no folder manifests/; there is manifest/ (did you mean manifests/?)`}, nil)
	})
}

func TestSymbolicLinksStayInTheTree(t *testing.T) {
	ok := [2]string{"registry.example.org/alpha", "- name: x\n  dmap: {sha256:" + hex("a") + ": [v1]}\n"}
	files := thin(map[string][2]string{"alpha": ok})
	files["outside/images.yaml"] = ok[1]
	files["tree/README.md"] = ""
	dir := write(t, files)
	for _, half := range []string{"images", "manifests"} {
		if err := os.Rename(filepath.Join(dir, half), filepath.Join(dir, "tree", half)); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"images/beta":              "../../outside",
		"images/gamma":             "nowhere",
		"manifests/alias":          "alpha",
		"images/alias":             "alpha",
		"images/delta/images.yaml": filepath.Join(dir, "outside/images.yaml"),
	} {
		path := filepath.Join(dir, "tree", link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := config.Read([]string{filepath.Join(dir, "tree")}, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, p := range tree.Problems {
		if strings.Contains(p.Message, "symbolic") {
			told = append(told, strings.ReplaceAll(p.String(), dir+"/", ""))
		}
	}
	want := []string{
		"tree/images/beta: is a symbolic link out of the tree, to outside; it is set aside",
		"tree/images/delta/images.yaml: is a symbolic link out of the tree, to outside/images.yaml; it is set aside",
		"tree/images/gamma: is a symbolic link that leads nowhere; it is set aside",
	}
	if d := diff(want, told); d != "" {
		t.Error(d)
	}
	if len(tree.Projects) != 2 {
		t.Errorf("%d projects stand, want alpha and its alias", len(tree.Projects))
	}
}

func TestHalfOfATreeThatIsALinkOutOfItIsSetAside(t *testing.T) {
	dir := write(t, map[string]string{"outside/a/images.yaml": "", "tree/manifests/a/promoter-manifest.yaml": ""})
	if err := os.Symlink("../outside", filepath.Join(dir, "tree", "images")); err != nil {
		t.Fatal(err)
	}
	tree, err := config.Read([]string{filepath.Join(dir, "tree")}, config.Options{})
	if err != nil || len(tree.Problems) != 1 || !strings.Contains(tree.Problems[0].String(), "tree/images: is a symbolic link out of the tree") {
		t.Errorf("error %v, tree %+v; want the link named", err, tree)
	}
}

func TestProjectsOfOneNameAreTold(t *testing.T) {
	dir := write(t, map[string]string{"a/x.yaml": plainImages("- name: a\n  dmap: {}\n"), "b/x.yaml": plainImages("- name: a\n  dmap: {}\n")})
	tree, err := config.Read([]string{filepath.Join(dir, "a", "x.yaml"), filepath.Join(dir, "b", "x.yaml")}, config.Options{Strict: true})
	want := filepath.Join(dir, "b", "x.yaml") + ": the project has the name of another, " + filepath.Join(dir, "a", "x.yaml") + "; the ledger cannot tell them apart"
	if err != nil || len(tree.Problems) != 1 || tree.Problems[0].String() != want {
		t.Errorf("error %v, problems %v; want %s", err, tree, want)
	}
}
