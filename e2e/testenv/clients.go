package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pullTimeout bounds one command of a client: a pull of the largest image on a
// busy machine takes a fifth of it.
const pullTimeout = 5 * time.Minute

// Source is where clients pull from: a node, and the upstream they mean.
type Source struct {
	Address  string // the node's host:port, plain HTTP
	Upstream string // the upstream's host as names have it, such as "registry.test"
	// Login gives clients a name and password for Address.
	Login bool
	// Root, when set, is a folder that has the client's files as its machine's root
	// would: clients that know mirrors use those, in place of some of their own.
	Root string
}

// home makes a home directory for a client.
func (s Source) home(t testing.TB) string {
	t.Helper()
	home := t.TempDir()
	if s.Login {
		docker := filepath.Join(home, ".docker")
		if err := os.Mkdir(docker, 0o755); err != nil {
			t.Fatalf("preparing a home: %v", err)
		}
		writeLogin(t, docker, s.Address, PromoterPassword)
	}
	return home
}

// reference is the name of an artifact as those clients say it that know
// nothing of mirrors: the upstream is the first element of its path.
func (s Source) reference(a Artifact) string {
	return s.Address + "/" + s.Upstream + "/" + a.Name()
}

// Client is a real client program. A pull starts with nothing from the pull
// before: daemons are started with an empty root, and ended after it.
type Client interface {
	// Pull fetches an artifact as a user of the client does, for linux/amd64
	// where there is a choice, and returns the digest the client says it got.
	// It fails the test when the client fails.
	Pull(t *testing.T, from Source, a Artifact) digest.Digest
}

// Skopeo is skopeo, from Debian. It copies to a directory, with the node as
// mirror of the upstream in registries.conf. It pulls without resuming and
// refuses what does not match.
type Skopeo struct{}

// Pull copies into a directory and checks every file in it.
func (Skopeo) Pull(t *testing.T, from Source, a Artifact) digest.Digest {
	t.Helper()
	home, out := from.home(t), t.TempDir()
	args := []string{"copy", "--policy", acceptAnything(t, home), "--override-os", "linux", "--override-arch", "amd64"}
	if from.Root == "" {
		args = append(args, "--registries-conf", mirrorConf(t, home, from))
	} else {
		useRegistries(t, home, from.Root)
	}
	run(t, home, Debian(t, "skopeo", "skopeo"), append(args, "docker://"+from.Upstream+"/"+a.Name(), "dir:"+out)...)
	for _, blob := range a.Blobs {
		checkFile(t, filepath.Join(out, blob.Digest.Encoded()), blob.Digest)
	}
	return fileDigest(t, filepath.Join(out, "manifest.json"))
}

// Podman is podman, from Debian, with the node as mirror of the upstream in
// registries.conf.
type Podman struct{}

// Pull pulls into an image store of its own.
func (Podman) Pull(t *testing.T, from Source, a Artifact) digest.Digest {
	t.Helper()
	podman, home, storage := Debian(t, "podman", "podman"), from.home(t), shortDir(t)
	// podman reads its policy from the user's configuration and nowhere else.
	if err := os.MkdirAll(filepath.Join(home, ".config", "containers"), 0o755); err != nil {
		t.Fatalf("preparing podman's home: %v", err)
	}
	acceptAnything(t, filepath.Join(home, ".config", "containers"))
	var env []string
	if from.Root == "" {
		env = append(env, "CONTAINERS_REGISTRIES_CONF="+mirrorConf(t, home, from))
	} else {
		useRegistries(t, home, from.Root)
	}
	// vfs needs no mount and leaves none behind; a runroot has at most 50 bytes.
	store := []string{"--root", storage + "/root", "--runroot", storage + "/run", "--storage-driver", "vfs"}
	name := from.Upstream + "/" + a.Name()
	command := func(args ...string) string {
		return runEnv(t, home, env, podman, append(slices.Clone(store), args...)...)
	}
	command("pull", "--quiet", "--os", "linux", "--arch", "amd64", name)
	return parseDigest(t, "podman", command("image", "inspect", "--format", "{{.Digest}}", name))
}

// Crane is crane, of go-containerregistry.
type Crane struct{}

// Pull pulls into an OCI layout and checks every blob in it.
func (Crane) Pull(t *testing.T, from Source, a Artifact) digest.Digest {
	t.Helper()
	home, out := from.home(t), t.TempDir()
	args := []string{"pull", "--insecure", "--format", "oci"}
	if a.Root.MediaType == ocispec.MediaTypeImageIndex {
		args = append(args, "--platform", "linux/amd64")
	}
	run(t, home, Tool(t, "crane"), append(args, from.reference(a), out)...)
	for _, blob := range a.Blobs {
		checkFile(t, filepath.Join(out, "blobs", "sha256", blob.Digest.Encoded()), blob.Digest)
	}
	var index ocispec.Index
	readJSON(t, filepath.Join(out, "index.json"), &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("crane wrote %d manifests into its layout, want 1", len(index.Manifests))
	}
	return index.Manifests[0].Digest
}

// Oras is oras.
type Oras struct{}

// Pull pulls the artifact's files and checks the first.
func (Oras) Pull(t *testing.T, from Source, a Artifact) digest.Digest {
	t.Helper()
	home, out := from.home(t), t.TempDir()
	said := run(t, home, Tool(t, "oras"), "pull", "--plain-http", "--no-tty", "--output", out, from.reference(a))
	checkFile(t, filepath.Join(out, "file"), a.Blobs[0].Digest)
	return parseDigest(t, "oras", said)
}

// Discover lists the artifacts that refer to a, which oras asks the referrers
// API for.
func (Oras) Discover(t *testing.T, from Source, a Artifact) []digest.Digest {
	t.Helper()
	said := run(t, from.home(t), Tool(t, "oras"), "discover", "--plain-http",
		"--distribution-spec", "v1.1-referrers-api", "--depth", "1", "--format", "json", from.reference(a))
	var answer struct {
		Referrers []ocispec.Descriptor `json:"referrers"`
	}
	if err := json.Unmarshal([]byte(said), &answer); err != nil {
		t.Fatalf("reading what oras discovered: %v\n%s", err, said)
	}
	var found []digest.Digest
	for _, referrer := range answer.Referrers {
		found = append(found, referrer.Digest)
	}
	return found
}

// Helm is helm.
type Helm struct{}

// Pull pulls a chart and checks its archive.
func (Helm) Pull(t *testing.T, from Source, a Artifact) digest.Digest {
	t.Helper()
	home, out := from.home(t), t.TempDir()
	said := run(t, home, Tool(t, "helm"), "pull", "--plain-http", "--destination", out,
		"oci://"+from.Address+"/"+from.Upstream+"/"+a.Repository, "--version", a.Tag)
	archives, err := filepath.Glob(filepath.Join(out, "*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("helm wrote the archives %v, want one (%v)", archives, err)
	}
	checkFile(t, archives[0], a.Blobs[0].Digest)
	return parseDigest(t, "helm", said)
}

// useRegistries has a machine's registries.conf and its drop-ins be those of the user
// whose home it is: a user's are read as the machine's are.
func useRegistries(t testing.TB, home, root string) {
	t.Helper()
	user, machine := filepath.Join(home, ".config", "containers"), filepath.Join(root, "etc", "containers")
	if err := os.MkdirAll(filepath.Join(user, "registries.conf.d"), 0o755); err != nil {
		t.Fatalf("preparing a home: %v", err)
	}
	// A folder that is a link is not read.
	dropIns, err := filepath.Glob(filepath.Join(machine, "registries.conf.d", "*.conf"))
	if err != nil {
		t.Fatalf("preparing a home: %v", err)
	}
	for _, file := range append(dropIns, filepath.Join(machine, "registries.conf")) {
		name, err := filepath.Rel(machine, file)
		if err == nil {
			err = os.Symlink(file, filepath.Join(user, name))
		}
		if err != nil {
			t.Fatalf("preparing a home: %v", err)
		}
	}
}

// mirrorConf writes a registries.conf in which the node is the upstream's
// mirror; the upstream itself is not reachable by its name.
func mirrorConf(t testing.TB, dir string, from Source) string {
	t.Helper()
	return writeFile(t, filepath.Join(dir, "registries.conf"), fmt.Sprintf(`
unqualified-search-registries = []
[[registry]]
location = %q
[[registry.mirror]]
location = %q
insecure = true
`, from.Upstream, from.Address+"/"+from.Upstream))
}

// acceptAnything writes the signature policy of a user who has none.
func acceptAnything(t testing.TB, dir string) string {
	t.Helper()
	return writeFile(t, filepath.Join(dir, "policy.json"), `{"default": [{"type": "insecureAcceptAnything"}]}`)
}

// run runs a client's command and returns its standard output.
func run(t testing.TB, home, program string, args ...string) string {
	t.Helper()
	return runEnv(t, home, nil, program, args...)
}

// runEnv runs a client's command with home as its home directory and little
// else in its environment, so that nothing of the user's is read or changed,
// and returns what it printed. What
// it printed is also the explanation when it fails.
func runEnv(t testing.TB, home string, env []string, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pullTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = home
	cmd.Env = append([]string{
		"HOME=" + home, "XDG_RUNTIME_DIR=" + home,
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(),
	}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", filepath.Base(program), args, err, &stdout, &stderr)
	}
	// helm tells the digest on its standard error.
	if stdout.Len() == 0 {
		return stderr.String()
	}
	return stdout.String()
}

var digestPattern = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// parseDigest finds the last digest in what a client said.
func parseDigest(t testing.TB, client, said string) digest.Digest {
	t.Helper()
	found := digestPattern.FindAllString(said, -1)
	if len(found) == 0 {
		t.Fatalf("%s named no digest:\n%s", client, said)
	}
	return digest.Digest(found[len(found)-1])
}

func checkFile(t testing.TB, name string, want digest.Digest) {
	t.Helper()
	if got := fileDigest(t, name); got != want {
		t.Errorf("%s has digest %s, want %s", filepath.Base(name), got, want)
	}
}

func fileDigest(t testing.TB, name string) digest.Digest {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatalf("reading what a client wrote: %v", err)
	}
	defer f.Close()
	d, err := digest.FromReader(f)
	if err != nil {
		t.Fatalf("reading what a client wrote: %v", err)
	}
	return d
}

func readJSON(t testing.TB, name string, into any) {
	t.Helper()
	body, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("reading what a client wrote: %v", err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("reading what a client wrote in %s: %v", filepath.Base(name), err)
	}
}

func writeFile(t testing.TB, name, body string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
		t.Fatalf("writing a configuration: %v", err)
	}
	return name
}
