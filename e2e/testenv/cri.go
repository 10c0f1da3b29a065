package testenv

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// CRI is a containerd whose CRI is on: what kubelet has images pulled by.
type CRI struct {
	containerd   Containerd
	socket, home string
	root, state  string
}

// NewCRI is one with an empty root, which is not yet started.
func NewCRI(t testing.TB, c Containerd) *CRI {
	t.Helper()
	return &CRI{containerd: c, socket: shortDir(t) + "/c.sock", home: t.TempDir(), root: t.TempDir(), state: t.TempDir()}
}

// Config is its configuration, which says nothing of registries.
func (c *CRI) Config() string {
	// Nothing is run, so that there is no network for pods.
	config := fmt.Sprintf("version = %d\nroot = %q\nstate = %q\n[grpc]\naddress = %q\n", c.containerd.Version+1, c.root, c.state, c.socket)
	if c.containerd.Version == 1 {
		return config + "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n"
	}
	return config + `[plugins.'io.containerd.cri.v1.images']
snapshotter = 'native'
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
platform = 'linux/amd64'
snapshotter = 'native'
`
}

// Pull starts it by a configuration file, has it pull a name as kubelet does (through
// crictl), and returns the digest that kubelet would know the image by.
func (c *CRI) Pull(t *testing.T, file, name string) digest.Digest {
	t.Helper()
	daemon, _, _ := c.containerd.programs(t)
	server := Start(t, ProcessConfig{
		Name: "containerd", Path: daemon, Args: []string{"--config", file, "--log-level", "warn"},
		Ready: func(ctx context.Context) error { return dialUnix(ctx, c.socket) },
	})
	defer server.Stop()
	endpoint := "unix://" + c.socket
	config := writeFile(t, filepath.Join(c.home, "crictl.yaml"), fmt.Sprintf("runtime-endpoint: %s\nimage-endpoint: %s\ntimeout: 60\n", endpoint, endpoint))
	crictl := func(args ...string) string {
		return run(t, c.home, Tool(t, "crictl"), append([]string{"--config", config}, args...)...)
	}
	crictl("pull", name)
	var image struct {
		Status struct {
			RepoDigests []string `json:"repoDigests"`
		} `json:"status"`
	}
	said := crictl("inspecti", "--output", "json", name)
	if err := json.Unmarshal([]byte(said), &image); err != nil || len(image.Status.RepoDigests) == 0 {
		t.Fatalf("crictl says of %s %v:\n%s", name, err, said)
	}
	repository := name[:strings.LastIndexByte(name, ':')]
	i := slices.IndexFunc(image.Status.RepoDigests, func(d string) bool { return strings.HasPrefix(d, repository+"@") })
	if i < 0 {
		t.Fatalf("crictl knows %s by the digests %q", name, image.Status.RepoDigests)
	}
	return parseDigest(t, "crictl", image.Status.RepoDigests[i])
}
