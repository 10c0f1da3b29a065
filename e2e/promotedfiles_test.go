package e2e

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// answer is what a client gets for a path.
type answer struct {
	status int
	header http.Header
	body   string
}

func fetchFile(t *testing.T, url string) answer {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// eventually waits until a path is answered as wanted, which takes as long as the
// node takes to hear of the ledger.
func eventually(t *testing.T, url string, status int, body string) {
	t.Helper()
	var got answer
	for start := time.Now(); time.Since(start) < visible; {
		if got = fetchFile(t, url); got.status == status && strings.Contains(got.body, body) {
			return
		}
	}
	t.Fatalf("%s: %d %q after %v; want %d %q", url, got.status, got.body, visible, status, body)
}

func TestPromotedFilesAreServedByNodeAsTheLedgerSays(t *testing.T) {
	p := startProduction(t, nil)
	f := &files{production: p, dir: t.TempDir(), config: filepath.Join(t.TempDir(), "release.yaml")}
	upstream := testenv.StartTap(t, p.origin.URL())
	node := testenv.StartNode(t, testenv.NodeConfig{Race: true, Extra: map[string]any{
		"default_files": "dl.test",
		"files": map[string]any{"dl.test": map[string]any{
			"urls": []string{upstream.URL()},
			"ledger": map[string]any{
				"url": upstream.URL() + "/ledger", "key": p.key + ".pub", "names": []string{p.origin.URL()},
			},
		}},
	}})
	release := map[string]string{"v1.0.0/bin/tool": "a tool", "v1.0.0/with space & more.txt": "odd name", "stable.txt": "v1.0.0\n"}
	for name, content := range release {
		f.stage(t, name, content)
	}
	f.list(t, release)
	p.promote(t, 0, "apply", f.config)
	d := digest.FromString("a tool")

	for name, content := range release {
		path := "/release/" + strings.ReplaceAll(name, " ", "%20")
		eventually(t, node.URL()+path, http.StatusOK, content)
		eventually(t, node.URL()+"/dl.test"+path, http.StatusOK, content)
	}
	// Names that the node has not heard of yet it checks with the origin.
	for start := time.Now(); time.Since(start) < visible; {
		if fetchFile(t, node.URL()+"/release/v1.0.0/bin/tool").header.Get("Cache-Status") == "entrepot; hit" {
			break
		}
	}
	byDigest := fetchFile(t, node.URL()+"/blobs/"+d.String())
	if byDigest.status != http.StatusOK || byDigest.body != "a tool" {
		t.Errorf("by digest: %+v", byDigest)
	}
	t.Run("names of the ledger cost upstream no request", func(t *testing.T) {
		upstream.Reset()
		got := fetchFile(t, node.URL()+"/release/v1.0.0/bin/tool")
		if got.body != "a tool" || got.header.Get("Repr-Digest") == "" || got.header.Get("Cache-Status") != "entrepot; hit" {
			t.Errorf("got %+v", got)
		}
		for _, r := range upstream.Requests() {
			if !strings.HasPrefix(r.Path, "/ledger/") {
				t.Errorf("upstream was asked %s", r)
			}
		}
	})
	t.Run("a pointer moves within two seconds", func(t *testing.T) {
		f.stage(t, "stable.txt", "v1.0.1\n")
		release["stable.txt"] = "v1.0.1\n"
		f.list(t, release)
		p.promote(t, 0, "apply", f.config)
		eventually(t, node.URL()+"/release/stable.txt", http.StatusOK, "v1.0.1\n")
	})
	t.Run("what is removed is gone, with the reason", func(t *testing.T) {
		delete(release, "v1.0.0/with space & more.txt")
		f.list(t, release, "- removed: \"v1.0.0/with space & more.txt\"\n  reason: it was odd\n")
		p.promote(t, 0, "apply", f.config)
		eventually(t, node.URL()+"/release/v1.0.0/with%20space%20&%20more.txt", http.StatusNotFound, "it was odd")
	})
	t.Run("with the origin gone", func(t *testing.T) {
		upstream.Close()
		for name, content := range release {
			eventually(t, node.URL()+"/release/"+name, http.StatusOK, content)
		}
	})
}
