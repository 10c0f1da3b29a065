package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestChartDocumentationIsThatOfItsValues(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	files, err := generate(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what values.yaml makes it (%v): run make chart-docs", name, err)
		}
	}
}

// Each value has a meaning: of its own, or, for roles that share keys, that of
// the node's.
func TestEachValueIsExplained(t *testing.T) {
	text, err := os.ReadFile("../entrepot/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	root, err := parseValues(text)
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	var walk func(v value)
	walk = func(v value) {
		key := v.path
		for _, role := range roles() {
			if rest, ok := bytes.CutPrefix([]byte(key), []byte(role+".")); ok {
				key = "role." + string(rest)
			}
		}
		explained[key] = explained[key] || v.about != ""
		if !explained[key] && len(v.entries) == 0 && last(v.path) != "enabled" && last(v.path) != "create" {
			t.Errorf("line %d: %s has no comment", v.node.Line, v.path)
		}
		for _, entry := range v.entries {
			walk(entry)
		}
	}
	walk(root)
}
