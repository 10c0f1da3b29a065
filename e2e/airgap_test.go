package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// carried is what is carried across an air gap, from a node on the near side to whoever is
// on the far one.
type carried struct {
	world   *testenv.World
	near    *thirdParty
	release testenv.Release
	large   testenv.Artifact // with referrers and a signature
	about   []testenv.Artifact
	list    string // of images
	wanted  []testenv.Artifact
	files   map[string]string
}

func newCarried(t *testing.T) *carried {
	t.Helper()
	c := &carried{world: testenv.StartWorld(t, testenv.WorldConfig{}), near: newThirdParty(t), files: map[string]string{}}
	staging := c.world.Staging.Host()
	c.release = aRelease(t, staging, "v1.0.0", 10, 6)
	c.large = testenv.PushFile(t, staging, "release/large", "v1.0.0", 300<<10)
	c.release.Images = append(c.release.Images, c.large)
	c.about = append(testenv.PushReferrers(t, staging, c.large), testenv.PushCosignSignature(t, staging, c.large))
	c.world.Promote(c.release)
	if got := c.near.init(t, c.world, "--key", c.world.Key+".pub"); got.Status != 0 {
		t.Fatalf("init: status %d", got.Status)
	}
	c.wanted = append(slices.Clone(c.release.Images[:3]), c.large)
	c.list = filepath.Join(c.near.dir, "images")
	writeFile(t, c.list, "# what the far side needs\ndocker.io/release/large:v1.0.0\ndocker.io/release/image-00\ndocker.io/release/image-0*1:v1.*\ndocker.io/release/image-02:v1.0.0\n")
	for name, content := range c.release.Files {
		if strings.HasPrefix(name, "v1.0.0/bin/linux/") {
			c.files[name] = content
		}
	}
	return c
}

// export writes a bundle in parts of 100 KiB, and returns its path.
func (c *carried) export(t *testing.T, name string) (string, testenv.Command) {
	t.Helper()
	path := filepath.Join(c.near.dir, name)
	return path, c.near.entrepot(t, "export", "--images", c.list, "--files", "release/v1.0.0/bin/linux/**", "-o", path, "--split", "100KiB")
}

// farSide is the configuration of a node without a network.
func farSide(t *testing.T, w *testenv.World) *thirdParty {
	t.Helper()
	far := newThirdParty(t)
	writeFile(t, far.config, fmt.Sprintf(`
admin: {listen: %q}
node:
  listen: %q
  store: {dir: %s/store}
  default_upstream: docker.io
  default_files: dl.example.org
  upstreams:
    docker.io: {offline: true, ledger: {url: "file://%s/ledger", key: %s, names: [%q]}}
  files:
    dl.example.org: {offline: true, ledger: {url: "file://%s/ledger", key: %s, names: [%q]}}
`, far.admin, far.address, far.dir, far.dir, w.Key+".pub", w.Origin.Host(), far.dir, w.Key+".pub", w.Origin.URL()))
	return far
}

func TestBundleCrossesAnAirGap(t *testing.T) {
	c := newCarried(t)
	bundle, got := c.export(t, "bundle.tar")
	if got.Status != 0 || !strings.Contains(got.Stdout, fmt.Sprintf("4 images and %d files", len(c.files))) {
		t.Fatalf("export: status %d, %s", got.Status, got.Stdout)
	}
	parts, err := filepath.Glob(bundle + ".[0-9]*")
	if err != nil || len(parts) < 4 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	t.Run("goes on where it was interrupted", func(t *testing.T) {
		if again := c.near.entrepot(t, "export", "--images", c.list, "-o", bundle, "--split", "100KiB"); again.Status != 1 || !strings.Contains(again.Stderr, "is complete") {
			t.Errorf("over a bundle that is complete: status %d, %s", again.Status, again.Stderr)
		}
		// What a crash leaves: no sums, and the last parts not there or cut short.
		sums, err := os.ReadFile(bundle + ".sha256sums")
		if err != nil {
			t.Fatal(err)
		}
		cut := parts[len(parts)/2]
		for _, path := range append(parts[len(parts)/2+1:], bundle+".sha256sums") {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Truncate(cut, 30_001); err != nil {
			t.Fatal(err)
		}
		first, err := os.Stat(parts[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, got := c.export(t, "bundle.tar"); got.Status != 0 || !strings.Contains(got.Stderr, "were there already") {
			t.Fatalf("export again: status %d, %s", got.Status, got.Stderr)
		}
		if now, err := os.Stat(parts[0]); err != nil || !now.ModTime().Equal(first.ModTime()) {
			t.Errorf("the first part was written again: %v", err)
		}
		if now, err := os.ReadFile(bundle + ".sha256sums"); err != nil || strings.Split(string(now), "\n")[0] != strings.Split(string(sums), "\n")[0] {
			t.Errorf("sums %s, %v; had %s", now, err, sums)
		}
	})
	t.Run("comes to the same bytes each time", func(t *testing.T) {
		again, got := c.export(t, "again.tar")
		if got.Status != 0 {
			t.Fatalf("export: status %d, %s", got.Status, got.Stderr)
		}
		same := func(bundle string) string {
			sums, err := os.ReadFile(bundle + ".sha256sums")
			if err != nil {
				t.Fatal(err)
			}
			return strings.ReplaceAll(string(sums), filepath.Base(bundle), "BUNDLE")
		}
		if a, b := same(bundle), same(again); a != b {
			t.Errorf("the first, which was interrupted, has the sums\n%s\nand the second\n%s", a, b)
		}
		parts, err := filepath.Glob(again + "*")
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if err := os.Remove(part); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("is what other tools read", func(t *testing.T) {
		runClient(t, c.near.dir, "sha256sum", "-c", "bundle.tar.sha256sums")
		runClient(t, c.near.dir, "sh", "-c", "cat bundle.tar.[0-9]* > whole.tar")
		runClient(t, c.near.dir, testenv.Debian(t, "skopeo", "skopeo"), "copy", "oci-archive:whole.tar:docker.io/release/large:v1.0.0", "dir:large")
		blob, err := os.ReadFile(filepath.Join(c.near.dir, "large", c.large.Blobs[0].Digest.Encoded()))
		if err != nil || digest.FromBytes(blob) != c.large.Blobs[0].Digest {
			t.Errorf("skopeo's copy: %v", err)
		}
	})
	far := farSide(t, c.world)
	t.Run("damage is found", func(t *testing.T) { refusesDamage(t, far, bundle) })
	if got := far.entrepot(t, "import", filepath.Dir(bundle)); got.Status != 0 {
		t.Fatalf("import: status %d, %s", got.Status, got.Stderr)
	}
	t.Run("into an origin", func(t *testing.T) {
		origin := testenv.StartOrigin(t, testenv.OriginConfig{})
		push := func(names ...string) testenv.Command {
			args := []string{"import", parts[0], "--to", origin.URL(), "--key", c.world.Key + ".pub"}
			for _, name := range names {
				args = append(args, "--name", name)
			}
			return testenv.Run(t, testenv.EntrepotCommand(t, far.binary, origin.Docker, args...))
		}
		if got := push(c.world.Origin.Host()+"/release", c.world.Origin.URL()); got.Status != 1 || !strings.Contains(got.Stderr, "the ledger does not say so") {
			t.Errorf("by names that these are not: status %d, %s", got.Status, got.Stderr)
		}
		if got := push(c.world.Origin.Host(), c.world.Origin.URL()); got.Status != 0 {
			t.Fatalf("import: status %d, %s", got.Status, got.Stderr)
		}
		below := slices.Clone(c.wanted)
		for i := range below {
			below[i].Repository = strings.TrimPrefix(below[i].Repository, "release/")
		}
		puller{"crane", testenv.Crane{}, below}.pull(t, testenv.Source{Address: origin.Host(), Upstream: "release"})
		for name, content := range c.files {
			if got := fetchFile(t, origin.URL()+"/release/"+name); got.body != content {
				t.Errorf("%s: %d", name, got.status)
			}
		}
	})
	c.world.Origin.Stop()
	far.serve(t)
	t.Run("the far side serves exactly what was carried", func(t *testing.T) { c.servedBy(t, far) })
	t.Run("a newer bundle adds to it, and an older one is refused then", func(t *testing.T) {
		c.world.Origin.Start()
		later := aRelease(t, c.world.Staging.Host(), "v1.1.0", 1, 1)
		checkpoint := func() string { return fetchFile(t, c.world.Origin.URL()+"/ledger/checkpoint").body }
		before := checkpoint()
		c.world.Promote(and(c.release, later))
		waitFor(t, "the origin serves the newer ledger", func() bool { return checkpoint() != before })
		writeFile(t, c.list, "docker.io/release/image-00:v1.1.0\n")
		if err := os.Mkdir(filepath.Join(c.near.dir, "later"), 0o755); err != nil {
			t.Fatal(err)
		}
		newer, got := c.export(t, "later/bundle.tar")
		if got.Status != 0 {
			t.Fatalf("export: status %d, %s", got.Status, got.Stderr)
		}
		if running := far.entrepot(t, "import", newer); running.Status != 1 || !strings.Contains(running.Stderr, "the node runs") {
			t.Errorf("while the node runs: status %d, %s", running.Status, running.Stderr)
		}
		far.process.Stop()
		if got := far.entrepot(t, "import", newer); got.Status != 0 {
			t.Fatalf("import: status %d, %s", got.Status, got.Stderr)
		}
		if old := far.entrepot(t, "import", bundle); old.Status != 1 || !strings.Contains(old.Stderr, "rolled back") {
			t.Errorf("an older bundle: status %d, %s", old.Status, old.Stderr)
		}
		c.world.Origin.Stop()
		far.serve(t)
		puller{"crane", testenv.Crane{}, append(slices.Clone(c.wanted), later.Images...)}.pull(t, testenv.Source{Address: far.address, Upstream: "docker.io"})
	})
}

// servedBy checks what a node without a network says.
func (c *carried) servedBy(t *testing.T, far *thirdParty) {
	base := "http://" + far.address
	source := testenv.Source{Address: far.address, Upstream: "docker.io"}
	puller{"crane", testenv.Crane{}, append(slices.Clone(c.wanted), c.about[2])}.pull(t, source)
	puller{"skopeo", testenv.Skopeo{}, c.wanted[:1]}.pull(t, source)
	for name, content := range c.files {
		if got := fetchFile(t, base+"/dl.example.org/release/"+name); got.status != http.StatusOK || got.body != content {
			t.Errorf("%s: %d", name, got.status)
		}
	}
	referrers := fetchFile(t, base+"/v2/docker.io/release/large/referrers/"+string(c.large.Root.Digest)).body
	for _, r := range c.about[:2] {
		if !strings.Contains(referrers, string(r.Root.Digest)) {
			t.Errorf("%s is not among the referrers: %s", r.Root.Digest, referrers)
		}
	}
	tags := fetchFile(t, base+"/v2/docker.io/release/large/tags/list").body
	if !strings.Contains(tags, `"v1.0.0"`) || !strings.Contains(tags, ".sig") || !strings.Contains(tags, `["sha256-`) || strings.Count(tags, `v1`) != 1 {
		t.Errorf("tags: %s", tags)
	}
	folder := entriesOf(t, base+"/dl.example.org/release/v1.0.0/bin/")
	if !strings.Contains(folder, "linux/") || strings.Contains(folder, "darwin") || strings.Contains(folder, "windows") {
		t.Errorf("the folder has %s", folder)
	}
	start := time.Now()
	for _, path := range []string{
		"/v2/docker.io/release/image-05/manifests/v1.0.0", "/v2/docker.io/release/image-05/tags/list", // in the ledger, not in the bundle
		"/v2/docker.io/release/large/manifests/v9", "/v2/docker.io/library/nginx/manifests/latest",
		"/v2/docker.io/release/large/blobs/" + string(digest.FromString("nothing")),
		"/dl.example.org/release/v1.0.0/bin/windows/amd64/program-00", "/dl.example.org/nothing",
	} {
		if got := fetchFile(t, base+path); got.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("saying no took %v", took)
	}
}

// refusesDamage imports bundles that were tampered with.
func refusesDamage(t *testing.T, far *thirdParty, bundle string) {
	dir := t.TempDir()
	whole, err := os.ReadFile(filepath.Join(filepath.Dir(bundle), "whole.tar"))
	if err != nil {
		t.Fatal(err)
	}
	tampered := filepath.Join(dir, "bundle.tar")
	write := func(content []byte, sums bool) {
		writeFile(t, tampered, string(content))
		if sums {
			writeFile(t, tampered+".sha256sums", digest.FromBytes(content).Encoded()+"  bundle.tar\n")
		}
	}
	refused := func(what, why string) {
		t.Helper()
		if got := far.entrepot(t, "import", tampered); got.Status != 1 || !strings.Contains(got.Stderr, why) {
			t.Errorf("%s: status %d, %s; want %q", what, got.Status, got.Stderr, why)
		}
	}
	write(whole, false)
	refused("a bundle without sums", "not complete")
	write(whole, true)
	flipped := slices.Clone(whole)
	at := strings.Index(string(whole), "blobs/sha256/") + 600
	flipped[at] ^= 1
	write(flipped, false)
	refused("one with a byte that changed", "is damaged")
	// By somebody who can write sums, too.
	write(flipped, true)
	refused("one whose sums were made to fit", "wrong bytes")
	write([]byte(strings.ReplaceAll(string(whole), `"tag": "v1.0.0"`, `"tag": "v1.0.1"`)), true)
	refused("one that gives an image another name", "the ledger does not say so")
	for _, name := range []string{"ledger", "store/blobs"} {
		if entries, err := os.ReadDir(filepath.Join(far.dir, name)); err == nil && name == "store/blobs" && len(entries) > 1 {
			t.Errorf("%s has %d entries", name, len(entries))
		}
	}
}
