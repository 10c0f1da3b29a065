package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// thirdParty is a mirror that somebody else runs.
type thirdParty struct {
	dir, config, address, admin string
	process                     *testenv.Process
}

// serve starts the mirror.
func (m *thirdParty) serve(t *testing.T) {
	t.Helper()
	m.process = testenv.Start(t, testenv.ProcessConfig{
		Name: "entrepot-mirror", Path: testenv.BuildEntrepot(t), Args: []string{"serve", "--config", m.config}, Dir: m.dir,
		Env:   os.Environ(),
		Ready: testenv.Answers("http://" + m.admin + "/readyz"),
	})
}

// entrepot runs a command about the mirror.
func (m *thirdParty) entrepot(t *testing.T, args ...string) testenv.Command {
	t.Helper()
	cmd := testenv.EntrepotCommand(t, testenv.BuildEntrepot(t), m.dir, append(args, "--config", m.config)...)
	cmd.Dir = m.dir
	return testenv.Run(t, cmd)
}

// status is what mirror status tells.
type mirrorStatus struct {
	Names, Held int
	Coverage    float64 `json:"coverage_percent"`
	Bytes       int64
	Failed      int
	Upstreams   []struct {
		Entries, Synced int
		Lag             float64 `json:"lag_seconds"`
	}
}

func (m *thirdParty) status(t *testing.T) mirrorStatus {
	t.Helper()
	got := m.entrepot(t, "mirror", "status", "--output", "json")
	var s mirrorStatus
	if err := json.Unmarshal([]byte(got.Stdout), &s); got.Status != 0 || err != nil {
		t.Fatalf("status %d, %v", got.Status, err)
	}
	return s
}

// caughtUp waits until the mirror holds so many names and all entries.
func (m *thirdParty) caughtUp(t *testing.T, names int) {
	t.Helper()
	var s mirrorStatus
	for start := time.Now(); time.Since(start) < 60*time.Second; time.Sleep(100 * time.Millisecond) {
		response, err := http.Get("http://" + m.admin + "/mirror")
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(response.Body).Decode(&s)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		behind := 0
		for _, u := range s.Upstreams {
			behind += u.Entries - u.Synced
		}
		if s.Names == names && s.Held == names && s.Failed == 0 && behind == 0 {
			return
		}
	}
	t.Fatalf("the mirror has not caught up: %+v; want %d names", s, names)
}

func TestThirdPartyMirror(t *testing.T) {
	w := testenv.StartWorld(t, testenv.WorldConfig{})
	release := aRelease(t, w.Staging.Host(), "v1.0.0", 49, 200) // four files each, and two pointers
	w.Promote(release)
	names := len(release.Images) + len(release.Files)
	m := &thirdParty{
		dir: t.TempDir(), address: fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)), admin: fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)),
	}
	m.config = filepath.Join(m.dir, "entrepot.yaml")
	writeFile(t, m.config, fmt.Sprintf(`
admin: {listen: %q}
node:
  listen: %q
  store: {dir: %s}
  default_upstream: docker.io
  default_files: dl.example.org
  upstreams: {docker.io: {urls: [%q], ledger: {url: %q, key: %s, names: [%q]}}}
  files: {dl.example.org: {urls: [%q], ledger: {url: %q, key: %s, names: [%q]}}}
  mirror: {every: 1s}
`, m.admin, m.address, filepath.Join(m.dir, "store"), w.Origin.URL(), w.Origin.URL()+"/ledger", w.Key+".pub", w.Origin.Host(),
		w.Origin.URL(), w.Origin.URL()+"/ledger", w.Key+".pub", w.Origin.URL()))

	t.Run("sync", func(t *testing.T) {
		got := m.entrepot(t, "mirror", "sync")
		if got.Status != 0 || !strings.Contains(got.Stdout, fmt.Sprintf("%d of %d names are held", names, names)) {
			t.Fatalf("sync: status %d, %s", got.Status, got.Stdout)
		}
	})
	t.Run("verify", func(t *testing.T) {
		got := m.entrepot(t, "mirror", "verify")
		if got.Status != 0 || !strings.Contains(got.Stdout, fmt.Sprintf("%d of %d names are right", names, names)) {
			t.Fatalf("verify: status %d, %s", got.Status, got.Stdout)
		}
	})
	t.Run("verify finds a blob that was corrupted, and repairs it", func(t *testing.T) {
		image := release.Images[7]
		d := image.Blobs[0].Digest
		file := filepath.Join(m.dir, "store", "blobs", "sha256", d.Encoded()[:2], d.Encoded(), "data")
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		writeFile(t, file, string(content))
		got := m.entrepot(t, "mirror", "verify")
		if got.Status != 1 || !strings.Contains(got.Stderr, image.Repository) || !strings.Contains(got.Stderr, "corrupt "+string(d)) {
			t.Fatalf("verify: status %d, %s", got.Status, got.Stderr)
		}
		if got := m.entrepot(t, "mirror", "verify", "--repair"); got.Status != 0 || !strings.Contains(got.Stdout, "1 images and files fetched again") {
			t.Fatalf("verify --repair: status %d, %s", got.Status, got.Stdout)
		}
		if got := m.entrepot(t, "mirror", "verify"); got.Status != 0 {
			t.Fatalf("verify: status %d", got.Status)
		}
		repaired, err := os.ReadFile(file)
		if err != nil || digest.FromBytes(repaired) != d {
			t.Fatalf("the blob has %s, %v", digest.FromBytes(repaired), err)
		}
	})
	m.serve(t)
	m.caughtUp(t, names)
}
