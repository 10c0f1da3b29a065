package e2e

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What testdata/store-v1 holds; see the README there.
const (
	oldManifest = "sha256:b0c4250f7ddafda46575af7bdbaf52446ca8580c4ec7fdb71ae30b65795b4c67"
	oldLayer    = "sha256:805e8d487bccaa2e16026c45d41573620b1bbf10860a2fe9ee09149e3910e593"
	oldFile     = "sha256:7573a9a48ee0e1b2e1fd4d71c5dc440e99f647134e56dbfe90e9055edef19c21"
)

// formatOne is what lies in a store of format 1. An older build reads all of it, and
// passes over the last kinds of records, which it does not know: without them it does
// what it did before there were any. What no longer fits here needs a new format.
var formatOne = regexp.MustCompile(`^(version|lock|scrub` +
	`|blobs/sha256/[0-9a-f]{2}/[0-9a-f]{64}/data` +
	`|spool/sha256-[0-9a-f]{64}\.partial` +
	`|records/(tags|manifests|lists|referrers|files|blobs|node|queries|holders|file-holders|mirror)/.+~)$`)

// previousStores is a copy of the stores of an older build.
func previousStores(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/store-v1")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestStoresOfThePreviousBuildAreServedAndCanGoBackToIt(t *testing.T) {
	dir := previousStores(t)
	origin := testenv.StartOrigin(t, testenv.OriginConfig{Store: map[string]any{"dir": filepath.Join(dir, "origin")}})
	way := testenv.StartRelay(t, origin.Host())
	way.Close()
	node := testenv.StartNode(t, testenv.NodeConfig{
		Store:     map[string]any{"dir": filepath.Join(dir, "node")},
		Upstreams: map[string][]string{"registry.test": {way.URL()}},
		Extra:     map[string]any{"files": map[string]any{"files.test": map[string]any{"urls": []string{way.URL()}}}},
	})
	t.Run("the origin serves what it had", func(t *testing.T) {
		wantDigests(t, origin.URL(), map[string]string{
			"/v2/library/tool/manifests/v1": oldManifest, "/v2/library/tool/blobs/" + oldLayer: oldLayer, "/release/v1/tool": oldFile,
		})
		if got := fetchBody(t, origin.URL()+"/v2/library/tool/referrers/"+oldManifest); strings.Count(string(got), `"digest"`) != 2 {
			t.Errorf("the referrers are %s, want 2", got)
		}
	})
	t.Run("the node serves what it had, with upstream down", func(t *testing.T) {
		image := node.URL() + "/v2/registry.test/library/tool"
		wantDigests(t, node.URL(), map[string]string{
			"/v2/registry.test/library/tool/manifests/v1": oldManifest, "/v2/registry.test/library/tool/blobs/" + oldLayer: oldLayer,
			"/files.test/release/v1/tool": oldFile,
		})
		if got := fetchBody(t, image+"/tags/list"); !strings.Contains(string(got), `"v1"`) {
			t.Errorf("the tags are %s", got)
		}
		if got := fetchBody(t, image+"/referrers/"+oldManifest); strings.Count(string(got), `"digest"`) != 2 {
			t.Errorf("the referrers are %s, want 2", got)
		}
	})
	t.Run("both go on with it", func(t *testing.T) {
		way.Open()
		next := testenv.PushFile(t, origin.Host(), "library/tool", "v2", 5000)
		// An endpoint that was down is left alone for a moment.
		eventually(t, node.URL()+"/v2/registry.test/library/tool/manifests/v2", http.StatusOK, "")
		wantDigests(t, node.URL(), map[string]string{
			"/v2/registry.test/library/tool/manifests/v2":                          string(next.Root.Digest),
			"/v2/registry.test/library/tool/blobs/" + string(next.Blobs[0].Digest): string(next.Blobs[0].Digest),
			"/v2/registry.test/library/tool/manifests/" + string(next.Root.Digest): string(next.Root.Digest),
			"/v2/registry.test/library/tool/manifests/v1":                          oldManifest,
			"/files.test/release/v1/tool":                                          oldFile,
			"/v2/registry.test/library/tool/blobs/" + oldLayer:                     oldLayer,
		})
	})
	node.Stop()
	origin.Stop()
	for _, store := range []string{"node", "origin", "origin/files"} {
		t.Run("the older build can read "+store, func(t *testing.T) {
			wantFormatOne(t, filepath.Join(dir, store))
			got := testenv.Entrepot(t, t.TempDir(), "store", "check", "--deep", filepath.Join(dir, store))
			if got.Status != 0 {
				t.Errorf("checking it: status %d\n%s%s", got.Status, got.Stdout, got.Stderr)
			}
		})
	}
}

// wantFormatOne checks that there is nothing in a store that an older build does
// not know.
func wantFormatOne(t *testing.T, dir string) {
	t.Helper()
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil || strings.TrimSpace(string(version)) != "1" {
		t.Errorf("the store says %q, %v: an older build refuses it", version, err)
	}
	err = fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == "files" || path == "uploads": // another store; uploads in progress
			return fs.SkipDir
		case !entry.IsDir() && !formatOne.MatchString(path):
			t.Errorf("an older build does not know %s", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStoreOfANewerBuildIsRefusedAndLeftAlone(t *testing.T) {
	dir := filepath.Join(previousStores(t), "node")
	const newer = "2\nentrepot 9.9 reads this\n"
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "entrepot.yaml")
	text := "admin: {listen: \"127.0.0.1:0\"}\nnode: {listen: \"127.0.0.1:0\", store: {dir: " + dir + "}, upstreams: {registry.test: {}}}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve", "--config", config}, {"store", "check", dir}, {"store", "repair", "--confirm", dir}, {"store", "scrub", dir}} {
		got := testenv.Entrepot(t, t.TempDir(), args...)
		if got.Status != 1 || !strings.Contains(got.Stderr, "newer") || !strings.Contains(got.Stderr, "entrepot 9.9 reads this") {
			t.Errorf("%q: status %d, %s", args, got.Status, got.Stderr)
		}
	}
	if now, err := os.ReadFile(filepath.Join(dir, "version")); err != nil || string(now) != newer {
		t.Errorf("the store now says %q, %v", now, err)
	}
}

func wantDigests(t *testing.T, base string, want map[string]string) {
	t.Helper()
	for path, d := range want {
		if got := digest.FromBytes(fetchBody(t, base+path)); string(got) != d {
			t.Errorf("%s has %s, want %s", path, got, d)
		}
	}
}

func fetchBody(t *testing.T, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", url, response.Status, err, body)
	}
	return body
}
