package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"entrepot/promote/bundle"
	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"
)

// bundleWithoutLedger has an image that no ledger ever named.
func bundleWithoutLedger(t *testing.T, manifest string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "bundle.tar")
	w, err := bundle.Create(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromString(manifest)
	if err := w.Add(d, int64(len(manifest)), func(to io.Writer) error { _, err := io.WriteString(to, manifest); return err }); err != nil {
		t.Fatal(err)
	}
	err = w.Finish(t.Context(), &bundle.Contents{
		Upstreams: []bundle.Upstream{{Name: "registry.test", Kind: ledger.Image}},
		Images: []bundle.Image{{Upstream: "registry.test", Repository: "app", Tag: "v1", Root: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(manifest)),
		}}},
	}, nil, ledger.Checkpoint{})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImportTakesWhatNothingProvesOnlyWhenItIsTold(t *testing.T) {
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`
	path := bundleWithoutLedger(t, manifest)
	dir := t.TempDir()
	config := writeFile(t, dir, "config.yaml", fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: "127.0.0.1:0"
  store: {dir: %s/store}
  upstreams: {registry.test: {offline: true}}
`, dir))
	// ask asks a node of the configuration for the image.
	ask := func() *httptest.ResponseRecorder {
		cfg, err := loadConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		logs := newLoggers(cfg.Log, io.Discard)
		defer logs.close()
		n, err := openNode(cfg.Node, logs, prometheus.NewRegistry(), buildVersion{})
		if err != nil {
			t.Fatal(err)
		}
		n.start(slog.New(slog.DiscardHandler))
		got := httptest.NewRecorder()
		n.handler().ServeHTTP(got, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/registry.test/app/manifests/v1", http.NoBody))
		if err := n.close(t.Context()); err != nil {
			t.Fatal(err)
		}
		return got
	}
	entrepot(t, "import", path, "--config", config).check(t, exitFailed, "", "nothing proves its names; --unproven takes them as they are")
	if got := ask(); got.Code != http.StatusNotFound {
		t.Errorf("what was refused is answered with %d", got.Code)
	}
	entrepot(t, "import", path, "--config", config, "--unproven").check(t, exitDone, "1 images and 0 files are in", "")
	if got := ask(); got.Code != http.StatusOK || got.Body.String() != manifest {
		t.Errorf("what was taken in is answered with %d %s", got.Code, got.Body)
	}
}
