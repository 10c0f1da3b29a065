package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
)

// debRepository is a signed repository of one Debian package.
type debRepository struct{ root, home, key string }

func newDebRepository(t *testing.T) *debRepository {
	t.Helper()
	r := &debRepository{root: t.TempDir(), home: shortTempDir(t)}
	gpg := testenv.Debian(t, "gpg", "gnupg")
	runClient(t, r.home, gpg, "--batch", "--passphrase", "", "--quick-gen-key", "Test <test@example.org>", "ed25519", "sign", "never")
	r.key = filepath.Join(r.home, "key.gpg")
	runClient(t, r.home, gpg, "--batch", "--output", r.key, "--export", "test@example.org")
	return r
}

// publish puts a version of the package into the repository, and signs it.
func (r *debRepository) publish(t *testing.T, version string) {
	t.Helper()
	build := t.TempDir()
	writeFile(t, filepath.Join(build, "DEBIAN", "control"), fmt.Sprintf(
		"Package: entrepot-demo\nVersion: %s\nArchitecture: all\nMaintainer: Test <test@example.org>\nDescription: a demo\n", version))
	writeFile(t, filepath.Join(build, "usr", "share", "entrepot-demo"), "version "+version+"\n")
	pool := filepath.Join(r.root, "pool")
	if err := os.MkdirAll(pool, 0o755); err != nil {
		t.Fatal(err)
	}
	runClient(t, r.root, testenv.Debian(t, "dpkg-deb", "dpkg"), "--build", "--root-owner-group", build, pool)

	ftp := testenv.Debian(t, "apt-ftparchive", "apt-utils")
	suite := filepath.Join(r.root, "dists", "stable")
	packages := runClient(t, r.root, ftp, "packages", "pool")
	writeFile(t, filepath.Join(suite, "main", "binary-amd64", "Packages"), packages)
	release := runClient(t, r.root, ftp,
		"-o", "APT::FTPArchive::Release::Suite=stable", "-o", "APT::FTPArchive::Release::Components=main",
		"-o", "APT::FTPArchive::Release::Architectures=amd64", "release", "dists/stable")
	writeFile(t, filepath.Join(suite, "Release"), release)
	_ = os.Remove(filepath.Join(suite, "InRelease")) // gpg overwrites nothing
	runClient(t, r.home, testenv.Debian(t, "gpg", "gnupg"), "--batch", "--clearsign",
		"--output", filepath.Join(suite, "InRelease"), filepath.Join(suite, "Release"))
}

// shortTempDir is one whose path a socket's may begin with.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpg") //nolint:usetesting // the test's own has a path that is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// aptDownload downloads the package with apt, from nothing, and returns the
// version that apt took.
func (r *debRepository) aptDownload(t *testing.T, url string) string {
	t.Helper()
	apt := testenv.Debian(t, "apt-get", "apt")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "etc", "sources.list"), fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s stable main\n", r.key, url))
	writeFile(t, filepath.Join(dir, "state", "status"), "")
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "etc/parts"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := []string{
		"-q", "-o", "Dir::Etc::SourceList=" + dir + "/etc/sources.list", "-o", "Dir::Etc::SourceParts=" + dir + "/etc/parts",
		"-o", "Dir::State=" + dir + "/state", "-o", "Dir::State::Status=" + dir + "/state/status", "-o", "Dir::Cache=" + dir + "/cache",
		"-o", "APT::Architecture=amd64", "-o", "APT::Architectures::=amd64", "-o", "APT::Sandbox::User=root",
		"-o", "Acquire::Languages=none", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Proxy=false",
		"-o", "APT::Update::Error-Mode=any",
	}
	runClient(t, dir, apt, append(options, "update")...)
	runClient(t, dir, apt, append(options, "download", "entrepot-demo")...)
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("apt downloaded %v (%v), want one package", debs, err)
	}
	return strings.TrimSpace(runClient(t, dir, testenv.Debian(t, "dpkg-deb", "dpkg"), "--field", debs[0], "Version"))
}

func TestAptInstallsFromASignedRepositoryThroughNode(t *testing.T) {
	repository := newDebRepository(t)
	repository.publish(t, "1.0")
	upstream := testenv.StartTap(t, startNginx(t, repository.root))
	node := startFilesNode(t, upstream.URL(), true, map[string]any{"moving_ttl": "0s"})
	want := func(t *testing.T, version string) {
		t.Helper()
		if got := repository.aptDownload(t, node.URL()+"/files"); got != version {
			t.Errorf("apt took version %s, want %s", got, version)
		}
	}
	t.Run("first download", func(t *testing.T) { want(t, "1.0") })
	t.Run("second download fetches nothing again", func(t *testing.T) {
		upstream.Reset()
		want(t, "1.0")
		for _, r := range upstream.Requests() {
			if r.Method == http.MethodGet && r.Status == http.StatusOK {
				t.Errorf("upstream was asked %s", r)
			}
		}
	})
	t.Run("a new version is there at once", func(t *testing.T) {
		repository.publish(t, "1.1")
		want(t, "1.1")
	})
	t.Run("upstream gone", func(t *testing.T) {
		upstream.Close()
		want(t, "1.1")
	})
}

func TestHelmPullsFromAChartRepositoryThroughNode(t *testing.T) {
	helm, root, home := testenv.Tool(t, "helm"), t.TempDir(), t.TempDir()
	publish := func(version string) {
		chart := filepath.Join(home, "demo")
		writeFile(t, filepath.Join(chart, "Chart.yaml"), "apiVersion: v2\nname: demo\nversion: "+version+"\n")
		writeFile(t, filepath.Join(chart, "values.yaml"), "a: 1\n")
		runClient(t, home, helm, "package", chart, "--destination", filepath.Join(root, "charts"))
		runClient(t, home, helm, "repo", "index", filepath.Join(root, "charts"))
	}
	publish("1.0.0")
	upstream := testenv.StartTap(t, startNginx(t, root))
	node := startFilesNode(t, upstream.URL(), true, map[string]any{"moving_ttl": "0s"})
	pull := func(t *testing.T, version string) {
		t.Helper()
		dir := t.TempDir()
		runClient(t, dir, helm, "repo", "add", "demo", node.URL()+"/files/charts")
		runClient(t, dir, helm, "pull", "demo/demo")
		if _, err := os.Stat(filepath.Join(dir, "demo-"+version+".tgz")); err != nil {
			t.Errorf("helm did not pull version %s: %v", version, err)
		}
	}
	t.Run("first pull", func(t *testing.T) { pull(t, "1.0.0") })
	t.Run("second pull fetches nothing again", func(t *testing.T) {
		upstream.Reset()
		pull(t, "1.0.0")
		for _, r := range upstream.Requests() {
			if r.Method == http.MethodGet && r.Status == http.StatusOK {
				t.Errorf("upstream was asked %s", r)
			}
		}
	})
	t.Run("a new version is there at once", func(t *testing.T) {
		publish("1.1.0")
		pull(t, "1.1.0")
	})
	t.Run("upstream gone", func(t *testing.T) {
		upstream.Close()
		pull(t, "1.1.0")
	})
}
