package testenv

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Containerd is containerd and its ctr, which take a node as the host of an
// upstream in hosts.toml, and name the upstream in the query's ns.
type Containerd struct {
	// Version is 1 for Debian's containerd (1.6), 2 for the current release.
	Version int
	// Parallel makes version 2 fetch each layer in pieces of 8 MiB, eight at a
	// time, which it asks for as ranges that are open at their end.
	Parallel bool
}

// ContainerdServer is a containerd that runs.
type ContainerdServer struct {
	Process *Process
	Ctr     []string // its command line, to which arguments are added
	Home    string   // for that
	Content string   // folder of what it has: blobs/sha256/HEX
}

// Start starts a containerd with an empty root. It ends with the test.
func (c Containerd) Start(t testing.TB) *ContainerdServer {
	t.Helper()
	home := t.TempDir()
	socket, root := shortDir(t)+"/c.sock", t.TempDir()
	daemon, ctr, config := c.programs(t)
	configFile := writeFile(t, filepath.Join(home, "config.toml"), fmt.Sprintf(`version = %d
root = %q
state = %q
%s
[grpc]
address = %q
`, c.Version+1, root, t.TempDir(), config, socket))
	process := Start(t, ProcessConfig{
		Name: "containerd", Path: daemon, Args: []string{"--config", configFile, "--log-level", "warn"},
		Ready: func(ctx context.Context) error { return dialUnix(ctx, socket) },
	})
	return &ContainerdServer{
		Process: process, Ctr: []string{ctr, "--address", socket}, Home: home,
		Content: filepath.Join(root, "io.containerd.content.v1.content"),
	}
}

// Pull starts a containerd, and pulls and unpacks into its empty root.
// Upstream's own address is one that refuses connections: only the node can
// have answered.
func (c Containerd) Pull(t *testing.T, from Source, a Artifact) digest.Digest {
	t.Helper()
	server := c.Start(t)
	defer server.Process.Stop()
	ctr := func(args ...string) string {
		return run(t, server.Home, server.Ctr[0], slices.Concat(server.Ctr[1:], args)...)
	}
	name := from.Upstream + "/" + a.Name()
	var login []string
	if from.Login {
		login = []string{"--user", Promoter + ":" + PromoterPassword}
	}
	ctr(append(append(c.PullArgs(HostsDir(t, from)), login...), name)...)
	stored := ctr("content", "ls", "--quiet")
	for _, blob := range a.Blobs {
		if !strings.Contains(stored, blob.Digest.String()) {
			t.Errorf("containerd pulled %s without its %s %s", name, blob.MediaType, blob.Digest)
		}
	}
	return parseDigest(t, "ctr images ls", ctr("images", "ls", "name=="+name))
}

// PullArgs are the arguments of ctr for a pull, but for the name.
func (c Containerd) PullArgs(hosts string) []string {
	// The native snapshotter copies: it leaves no mounts and works where
	// overlays do not, inside of a container for one.
	pull := []string{"images", "pull", "--hosts-dir", hosts, "--snapshotter", "native", "--platform", "linux/amd64"}
	if c.Version == 2 {
		// Else it fetches the configs of all platforms.
		pull = append(pull, "--skip-metadata")
	}
	return pull
}

// HostsDir is the folder that has the upstream's hosts.toml.
func HostsDir(t testing.TB, from Source) string {
	t.Helper()
	if from.Root != "" {
		return filepath.Join(from.Root, "etc", "containerd", "certs.d")
	}
	hosts := t.TempDir()
	if err := os.Mkdir(filepath.Join(hosts, from.Upstream), 0o755); err != nil {
		t.Fatalf("preparing hosts.toml: %v", err)
	}
	writeFile(t, filepath.Join(hosts, from.Upstream, "hosts.toml"), fmt.Sprintf(`
server = "http://127.0.0.1:1"
[host."http://%s"]
capabilities = ["pull", "resolve"]
`, from.Address))
	return hosts
}

// ConfigDump is a configuration of containerd as containerd reads it.
func (c Containerd) ConfigDump(t *testing.T, file string) string {
	t.Helper()
	daemon, _, _ := c.programs(t)
	return run(t, t.TempDir(), daemon, "--config", file, "config", "dump")
}

// programs returns the daemon, its ctr, and what its configuration says beyond
// where it lives.
func (c Containerd) programs(t testing.TB) (daemon, ctr, config string) {
	t.Helper()
	if c.Version == 1 {
		return Debian(t, "containerd", "containerd"), Debian(t, "ctr", "containerd"),
			`disabled_plugins = ["io.containerd.grpc.v1.cri"]`
	}
	lines := []string{
		`disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]`,
		`[plugins.'io.containerd.transfer.v1.local']`,
	}
	if c.Parallel {
		lines = append(lines, `max_concurrent_downloads = 8`, `concurrent_layer_fetch_buffer = 8388608`)
	}
	lines = append(lines,
		`[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]`,
		`platform = "linux/amd64"`,
		`snapshotter = "native"`)
	return Tool(t, "containerd"), Tool(t, "ctr"), strings.Join(lines, "\n")
}

// Dockerd is dockerd, from Debian, with the node in registry-mirrors: it sends
// there what belongs to docker.io and says nothing of the upstream, so that
// the node's default upstream must be docker.io.
type Dockerd struct{}

// Pull starts a dockerd, and pulls into its empty root.
func (Dockerd) Pull(t *testing.T, from Source, a Artifact) digest.Digest {
	t.Helper()
	if from.Upstream != "docker.io" {
		t.Fatalf("dockerd has mirrors for docker.io only, not for %s", from.Upstream)
	}
	socket, stop := StartDockerd(t, "--registry-mirror", "http://"+from.Address)
	defer stop()
	return dockerPull(t, socket, a)
}

// StartDockerd starts a dockerd with an empty root and no networks of its own,
// and returns the socket that it listens on. It ends with stop, or with the
// test.
func StartDockerd(t testing.TB, args ...string) (socket string, stop func()) {
	t.Helper()
	home, sockets := t.TempDir(), shortDir(t)
	socket = sockets + "/d.sock"
	// A container in the host's network leaves this mounted.
	t.Cleanup(func() { _ = syscall.Unmount(sockets+"/exec/netns/default", syscall.MNT_DETACH) })
	server := Start(t, ProcessConfig{
		Name: "dockerd", Path: Debian(t, "dockerd", "docker.io"),
		Args: append([]string{
			"--config-file", writeFile(t, filepath.Join(home, "daemon.json"), "{}"),
			"--data-root", t.TempDir(), "--exec-root", sockets + "/exec", "--pidfile", sockets + "/pid",
			"--host", "unix://" + socket, "--storage-driver", "vfs",
			"--iptables=false", "--ip6tables=false", "--bridge=none", "--log-level", "warn",
		}, args...),
		Ready: func(ctx context.Context) error { return dialUnix(ctx, socket) },
	})
	return socket, server.Stop
}

// dockerPull asks a dockerd for a pull as its command line does ("POST
// /images/create" of the Engine API, version 1.41).
func dockerPull(t *testing.T, socket string, a Artifact) digest.Digest {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	ctx, cancel := context.WithTimeout(t.Context(), pullTimeout)
	defer cancel()
	query := url.Values{"fromImage": {"docker.io/" + a.Repository}, "tag": {a.Tag}, "platform": {"linux/amd64"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker/v1.41/images/create?"+query.Encode(), nil)
	if err != nil {
		t.Fatalf("asking dockerd for a pull: %v", err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("asking dockerd for a pull: %v", err)
	}
	defer response.Body.Close()
	// The answer is a line of JSON for each step; a failure is one of them.
	said, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || strings.Contains(string(said), `"error"`) {
		t.Fatalf("dockerd did not pull %s: %s, %v\n%s", a.Name(), response.Status, err, said)
	}
	return parseDigest(t, "dockerd", string(said))
}

// dialUnix says whether something listens on a Unix socket.
func dialUnix(ctx context.Context, socket string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("trying %s: %w", socket, err)
	}
	return conn.Close()
}

// shortDir is a temporary directory whose name leaves room for a socket in it:
// the path of a Unix socket has at most 107 bytes, and the name of a test is
// part of what t.TempDir gives.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e") //nolint:usetesting // too long, see above
	if err != nil {
		t.Fatalf("making a directory for a socket: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the directory of a socket: %v", err)
		}
	})
	return dir
}
