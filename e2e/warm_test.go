package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"
)

// warmLine is a line that entrepot warm says.
type warmLine struct {
	Event   string `json:"event"`
	Name    string `json:"name"`
	Digest  string `json:"digest"`
	Error   string `json:"error"`
	Bytes   int64  `json:"bytes"`
	Summary struct {
		Names  int `json:"names"`
		Failed int `json:"failed"`
		Blobs  int `json:"blobs"`
	} `json:"summary"`
}

// warm runs entrepot warm with a list, and returns its lines of JSON.
func warm(t *testing.T, status int, list string, args ...string) []warmLine {
	t.Helper()
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	said := testenv.Entrepot(t, "", append([]string{"warm", "--list", file}, args...)...)
	if said.Status != status {
		t.Fatalf("warm %v: status %d, want %d\n%s%s", args, said.Status, status, said.Stdout, said.Stderr)
	}
	var lines []warmLine
	for line := range strings.Lines(said.Stdout) {
		var l warmLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("warm says %q: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// What was warmed is pulled without upstream, by a node that starts without it too.
func TestWhatWasWarmedNeedsNoUpstream(t *testing.T) {
	registry := testenv.StartRegistry(t)
	multi := testenv.PushIndex(t, registry.Host(), "library/multi", "1.0")
	file := testenv.PushFile(t, registry.Host(), "library/file", "1.0", 3<<20)
	upstream := testenv.StartTap(t, registry.URL())
	node := startNode(t, upstream.URL(), testenv.NodeConfig{})
	manifests := fmt.Sprintf("kind: Pod\nspec:\n  initContainers:\n  - image: library/file:1.0\n  containers:\n  - {name: a, image: %q}\n---\nkind: Pod\nspec: {containers: [{image: gone:1}]}\n", multi.Name())

	lines := warm(t, 1, manifests, "--node", node.URL(), "--platform", "linux/amd64")
	if len(lines) != 4 || lines[3].Event != "done" || lines[3].Summary.Names != 3 || lines[3].Summary.Failed != 1 {
		t.Errorf("warm says %+v", lines)
	}
	for _, l := range lines[:3] {
		if (l.Event == "failed") != (l.Name == "gone:1") {
			t.Errorf("warm says %+v", l)
		}
	}
	var brought int64
	for _, r := range upstream.Requests() {
		if r.IsBlobGet() {
			brought++
		}
	}
	upstream.Reset()
	lines = warm(t, 0, multi.Name()+"\nlibrary/file:1.0\n", "--node", node.URL(), "--platform", "linux/amd64")
	if last := lines[len(lines)-1]; last.Bytes != 0 || brought == 0 {
		t.Errorf("warming again fetched %d bytes (%d blobs came before): %+v", last.Bytes, brought, lines)
	}
	upstream.Close()
	node.Stop()
	node.Start()
	testenv.Crane{}.Pull(t, node.Source(upstreamName), multi)
	testenv.Oras{}.Pull(t, node.Source(upstreamName), file)
}

// A node fetches by itself what its patterns mean in upstream's list of tags, and
// tells so in its metrics.
func TestANodePrefetchesWhatItsPatternsMean(t *testing.T) {
	registry := testenv.StartRegistry(t)
	multi := testenv.PushIndex(t, registry.Host(), "library/multi", "v1.30")
	testenv.PushFile(t, registry.Host(), "library/multi", "v0.9", 1<<20)
	upstream := testenv.StartTap(t, registry.URL())
	node := startNode(t, upstream.URL(), testenv.NodeConfig{Extra: map[string]any{"prefetch": map[string]any{
		"releases": map[string]any{"images": []string{"docker.io/multi:v1.*"}, "platforms": []string{"linux/amd64"}},
	}}})
	const done = `entrepot_prefetch_names{prefetch="releases",role="node"} 1`
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(node.Metrics(), done) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing was prefetched:\n%s", node.Metrics())
		}
		time.Sleep(50 * time.Millisecond)
	}
	if metrics := node.Metrics(); !strings.Contains(metrics, `entrepot_prefetch_failures{prefetch="releases",role="node"} 0`) {
		t.Errorf("something failed:\n%s", metrics)
	}
	for _, r := range upstream.Requests() {
		if strings.HasSuffix(r.Path, "/manifests/v0.9") {
			t.Errorf("what the pattern does not mean was asked for: %s", r)
		}
	}
	upstream.Close()
	testenv.Crane{}.Pull(t, node.Source(upstreamName), multi)
}
