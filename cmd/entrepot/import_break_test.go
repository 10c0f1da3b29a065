package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"entrepot/promote/bundle"
	"entrepot/promote/ledger"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// nearSide promotes images and files, and writes bundles of all that is promoted.
type nearSide struct {
	dir     string
	key     string // of the ledger, public
	storage ledger.Storage
	log     *ledger.Log
	blobs   map[digest.Digest][]byte
}

func newNearSide(t *testing.T) *nearSide {
	t.Helper()
	n := &nearSide{dir: t.TempDir(), blobs: map[digest.Digest][]byte{}}
	n.key = filepath.Join(n.dir, "key")
	if err := ledger.GenerateKey("origin.test/ledger", n.key); err != nil {
		t.Fatal(err)
	}
	signer, err := ledger.LoadKey(n.key)
	if err != nil {
		t.Fatal(err)
	}
	n.key += ".pub"
	n.storage = ledger.NewDir(filepath.Join(n.dir, "ledger"))
	if n.log, err = ledger.New(t.Context(), n.storage, ledger.Config{Key: signer}); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *nearSide) blob(content string) ocispec.Descriptor {
	d := digest.FromString(content)
	n.blobs[d] = []byte(content)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(content))}
}

// image is a manifest of two layers that nobody else has.
func (n *nearSide) image(t *testing.T, content string) ocispec.Descriptor {
	t.Helper()
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: n.blob("{}"), Layers: []ocispec.Descriptor{n.blob(content + ", the first layer"), n.blob(content + ", the second layer")},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := n.blob(string(body))
	d.MediaType = ocispec.MediaTypeImageManifest
	return d
}

// bundle promotes images and files by their names, and writes a bundle of them.
func (n *nearSide) bundle(t *testing.T, name string, images, files map[string]string) string {
	t.Helper()
	contents, entries := n.contents(t, images, files)
	n.promote(t, entries...)
	return n.write(t, name, contents)
}

// contents are images and files by their names, with what a ledger says of them.
func (n *nearSide) contents(t *testing.T, images, files map[string]string) (*bundle.Contents, []ledger.Entry) {
	t.Helper()
	contents := &bundle.Contents{Upstreams: []bundle.Upstream{{Name: "registry.test", Kind: ledger.Image}, {Name: "dl.test", Kind: ledger.File}}}
	var entries []ledger.Entry
	for ref, content := range images {
		root := n.image(t, content)
		repo, tag, _ := strings.Cut(ref, ":")
		entries = append(entries, ledger.Entry{Kind: ledger.Image, Action: ledger.Set, Name: ref, Destinations: []string{"registry.test"}, Digest: root.Digest})
		contents.Images = append(contents.Images, bundle.Image{Upstream: "registry.test", Repository: repo, Tag: tag, Root: root})
	}
	for path, content := range files {
		d := n.blob(content)
		entries = append(entries, ledger.Entry{Kind: ledger.File, Action: ledger.Set, Name: path, Destinations: []string{"https://dl.test"}, Digest: d.Digest, Size: d.Size})
		contents.Files = append(contents.Files, bundle.File{Upstream: "dl.test", Path: path, Digest: d.Digest, Size: d.Size})
	}
	return contents, entries
}

func (n *nearSide) promote(t *testing.T, entries ...ledger.Entry) {
	t.Helper()
	if _, err := n.log.Append(t.Context(), func(*ledger.State) ([]ledger.Entry, error) { return entries, nil }); err != nil {
		t.Fatal(err)
	}
}

func (n *nearSide) write(t *testing.T, name string, contents *bundle.Contents) string {
	t.Helper()
	path := filepath.Join(n.dir, name)
	w, err := bundle.Create(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	for d, content := range n.blobs {
		if err := w.Add(d, int64(len(content)), func(to io.Writer) error { _, err := to.Write(content); return err }); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(t.Context(), contents, n.storage, n.log.Checkpoint()); err != nil {
		t.Fatal(err)
	}
	return path
}

// farNode is the configuration of a node without a network.
func farNode(t *testing.T, key string) (config, dir string) {
	t.Helper()
	dir = t.TempDir()
	return writeFile(t, dir, "config.yaml", fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: "127.0.0.1:0"
  store: {dir: %[1]s/store}
  upstreams:
    registry.test: {offline: true, ledger: {url: "file://%[1]s/ledger", key: %[2]s}}
  files:
    dl.test: {offline: true, ledger: {url: "file://%[1]s/ledger", key: %[2]s}}
`, dir, key)), dir
}

// answers are what a node says to paths, when it has just started.
func answers(t *testing.T, config string, paths []string) map[string]string {
	t.Helper()
	cfg, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log.Level = "error"
	logs := newLoggers(cfg.Log, io.Discard)
	defer logs.close()
	n, err := openNode(cfg.Node, logs, prometheus.NewRegistry(), readVersion())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	for _, f := range n.follow {
		if err := f.Poll(t.Context()); err != nil && !errors.Is(err, ledger.ErrNotExist) {
			t.Error(err)
		}
	}
	got := map[string]string{}
	for _, path := range paths {
		w := httptest.NewRecorder()
		n.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		got[path] = fmt.Sprintf("%d %s", w.Code, w.Body)
	}
	return got
}

// An import that breaks off anywhere has the node serve, by every name, what it served
// before; another one goes on, and then all is served.
func TestAnImportThatBreaksOffChangesNoName(t *testing.T) {
	near := newNearSide(t)
	old := near.bundle(t, "old.tar", map[string]string{"app:v1": "one", "app:moves": "before"}, map[string]string{"v1/tool": "tool one"})
	images := map[string]string{"app:v1": "one", "app:moves": "after", "app:v2": "two", "new:v1": "new"}
	files := map[string]string{"v1/tool": "tool one", "v2/tool": "tool two"}
	newer := near.bundle(t, "new.tar", images, files)

	var paths []string
	for ref := range images {
		repo, tag, _ := strings.Cut(ref, ":")
		paths = append(paths, "/v2/registry.test/"+repo+"/manifests/"+tag)
	}
	paths = append(paths, "/v2/registry.test/app/tags/list", "/v2/registry.test/new/tags/list", "/dl.test/v1/tool", "/dl.test/v2/tool", "/dl.test/", "/dl.test/v2/")

	damaged := filepath.Join(t.TempDir(), "damaged.tar")
	whole, err := os.ReadFile(newer)
	if err != nil {
		t.Fatal(err)
	}
	whole = bytes.Replace(whole, []byte("new, the second layer"), []byte("new, the second lawyr"), 1)
	writeFile(t, filepath.Dir(damaged), "damaged.tar", string(whole))
	writeFile(t, filepath.Dir(damaged), "damaged.tar.sha256sums", digest.FromBytes(whole).Encoded()+"  damaged.tar\n")

	breaks := map[string]func(t *testing.T, config, dir string){
		"a wrong byte": func(t *testing.T, config, _ string) {
			entrepot(t, "import", damaged, "--config", config).check(t, exitFailed, "", "wrong bytes")
		},
		"no room for the ledger": func(t *testing.T, config, dir string) {
			// Where a tile is to be, there is something else.
			entries := filepath.Join(dir, "ledger", "tile", "entries", "000.p")
			moved := filepath.Join(dir, "moved")
			if err := os.Rename(entries, moved); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Dir(entries), "000.p", "")
			if got := entrepot(t, "import", newer, "--config", config); got.status != exitFailed {
				t.Errorf("status %d, want %d: %s", got.status, exitFailed, got.stderr)
			}
			if err := errors.Join(os.Remove(entries), os.Rename(moved, entries)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for step := range len(images) + len(files) + len(images) { // their content, and what images consist of
		breaks[fmt.Sprintf("after step %d", step)] = func(t *testing.T, config, _ string) { importBroken(t, newer, config, step) }
	}
	for name, interrupt := range breaks {
		t.Run(name, func(t *testing.T) {
			config, dir := farNode(t, near.key)
			entrepot(t, "import", old, "--config", config).check(t, exitDone, "", "")
			before := answers(t, config, paths)
			interrupt(t, config, dir)
			if diff := cmp.Diff(before, answers(t, config, paths)); diff != "" {
				t.Errorf("what is served changed (-before +after):\n%s", diff)
			}
			entrepot(t, "import", newer, "--config", config).check(t, exitDone, "4 images and 2 files are in", "")
			for path, got := range answers(t, config, paths) {
				if !strings.HasPrefix(got, "200 ") {
					t.Errorf("%s is answered with %s", path, got)
				}
			}
		})
	}
}

// importBroken runs an import that is interrupted after a step.
func importBroken(t *testing.T, path, config string, step int) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	i := importing{config: config, step: func() {
		if step--; step < 0 {
			end()
		}
	}}
	var cmd cobra.Command
	cmd.SetErr(io.Discard)
	cmd.SetOut(io.Discard)
	if err := i.run(ctx, &cmd, []string{path}); !errors.Is(err, context.Canceled) {
		t.Errorf("the import that was to break off came to %v", err)
	}
}

// When the ledger is in its place already, the names of files that were there lead to
// what it says, and new ones are not there yet.
func TestAnImportThatBreaksOffBehindTheLedgerKeepsNamesOfFiles(t *testing.T) {
	near := newNearSide(t)
	old := near.bundle(t, "old.tar", map[string]string{"app:v1": "one"}, map[string]string{"stable": "before", "v1/tool": "tool one"})
	newer := near.bundle(t, "new.tar", map[string]string{"app:v2": "two"}, map[string]string{"stable": "after", "v2/tool": "tool two"})
	paths := []string{"/dl.test/stable", "/dl.test/v1/tool", "/dl.test/v2/tool", "/v2/registry.test/app/manifests/v2"}
	config, _ := farNode(t, near.key)
	entrepot(t, "import", old, "--config", config).check(t, exitDone, "", "")
	importBroken(t, newer, config, 4) // content of three, an image, and the ledger
	got := answers(t, config, paths)
	for path, want := range map[string]string{paths[0]: "200 after", paths[1]: "200 tool one", paths[2]: "404 ", paths[3]: "200 "} {
		if !strings.HasPrefix(got[path], want) {
			t.Errorf("%s is answered with %s, want %s", path, got[path], want)
		}
	}
	entrepot(t, "import", newer, "--config", config).check(t, exitDone, "", "")
	if got := answers(t, config, paths)[paths[2]]; got != "200 tool two" {
		t.Errorf("after another import %s is answered with %s", paths[2], got)
	}
}

// On the first import there is nothing before.
func TestAFirstImportThatBreaksOffShowsNothing(t *testing.T) {
	near := newNearSide(t)
	path := near.bundle(t, "bundle.tar", map[string]string{"app:v1": "one", "app:v2": "two"}, map[string]string{"v1/tool": "tool one"})
	paths := []string{"/v2/registry.test/app/manifests/v1", "/v2/registry.test/app/manifests/v2", "/v2/registry.test/app/tags/list", "/dl.test/v1/tool"}
	for step := range 5 {
		config, _ := farNode(t, near.key)
		importBroken(t, path, config, step)
		for path, got := range answers(t, config, paths) {
			if !strings.HasPrefix(got, "404 ") {
				t.Errorf("broken off after step %d, %s is answered with %s", step, path, got)
			}
		}
		entrepot(t, "import", path, "--config", config).check(t, exitDone, "2 images and 1 files are in", "")
		for path, got := range answers(t, config, paths) {
			if !strings.HasPrefix(got, "200 ") {
				t.Errorf("%s is answered with %s", path, got)
			}
		}
	}
}

// What a bundle's ledger revokes goes from the disk when the ledger is in its place.
func TestARevocationCountsFromWhenTheImportIsDone(t *testing.T) {
	near := newNearSide(t)
	old := near.bundle(t, "old.tar", map[string]string{"app:v1": "one"}, nil)
	entry, _ := near.log.State().LookupFull("registry.test/app:v1")
	near.promote(t, ledger.Entry{Action: ledger.Revoke, Name: entry.Digest.String(), Digest: entry.Digest, Reason: "it is bad"})
	newer := near.bundle(t, "new.tar", map[string]string{"app:v2": "two"}, nil)
	path := "/v2/registry.test/app/manifests/v1"
	config, dir := farNode(t, near.key)
	blob := filepath.Join(dir, "store", "blobs", "sha256", entry.Digest.Encoded()[:2], entry.Digest.Encoded(), "data")
	entrepot(t, "import", old, "--config", config).check(t, exitDone, "", "")
	importBroken(t, newer, config, 1)
	if got := answers(t, config, []string{path})[path]; !strings.HasPrefix(got, "200 ") {
		t.Errorf("before the ledger is in its place: %s", got)
	}
	entrepot(t, "import", newer, "--config", config).check(t, exitDone, "", "")
	if got := answers(t, config, []string{path})[path]; !strings.HasPrefix(got, "451 ") {
		t.Errorf("when it is: %s", got)
	}
	if _, err := os.Stat(blob); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was revoked is on the disk: %v", err)
	}
}

// killedImport has a process of this test import a bundle and kill itself: it is the
// configuration, the bundle and the step after which.
const killedImport = "ENTREPOT_TEST_KILLED_IMPORT"

// A process that is killed closes nothing.
func TestAnImportThatIsKilledChangesNoName(t *testing.T) {
	if what := os.Getenv(killedImport); what != "" {
		importUntilKilled(t, what)
	}
	near := newNearSide(t)
	old := near.bundle(t, "old.tar", map[string]string{"app:v1": "one"}, map[string]string{"stable": "before"})
	newer := near.bundle(t, "new.tar", map[string]string{"app:v1": "another", "app:v2": "two"}, map[string]string{"stable": "after"})
	paths := []string{"/v2/registry.test/app/manifests/v1", "/v2/registry.test/app/manifests/v2", "/v2/registry.test/app/tags/list", "/dl.test/stable", "/dl.test/"}
	for step := range 5 { // content of three names, and two images
		config, _ := farNode(t, near.key)
		entrepot(t, "import", old, "--config", config).check(t, exitDone, "", "")
		before := answers(t, config, paths)
		killed := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestAnImportThatIsKilledChangesNoName$")
		killed.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%s\n%d", killedImport, config, newer, step))
		if out, err := killed.CombinedOutput(); err == nil || killed.ProcessState.ExitCode() >= 0 {
			t.Fatalf("the import was not killed: %v, %s", err, out)
		}
		if diff := cmp.Diff(before, answers(t, config, paths)); diff != "" {
			t.Errorf("killed after step %d, what is served changed (-before +after):\n%s", step, diff)
		}
		entrepot(t, "import", newer, "--config", config).check(t, exitDone, "2 images and 1 files are in", "")
		if got := answers(t, config, paths); got["/dl.test/stable"] != "200 after" || !strings.HasPrefix(got[paths[1]], "200 ") {
			t.Errorf("after another import the node answers %v", got)
		}
	}
}

func importUntilKilled(t *testing.T, what string) {
	parts := strings.Split(what, "\n")
	step, err := strconv.Atoi(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	i := importing{config: parts[0], step: func() {
		if step--; step < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it comes
		}
	}}
	if err := i.run(t.Context(), new(cobra.Command), parts[1:2]); err != nil {
		t.Fatal(err)
	}
}
