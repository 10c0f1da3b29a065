package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/promote/bundle"
	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// forgedBundle writes a bundle in which app:v1 of an upstream is what the ledger has as
// sandbox/app:v1 of registry.test, and which says that the ledger calls the upstream by
// that name. It has a true upstream, registry.test, too. It returns its path, and that of the ledger's public key.
func forgedBundle(t *testing.T, upstream string) (path, key string) {
	t.Helper()
	dir := t.TempDir()
	key = filepath.Join(dir, "key")
	if err := ledger.GenerateKey("origin.test/ledger", key); err != nil {
		t.Fatal(err)
	}
	signer, err := ledger.LoadKey(key)
	if err != nil {
		t.Fatal(err)
	}
	storage := ledger.NewDir(filepath.Join(dir, "ledger"))
	log, err := ledger.New(t.Context(), storage, ledger.Config{Key: signer})
	if err != nil {
		t.Fatal(err)
	}
	manifest := []byte("{}")
	sandbox := digest.FromBytes(manifest)
	set := func(name string, d digest.Digest) ledger.Entry {
		return ledger.Entry{Kind: ledger.Image, Action: ledger.Set, Name: name, Destinations: []string{"registry.test"}, Digest: d}
	}
	_, err = log.Append(t.Context(), func(*ledger.State) ([]ledger.Entry, error) {
		return []ledger.Entry{set("app:v1", digest.FromString("app")), set("sandbox/app:v1", sandbox)}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "bundle.tar")
	w, err := bundle.Create(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Add(sandbox, int64(len(manifest)), func(to io.Writer) error { _, err := to.Write(manifest); return err })
	if err != nil {
		t.Fatal(err)
	}
	room := fmt.Sprintf("%q", strings.Repeat("x", 80))
	err = w.Finish(t.Context(), &bundle.Contents{
		Upstreams: []bundle.Upstream{{Name: strings.Trim(room, `"`), Kind: ledger.Image}, {Name: "registry.test", Kind: ledger.Image}},
		Images: []bundle.Image{{Upstream: upstream, Repository: "app", Tag: "v1", Root: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: sandbox, Size: int64(len(manifest)),
		}}},
	}, storage, log.Checkpoint())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lie := fmt.Sprintf(`%q, "names": ["registry.test/sandbox"]`, upstream)
	forged := strings.Replace(string(whole), room, lie+strings.Repeat(" ", len(room)-len(lie)), 1)
	writeFile(t, dir, "bundle.tar", forged)
	writeFile(t, dir, "bundle.tar.sha256sums", digest.FromString(forged).Encoded()+"  bundle.tar\n")
	return path, key + ".pub"
}

func TestImportTakesNamesFromTheOperatorAlone(t *testing.T) {
	t.Run("into an origin", func(t *testing.T) {
		asked := 0
		origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			w.WriteHeader(http.StatusTeapot)
		}))
		defer origin.Close()
		path, key := forgedBundle(t, "outside.test")
		push := []string{"import", path, "--to", origin.URL, "--key", key}
		entrepot(t, push...).check(t, exitUsage, "", "needs --name")
		entrepot(t, append(push, "--name", "registry.test")...).check(t, exitFailed, "", "the ledger does not say so: it is sha256:")
		entrepot(t, append(push, "--name", "registry.test", "--unproven")...).check(t, exitFailed, "", "the ledger does not say so: it is sha256:")
		if asked > 0 {
			t.Errorf("%d requests for what is not proven", asked)
		}
	})
	t.Run("into a node", func(t *testing.T) {
		path, key := forgedBundle(t, "near.test") // which has no ledger in the configuration
		dir := t.TempDir()
		config := writeFile(t, dir, "config.yaml", fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: "127.0.0.1:0"
  store: {dir: %[1]s/store}
  upstreams:
    near.test: {offline: true}
    registry.test: {offline: true, ledger: {url: "file://%[1]s/ledger", key: %[2]s}}
`, dir, key))
		entrepot(t, "import", path, "--config", config).check(t, exitFailed, "", "near.test/app:v1: the ledger does not say so: it has no such name")
	})
}
