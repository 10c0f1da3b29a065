package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every example of the guide is read without a problem.
func TestExamplesOfTheGuideAreValid(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "PROMOTION.md"))
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{
		"# promoter-manifest.yaml":     "images-tree/manifests/staging-harbour/promoter-manifest.yaml",
		"# images.yaml":                "images-tree/images/staging-harbour/images.yaml",
		"# filepromoter-manifest.yaml": "files-tree/filestores/staging-crane/filepromoter-manifest.yaml",
		"# v1.0.0.yaml":                "files-tree/manifests/staging-crane/v1.0.0.yaml",
		"registries:":                  "plain.yaml",
	}
	files := map[string]string{}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		first, _, _ := strings.Cut(block[1], "\n")
		switch place := places[first]; {
		case place != "":
			files[place] = block[1]
		case strings.HasPrefix(first, "- name: "):
			files["list.yaml"] = plainImages(block[1])
		default:
			t.Errorf("an example of no known kind:\n%s", block[1])
		}
	}
	if len(files) != len(places)+1 {
		t.Errorf("%d examples, want one of each of %d kinds", len(files), len(places)+1)
	}
	dir := write(t, files)
	for _, root := range []string{"images-tree", "files-tree", "plain.yaml", "list.yaml"} {
		if tree := read(t, filepath.Join(dir, root)); len(tree.Projects) != 1 {
			t.Errorf("%s: %d projects, want 1", root, len(tree.Projects))
		}
	}
}
