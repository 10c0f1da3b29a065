package promote_test

import (
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"entrepot/e2e/testenv"
	"entrepot/promote"
	"entrepot/promote/config"

	"github.com/opencontainers/go-digest"
)

func TestASnapshotIsConfigurationThatSaysWhatIsThere(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	signed := testenv.PushFile(t, w.staging.host, "staging/sub/signed", "rc1", 1<<10)
	testenv.PushCosignSignature(t, w.staging.host, signed)
	testenv.PushFile(t, w.prod.host, "application/other", "v1", 1<<10) // beside "app", not below it
	list := images{"tool": {a: {"v1", "v1.0"}, b: {"v2"}}, "sub/signed": {signed.Root.Digest: {"v1"}}}
	w.list(list)
	w.promoted()
	w.prod.misbehave(func(rw http.ResponseWriter, r *http.Request) bool { // as registries do that have a catalog
		if r.URL.Path != "/v2/_catalog" {
			return false
		}
		_, err := rw.Write([]byte(`{"repositories":["app/sub/signed","app/tool","application/other"]}`))
		return err == nil
	})

	p, err := promote.Snapshot(t.Context(), w.client(), w.prod.host+"/app", w.staging.host+"/staging")
	if err != nil {
		t.Fatal(err)
	}
	// Read back, it is the same, and there is nothing to do for it.
	write(t, w.file, string(config.FormatPlain(p)))
	tree := w.tree()
	if len(tree.Problems) != 0 || len(tree.Projects) != 1 {
		t.Fatalf("the snapshot has problems: %v", tree.Problems)
	}
	got := images{}
	for _, image := range tree.Projects[0].Images {
		got[image.Name] = map[digest.Digest][]string{}
		for _, e := range image.Entries {
			got[image.Name][e.Digest] = e.Tags
		}
	}
	if !maps.EqualFunc(got, list, func(x, y map[digest.Digest][]string) bool { return maps.EqualFunc(x, y, slices.Equal) }) {
		t.Errorf("got %v, want %v", got, list)
	}
	if tree.Projects[0].Source != w.staging.host+"/staging" || !slices.Equal(tree.Projects[0].Destinations, []string{w.prod.host + "/app"}) {
		t.Errorf("from %q to %q", tree.Projects[0].Source, tree.Projects[0].Destinations)
	}
	expect(t, w.plan().Items)
}

func TestASnapshotOfFilesSaysWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	contents := map[string]string{"v1/tool": "a tool", "v1/sub/README": "read me", "stable.txt": "v1"}
	for name, content := range contents {
		write(t, filepath.Join(dir, "prod", name), content)
	}
	w := newWorld(t)
	p, err := promote.Snapshot(t.Context(), w.client(), "file://"+dir+"/prod", "file://"+dir+"/staging")
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.file, string(config.FormatPlain(p)))
	got := map[string]digest.Digest{}
	for _, f := range w.tree().Projects[0].Files {
		got[f.Name] = f.SHA256
	}
	want := map[string]digest.Digest{}
	for name, content := range contents {
		want[name] = digest.FromString(content)
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
