package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"entrepot/promote/bundle"
	"entrepot/promote/ledger"
)

// exporter exports from a server that has what a bundle has. When it is asked for the
// first time, somebody promotes.
type exporter struct {
	near   *nearSide
	config string
	list   string
	url    string
}

func newExporter(t *testing.T, near *nearSide, serves *bundle.Contents, meanwhile ...ledger.Entry) *exporter {
	t.Helper()
	r, err := bundle.Open(t.Context(), near.write(t, "served.tar", serves))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	served, promote := r.Handler(), sync.OnceFunc(func() {
		if len(meanwhile) > 0 {
			near.promote(t, meanwhile...)
		}
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		promote()
		served.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	config := fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: "127.0.0.1:0"
  store: {dir: %[1]s/store}
  upstreams:
    registry.test: {ledger: {url: "file://%[2]s/ledger", key: %[3]s}}
    plain.test: {}
  files:
    dl.test: {ledger: {url: "file://%[2]s/ledger", key: %[3]s}}
`, dir, near.dir, near.key)
	return &exporter{near: near, config: writeFile(t, dir, "config.yaml", config), list: filepath.Join(dir, "images"), url: server.URL}
}

// export writes a bundle of images and files, and returns its path.
func (e *exporter) export(t *testing.T, images string, more ...string) (string, outcome) {
	t.Helper()
	if err := os.WriteFile(e.list, []byte(images), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.tar")
	return path, entrepot(t, append([]string{"export", "--config", e.config, "--from", e.url, "--images", e.list, "-o", path}, more...)...)
}

func TestExportWritesNoNameThatItsLedgerDoesNotProve(t *testing.T) {
	near := newNearSide(t)
	contents, entries := near.contents(t, map[string]string{"app:v1": "one", "app:v2": "two"}, nil)
	for _, e := range entries {
		if e.Name == "app:v1" {
			near.promote(t, e)
		}
	}
	e := newExporter(t, near, contents)
	path, got := e.export(t, "registry.test/app:v1\nregistry.test/app:v2\n")
	got.check(t, exitFailed, "", "registry.test/app:v2: the ledger does not say so: it has no such name")
	if strings.Contains(got.stderr, "app:v1:") {
		t.Errorf("what is proven is among what is not: %s", got.stderr)
	}
	if _, err := os.Stat(path + ".sha256sums"); err == nil {
		t.Error("the bundle says that it is complete")
	}
	path, got = e.export(t, "registry.test/app:v1\nregistry.test/app:v2\n", "--unproven")
	got.check(t, exitDone, "no ledger proves what 1 of them are", "")
	config, _ := farNode(t, near.key)
	entrepot(t, "import", path, "--config", config).check(t, exitFailed, "", "app:v2: the ledger does not say so")
}

func TestExportReadsTheLedgerAgainWhenSomebodyPromotedMeanwhile(t *testing.T) {
	near := newNearSide(t)
	_, before := near.contents(t, map[string]string{"app:v1": "one"}, map[string]string{"stable": "before"})
	near.promote(t, before...)
	contents, meanwhile := near.contents(t, map[string]string{"app:v1": "one", "app:v2": "two"}, map[string]string{"stable": "after"})
	e := newExporter(t, near, contents, meanwhile...)
	path, got := e.export(t, "registry.test/app:v1\nregistry.test/app:v2\n", "--files", "stable")
	got.check(t, exitDone, "2 images and 1 files are in", "")
	config, _ := farNode(t, near.key)
	entrepot(t, "import", path, "--config", config).check(t, exitDone, "", "")
	paths := []string{"/v2/registry.test/app/manifests/v2", "/dl.test/stable"}
	if got := answers(t, config, paths); !strings.HasPrefix(got[paths[0]], "200 ") || got[paths[1]] != "200 after" {
		t.Errorf("the far side answers %v", got)
	}
}

// Names of an upstream that has no ledger are what the node says, and are told.
func TestExportTellsOfNamesThatHaveNoLedger(t *testing.T) {
	near := newNearSide(t)
	contents, entries := near.contents(t, map[string]string{"app:v1": "one"}, nil)
	near.promote(t, entries...)
	contents.Images[0].Upstream = "plain.test"
	_, got := newExporter(t, near, contents).export(t, "plain.test/app:v1\n")
	got.check(t, exitDone, "no ledger proves what 1 of them are: import takes them with --unproven only", "")
}
