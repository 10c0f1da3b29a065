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
	binary                      string
	process                     *testenv.Process
}

func newThirdParty(t *testing.T) *thirdParty {
	t.Helper()
	m := &thirdParty{
		dir: t.TempDir(), binary: testenv.BuildEntrepot(t),
		address: fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)), admin: fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)),
	}
	m.config = filepath.Join(m.dir, "entrepot.yaml")
	return m
}

// init has the mirror's configuration written, for what a world publishes.
func (m *thirdParty) init(t *testing.T, w *testenv.World, more ...string) testenv.Command {
	t.Helper()
	return m.entrepot(t, append([]string{
		"mirror", "init", "--from", w.Router.URL(), "--dir", filepath.Join(m.dir, "store"), "--listen", m.address, "--admin", m.admin,
		"--name", "far", "--url", "http://" + m.address, "--country", "NZ", "--lat", "-36.8", "--lon", "174.8",
	}, more...)...)
}

// serve starts the mirror.
func (m *thirdParty) serve(t *testing.T) {
	t.Helper()
	m.process = testenv.Start(t, testenv.ProcessConfig{
		Name: "entrepot-mirror", Path: m.binary, Args: []string{"serve", "--config", m.config}, Dir: m.dir,
		Env:   os.Environ(),
		Ready: testenv.Answers("http://" + m.admin + "/readyz"),
	})
}

// entrepot runs a command about the mirror.
func (m *thirdParty) entrepot(t *testing.T, args ...string) testenv.Command {
	t.Helper()
	cmd := testenv.EntrepotCommand(t, m.binary, m.dir, append(args, "--config", m.config)...)
	cmd.Dir = m.dir
	return testenv.Run(t, cmd)
}

// status is what mirror status tells.
type mirrorStatus struct {
	Names     int     `json:"names"`
	Held      int     `json:"held"`
	Coverage  float64 `json:"coverage_percent"`
	Bytes     int64   `json:"bytes"`
	Failed    int     `json:"failed"`
	Upstreams []struct {
		Entries int     `json:"entries"`
		Synced  int     `json:"synced"`
		Lag     float64 `json:"lag_seconds"`
	} `json:"upstreams"`
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

// far is where a third-party mirror is that no node of the world is near.
const (
	farNetwork = "198.18.7.0/24"
	farClient  = "198.18.7.10"
)

// Everything that docs/MIRRORS.md tells an operator to do, in that order, with 200
// images and 200 files.
func TestThirdPartyMirror(t *testing.T) {
	w := testenv.StartWorld(t, testenv.WorldConfig{Router: map[string]any{
		"geo": map[string]any{"prefixes": []map[string]any{{"prefix": farNetwork, "country": "NZ"}, {"prefix": "127.0.0.0/8", "country": "US"}}},
	}})
	release := aRelease(t, w.Staging.Host(), "v1.0.0", 50, 199) // four files each
	large := testenv.PushFile(t, w.Staging.Host(), "release/large", "v1.0.0", 300<<10)
	release.Images = append(release.Images, large)
	delete(release.Files, "stable-1.txt")
	delete(release.Files, "stable.txt")
	referrers := testenv.PushReferrers(t, w.Staging.Host(), large)
	signature := testenv.PushCosignSignature(t, w.Staging.Host(), large)
	w.Promote(release)
	names := len(release.Images) + len(release.Files)
	if names != 400 {
		t.Fatalf("%d names", names)
	}
	m := newThirdParty(t)
	var entry string

	t.Run("init shows the key and does not trust it unasked", func(t *testing.T) {
		key, err := os.ReadFile(w.Key + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		fingerprint := digest.FromBytes(key).Encoded()
		if got := m.init(t, w); got.Status != 1 || !strings.Contains(got.Stderr, fingerprint) || !strings.Contains(got.Stderr, "nobody is here to confirm") {
			t.Fatalf("without a word about the key: status %d\n%s", got.Status, got.Stderr)
		}
		if got := m.init(t, w, "--fingerprint", digest.FromString("other").Encoded()); got.Status != 1 || !strings.Contains(got.Stderr, "somebody is between you and the origin") {
			t.Fatalf("with another key's fingerprint: status %d\n%s", got.Status, got.Stderr)
		}
		if _, err := os.Stat(m.config); err == nil {
			t.Fatal("a configuration was written though the key was not confirmed")
		}
		got := m.init(t, w, "--fingerprint", fingerprint)
		if got.Status != 0 {
			t.Fatalf("init: status %d\n%s", got.Status, got.Stderr)
		}
		_, entry, _ = strings.Cut(got.Stdout, "router.mirrors:\n")
		if again := m.init(t, w, "--fingerprint", fingerprint); again.Status != 1 || !strings.Contains(again.Stderr, "is there already") {
			t.Errorf("again: status %d\n%s", again.Status, again.Stderr)
		}
	})
	if t.Failed() {
		return
	}
	t.Run("sync", func(t *testing.T) {
		if dry := m.entrepot(t, "mirror", "sync", "--dry-run"); dry.Status != 0 || !strings.Contains(dry.Stdout, "400 names are selected and 0 held") {
			t.Errorf("a dry run: status %d, %s", dry.Status, dry.Stdout)
		}
		got := m.entrepot(t, "mirror", "sync", "--output", "json")
		lines := strings.Split(strings.TrimSpace(got.Stdout), "\n")
		var last struct {
			Event    string `json:"event"`
			Progress struct {
				Held int `json:"held"`
			} `json:"progress"`
		}
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || got.Status != 0 || last.Event != "done" || last.Progress.Held != names {
			t.Fatalf("sync: status %d, %v, %+v", got.Status, err, last)
		}
		if s := m.status(t); s.Held != names || s.Coverage != 100 || s.Bytes < 300<<10 || s.Upstreams[0].Lag != 0 {
			t.Errorf("status: %+v", s)
		}
	})
	t.Run("verify", func(t *testing.T) {
		if got := m.entrepot(t, "mirror", "verify"); got.Status != 0 || !strings.Contains(got.Stdout, "400 of 400 names are right") {
			t.Fatalf("verify: status %d, %s", got.Status, got.Stdout)
		}
	})
	m.serve(t)
	t.Run("verify finds a blob that was corrupted while the mirror serves, and repairs it", func(t *testing.T) { m.corruptAndRepair(t, release.Images[7]) })
	t.Run("added to the router's list by one entry", func(t *testing.T) {
		w.Router.AddMirror(entry)
		blob := "/v2/docker.io/" + large.Repository + "/blobs/" + string(large.Blobs[0].Digest)
		redirectedTo(t, w.Forwarder(farClient).URL()+blob, "http://"+m.address+"/")
		if got := fetchFile(t, w.Forwarder(farClient).URL()+blob); digest.FromString(got.body) != large.Blobs[0].Digest {
			t.Errorf("through the router: %d, %d bytes", got.status, len(got.body))
		}
	})
	t.Run("serves all of it while the origin is away, and catches up", func(t *testing.T) {
		w.Origin.Stop()
		here := testenv.Source{Address: m.address, Upstream: "docker.io"}
		puller{"crane", testenv.Crane{}, append([]testenv.Artifact{large, signature}, release.Images[:3]...)}.pull(t, here)
		for name, content := range release.Files {
			if got := fetchFile(t, "http://"+m.address+"/dl.example.org/release/"+name); got.status != http.StatusOK || got.body != content {
				t.Fatalf("%s: %d", name, got.status)
			}
		}
		found := fetchFile(t, "http://"+m.address+"/v2/docker.io/"+large.Repository+"/referrers/"+string(large.Root.Digest))
		for _, r := range referrers {
			if !strings.Contains(found.body, string(r.Root.Digest)) {
				t.Errorf("%s is not among the referrers: %s", r.Root.Digest, found.body)
			}
		}
		w.Origin.Start()
		later := aRelease(t, w.Staging.Host(), "v1.1.0", 5, 10)
		w.Promote(and(release, later))
		m.caughtUp(t, names+len(later.Images)+len(later.Files))
	})
	t.Run("holds what is selected, and removes the rest", func(t *testing.T) {
		m.process.Stop()
		config, err := os.ReadFile(m.config)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, m.config, string(config)+"    select: [{newest: 1, files: [\"release/**\"]}, {images: [\"release/large\"]}]\n")
		const held = 5*4 + 2 + 1 // the newest release's files, its pointers, and an image
		before := m.status(t)
		if dry := m.entrepot(t, "mirror", "sync", "--dry-run"); dry.Status != 0 || m.status(t).Bytes != before.Bytes {
			t.Fatalf("a dry run: status %d, %+v", dry.Status, m.status(t))
		}
		if got := m.entrepot(t, "mirror", "sync"); got.Status != 0 || !strings.Contains(got.Stdout, fmt.Sprintf("%d of %d names are held", held, held)) {
			t.Fatalf("sync: status %d, %s", got.Status, got.Stdout)
		}
		if after := m.status(t); after.Names != held || after.Bytes >= before.Bytes/2 {
			t.Errorf("before %+v, after %+v", before, after)
		}
		if got := m.entrepot(t, "mirror", "verify"); got.Status != 0 {
			t.Errorf("verify: status %d", got.Status)
		}
	})
}

// corruptAndRepair changes a bit of a blob on the mirror's disk.
func (m *thirdParty) corruptAndRepair(t *testing.T, image testenv.Artifact) {
	t.Helper()
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
		t.Fatalf("verify after the repair: status %d", got.Status)
	}
	if repaired, err := os.ReadFile(file); err != nil || digest.FromBytes(repaired) != d {
		t.Fatalf("the blob has %s, %v", digest.FromBytes(repaired), err)
	}
}

// redirectedTo waits until a router sends a request to somewhere below a URL.
func redirectedTo(t *testing.T, url, below string) {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	location := ""
	for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(100 * time.Millisecond) {
		response, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if location = response.Header.Get("Location"); strings.HasPrefix(location, below) {
			return
		}
	}
	t.Fatalf("%s is redirected to %q, want somewhere below %s", url, location, below)
}
