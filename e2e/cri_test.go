package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
)

// A machine of a cluster, on which an operator ran the command, with the files where
// they belong: what kubelet asks containerd for comes through a node, or by a router.
// The registry itself cannot be reached by its name.
func TestKubernetesPullsThroughWhatTheCommandConfigured(t *testing.T) {
	const name = upstreamName + "/library/multi:1.0"
	if !testenv.Alone(t, func() []string {
		testenv.BuildEntrepot(t)
		for _, tool := range []string{"registry", "containerd", "crictl"} {
			testenv.Tool(t, tool)
		}
		testenv.Debian(t, "containerd", "containerd")
		return nil
	}) {
		return
	}
	if err := testenv.LayOver("etc", "var/lib"); err != nil {
		t.Fatal(err)
	}
	registry := testenv.StartRegistry(t)
	multi := testenv.PushIndex(t, registry.Host(), "library/multi", "1.0")
	file := "/etc/containerd/config.toml"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{1, 2} {
		for _, through := range []string{"node", "router"} {
			t.Run(fmt.Sprintf("containerd %d, %s", version, through), func(t *testing.T) {
				var asked, content *testenv.Tap // where containerd is sent, and where content is
				if through == "router" {
					router, _, near := regions(t, registry.URL())
					asked, content = testenv.StartTap(t, router.URL()), near
				} else {
					asked = testenv.StartTap(t, startNode(t, registry.URL(), testenv.NodeConfig{}).URL())
					content = asked
				}
				cri := testenv.NewCRI(t, testenv.Containerd{Version: version})
				if err := os.WriteFile(file, []byte(cri.Config()), 0o600); err != nil {
					t.Fatal(err)
				}
				clientConfig(t, "/", "containerd", "--node", asked.URL(), "--write")
				defer clientConfig(t, "/", "containerd", "--undo")
				asked.Reset()
				content.Reset()
				if got := cri.Pull(t, file, name); got != multi.Root.Digest {
					t.Errorf("kubelet would know the image by %s, want %s", got, multi.Root.Digest)
				}
				if !slices.ContainsFunc(asked.Requests(), func(r testenv.TapRequest) bool { return strings.HasSuffix(r.Path, "/manifests/1.0") }) {
					t.Errorf("the %s was not asked what the tag means: %v", through, asked.Requests())
				}
				if !slices.ContainsFunc(content.Requests(), testenv.TapRequest.IsBlobGet) {
					t.Errorf("no blob came from the node: %v", content.Requests())
				}
			})
		}
	}
}
