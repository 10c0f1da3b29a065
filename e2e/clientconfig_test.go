package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
)

// machineFiles are what people left on a machine: each client has another mirror,
// which is not there.
func machineFiles() map[string]string {
	return map[string]string{
		"etc/containerd/config.toml":                  "# ours\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n\tenable_selinux = false # no\n",
		"etc/containerd/certs.d/docker.io/hosts.toml": "server = \"http://127.0.0.1:1\"\r\n\r\n# office\r\n[host.\"http://127.0.0.1:2\"]\r\n  capabilities = [\r\n    \"pull\",\r\n  ]\r\n",
		"etc/docker/daemon.json":                      "{\n\t\"max-concurrent-downloads\": 2,\n\t\"registry-mirrors\": [\n\t\t\"http://127.0.0.1:2\"\n\t]\n}\n",
		"etc/containers/registries.conf":              "unqualified-search-registries = []\n# office\n[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:2/hub\"\ninsecure = true\n",
	}
}

// machine is a folder with those files.
func machine(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, content := range machineFiles() {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// allOf is everything below a root, to the byte, with modes and the times of files.
func allOf(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	files := os.DirFS(root)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || d.IsDir() {
			all[name] = fmt.Sprint(d)
			return err
		}
		content, err := fs.ReadFile(files, name)
		all[name] = fmt.Sprintf("%v %v %q", info.Mode(), info.ModTime(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// clientConfig runs entrepot client-config for a root, and returns what it says.
func clientConfig(t *testing.T, root string, args ...string) string {
	t.Helper()
	said := testenv.Entrepot(t, "", append([]string{"client-config", "--root", root}, args...)...)
	if said.Status != 0 {
		t.Fatalf("client-config %v: status %d\n%s%s", args, said.Status, said.Stdout, said.Stderr)
	}
	return said.Stdout
}

// configured is a client that the command configures for a server.
type configured struct {
	name, client string
	puller       testenv.Client
}

// pullsAndIsUndone has the command configure the client for the server of a flag (--node or
// --router), among mirrors that it had before and that are not there; has it pull; and
// undoes all of it, to the byte.
func (c configured) pullsAndIsUndone(t *testing.T, flag string, server *testenv.Tap, image testenv.Artifact) {
	t.Helper()
	root := machine(t)
	before := allOf(t, root)

	clientConfig(t, root, c.client, flag, server.URL(), "--write")
	if said := clientConfig(t, root, c.client, flag, server.URL(), "--write"); !strings.Contains(said, "nothing had to be changed") {
		t.Errorf("a second write says:\n%s", said)
	}
	said := clientConfig(t, root, c.client, flag, server.URL(), "--check", "--image", upstreamName+"/"+image.Name())
	if !strings.Contains(said, string(image.Root.Digest)) {
		t.Errorf("check did not find the manifest %s:\n%s", image.Root.Digest, said)
	}
	server.Reset()
	from := testenv.Source{Address: strings.TrimPrefix(server.URL(), "http://"), Upstream: upstreamName, Root: root}
	if got := c.puller.Pull(t, from, image); !slices.Contains(image.Manifests, got) {
		t.Errorf("it pulled %s, want one of %v", got, image.Manifests)
	}
	if !slices.ContainsFunc(server.Requests(), testenv.TapRequest.IsBlobGet) {
		t.Error("it did not ask the server for a blob")
	}

	clientConfig(t, root, c.client, "--undo")
	after := allOf(t, root)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if before[name] != after[name] {
			t.Errorf("undo left %s as\n%s\nwhich was\n%s", name, after[name], before[name])
		}
	}
	if len(before) != len(after) {
		t.Errorf("there were %d files and folders, and are %d", len(before), len(after))
	}
}

func TestClientsThatTheCommandConfiguredPullAndAreUndoneWithoutATrace(t *testing.T) {
	registry := testenv.StartRegistry(t)
	multi := testenv.PushIndex(t, registry.Host(), "library/multi", "1.0")
	for _, c := range []configured{
		{"containerd-1.6", "containerd", testenv.Containerd{Version: 1}},
		{"containerd-2", "containerd", testenv.Containerd{Version: 2}},
		{"dockerd", "docker", testenv.Dockerd{}},
		{"podman", "podman", testenv.Podman{}},
		{"skopeo, with what CRI-O reads", "crio", testenv.Skopeo{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := startNode(t, registry.URL(), testenv.NodeConfig{})
			c.pullsAndIsUndone(t, "--node", testenv.StartTap(t, node.URL()), multi)
		})
	}
}

// A router has no content: what it answers are redirects, which each client has to follow
// to the node.
func TestClientsThatTheCommandConfiguredPullThroughARouterAndAreUndoneWithoutATrace(t *testing.T) {
	registry := testenv.StartRegistry(t)
	multi := testenv.PushIndex(t, registry.Host(), "library/multi", "1.0")
	node := testenv.StartTap(t, startNode(t, registry.URL(), testenv.NodeConfig{}).URL())
	router := testenv.StartRouter(t, testenv.RouterConfig{Section: map[string]any{
		"default_upstream": upstreamName, "upstreams": map[string]any{upstreamName: map[string]any{}},
		"mirrors": []map[string]any{{"name": "near", "urls": []string{node.URL()}, "tier": "origin", "country": "US"}},
	}})
	redirectedTo(t, router.URL()+"/v2/"+multi.Repository+"/manifests/"+multi.Tag, node.URL()) // once it has been probed
	for _, c := range []configured{
		{"containerd-2", "containerd", testenv.Containerd{Version: 2}},
		{"dockerd", "docker", testenv.Dockerd{}},
		{"podman", "podman", testenv.Podman{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			node.Reset()
			c.pullsAndIsUndone(t, "--router", testenv.StartTap(t, router.URL()), multi)
			if !slices.ContainsFunc(node.Requests(), testenv.TapRequest.IsBlobGet) {
				t.Error("no blob came from the node")
			}
		})
	}
}

// Both containerds read the folder of hosts.toml files from the configuration that
// the command has merged, and all else as before.
func TestContainerdsReadTheirMergedConfiguration(t *testing.T) {
	node := startNode(t, "http://127.0.0.1:1", testenv.NodeConfig{})
	for version, was := range map[int]string{1: "version = 2\n", 2: "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = ''\n"} {
		containerd := testenv.Containerd{Version: version}
		root := machine(t)
		file := filepath.Join(root, "etc/containerd/config.toml")
		if err := os.WriteFile(file, []byte(was+"[debug]\nlevel = \"warn\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		before := containerd.ConfigDump(t, file)
		clientConfig(t, root, "containerd", "--node", node.URL(), "--write")
		after := containerd.ConfigDump(t, file)
		changed := 0
		old := strings.Split(before, "\n")
		for i, line := range strings.Split(after, "\n") {
			if i < len(old) && line == old[i] {
				continue
			}
			if changed++; !strings.Contains(line, "config_path = ") || !strings.Contains(line, "/etc/containerd/certs.d") {
				t.Errorf("containerd %d reads a line that is not ours: %q", version, line)
			}
		}
		if changed != 1 {
			t.Errorf("containerd %d reads %d lines that have changed, want 1:\n%s", version, changed, after)
		}
	}
}

// A mirror that nobody needs to trust is asked for content by its digest, and
// somebody else for what a tag means.
func TestContainerdAsksAnUntrustedMirrorForContentOnly(t *testing.T) {
	registry := testenv.StartRegistry(t)
	multi := testenv.PushIndex(t, registry.Host(), "library/multi", "1.0")
	upstream := testenv.StartTap(t, registry.URL())
	node := testenv.StartTap(t, startNode(t, registry.URL(), testenv.NodeConfig{}).URL())
	root := t.TempDir()
	hosts := filepath.Join(root, "etc/containerd/certs.d/docker.io")
	if err := os.MkdirAll(hosts, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(hosts, "hosts.toml"), fmt.Appendf(nil, "server = %q\n", upstream.URL()), 0o644); err != nil {
		t.Fatal(err)
	}
	clientConfig(t, root, "containerd", "--node", node.URL(), "--untrusted", "--write")
	from := testenv.Source{Address: strings.TrimPrefix(node.URL(), "http://"), Upstream: upstreamName, Root: root}
	testenv.Containerd{Version: 2}.Pull(t, from, multi)
	for _, r := range node.Requests() {
		if strings.HasSuffix(r.Path, "/manifests/1.0") {
			t.Errorf("the mirror was asked what a tag means: %s", r)
		}
	}
	if !slices.ContainsFunc(node.Requests(), testenv.TapRequest.IsBlobGet) {
		t.Error("no blob came from the mirror")
	}
	if slices.ContainsFunc(upstream.Requests(), testenv.TapRequest.IsBlobGet) {
		t.Error("blobs came from upstream, past the mirror")
	}
}

// The same of skopeo, and so of podman and CRI-O: what is theirs in registries.conf,
// here where the registry really is, is taken over.
func TestSkopeoAsksAnUntrustedMirrorForNoTag(t *testing.T) {
	registry := testenv.StartRegistry(t)
	multi := testenv.PushIndex(t, registry.Host(), "library/multi", "1.0")
	node := testenv.StartTap(t, startNode(t, registry.URL(), testenv.NodeConfig{}).URL())
	root := t.TempDir()
	conf := filepath.Join(root, "etc/containers/registries.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	theirs := fmt.Appendf(nil, "[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n", upstreamName, registry.Host())
	if err := os.WriteFile(conf, theirs, 0o644); err != nil {
		t.Fatal(err)
	}
	clientConfig(t, root, "podman", "--node", node.URL(), "--untrusted", "--write")
	node.Reset()
	from := testenv.Source{Address: strings.TrimPrefix(node.URL(), "http://"), Upstream: upstreamName, Root: root}
	testenv.Skopeo{}.Pull(t, from, multi)
	for _, r := range node.Requests() {
		if strings.HasSuffix(r.Path, "/manifests/1.0") {
			t.Errorf("the mirror was asked what a tag means: %s", r)
		}
	}
}
