package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files is a staging folder of files, and a configuration of them.
type files struct {
	*production
	dir, config string
}

func (f *files) stage(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// list writes the configuration: names and the contents they are to have.
func (f *files) list(t *testing.T, want map[string]string, more ...string) {
	t.Helper()
	text := "filestores:\n- base: file://" + f.dir + "\n  src: true\n- base: " + f.origin.URL() + "/release\n" +
		"mutable_tags: [\"stable.txt\"]\nfiles:\n"
	for name, content := range want {
		sum := sha256.Sum256([]byte(content))
		text += fmt.Sprintf("- name: %s\n  sha256: %s\n", name, hex.EncodeToString(sum[:]))
	}
	if err := os.WriteFile(f.config, []byte(text+strings.Join(more, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// has checks what a client of the origin gets.
func (f *files) has(t *testing.T, name string, status int, content string) {
	t.Helper()
	response, err := http.Get(f.origin.URL() + "/release/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status || status == http.StatusOK && string(body) != content {
		t.Errorf("%s: %s %q, %v; want %d %q", name, response.Status, body, err, status, content)
	}
}

func TestFilesArePromotedToTheOriginAndRolledBack(t *testing.T) {
	p := startProduction(t, nil)
	f := &files{production: p, dir: t.TempDir(), config: filepath.Join(t.TempDir(), "release.yaml")}
	release := map[string]string{
		"v1.0.0/bin/linux/amd64/tool": "a tool", "v1.0.0/bin/linux/arm64/tool": "a tool for arm",
		"v1.0.0/README.txt": "read me", "v1.0.0/with space & more.txt": "odd name", "stable.txt": "v1.0.0\n",
	}
	for name, content := range release {
		f.stage(t, name, content)
	}
	f.list(t, release)
	p.promote(t, 3, "plan", f.config)
	p.promote(t, 0, "apply", f.config)
	p.promote(t, 0, "plan", f.config)
	for name, content := range release {
		f.has(t, strings.ReplaceAll(name, " ", "%20"), http.StatusOK, content)
	}

	t.Run("a moving pointer moves", func(t *testing.T) {
		f.stage(t, "stable.txt", "v1.0.1\n")
		release["stable.txt"] = "v1.0.1\n"
		f.list(t, release)
		p.promote(t, 0, "apply", f.config)
		f.has(t, "stable.txt", http.StatusOK, "v1.0.1\n")
	})
	t.Run("an immutable path is never overwritten", func(t *testing.T) {
		f.stage(t, "v1.0.0/README.txt", "other words")
		changed := map[string]string{"v1.0.0/README.txt": "other words"}
		f.list(t, changed)
		if got := p.promote(t, 1, "apply", f.config); !strings.Contains(got.Stdout, "conflict") {
			t.Errorf("the conflict is not told: %s", got.Stdout)
		}
		f.has(t, "v1.0.0/README.txt", http.StatusOK, "read me")
	})
	t.Run("the pointer is rolled back although staging has other content now", func(t *testing.T) {
		p.promote(t, 0, "rollback", "--to", "4")
		f.has(t, "stable.txt", http.StatusOK, "v1.0.0\n")
	})
	t.Run("a file is removed, and an audit finds nothing else", func(t *testing.T) {
		delete(release, "v1.0.0/README.txt")
		release["stable.txt"] = "v1.0.0\n"
		f.stage(t, "stable.txt", "v1.0.0\n")
		f.list(t, release, "- removed: v1.0.0/README.txt\n  reason: it was wrong\n")
		p.promote(t, 0, "apply", f.config)
		f.has(t, "v1.0.0/README.txt", http.StatusNotFound, "")
		p.promote(t, 0, "audit", "--deep", f.config)
	})
	t.Run("content that changed in staging after review is not promoted", func(t *testing.T) {
		f.stage(t, "v2/tool", "tampered with")
		release["v2/tool"] = "as reviewed"
		f.list(t, release)
		p.promote(t, 1, "apply", f.config)
		f.has(t, "v2/tool", http.StatusNotFound, "")
	})
}
