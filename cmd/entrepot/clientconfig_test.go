package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/cmd/internal/clientconf"
)

// describedBy is a server that describes itself as a configuration file's role
// does.
func describedBy(t *testing.T, d *clientconf.Description) *httptest.Server {
	t.Helper()
	surface, err := withDescription(http.NotFoundHandler(), d)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(surface)
	t.Cleanup(server.Close)
	return server
}

// clientConfigure runs client-config with a root.
func clientConfigure(t *testing.T, root string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, told bytes.Buffer
	status = run(t.Context(), append([]string{"client-config", "--root", root}, args...), &out, &told)
	return status, out.String(), told.String()
}

func TestNodesAndRoutersDescribeThemselvesWithoutSecrets(t *testing.T) {
	node := standaloneConfig().Node
	hub := node.Upstreams["docker.io"]
	hub.Username, hub.Password = "me", "hidden"
	hub.Ledger = &LedgerConfig{URL: "https://user:hidden@ledger.example.org/ledger", Key: "/hidden"}
	node.Upstreams["docker.io"] = hub
	quay := node.Upstreams["quay.io"]
	quay.Ledger = &LedgerConfig{URL: "https://origin.example.org/ledger"}
	node.Upstreams["quay.io"] = quay
	server := describedBy(t, node.description())

	resp, err := http.Get(server.URL + clientconf.WellKnown)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String(), "hidden") {
		t.Errorf("the description tells a secret: %s", text.String())
	}
	var d clientconf.Description
	if err := json.Unmarshal(text.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Role != "node" || d.DefaultUpstream != "docker.io" || len(d.Upstreams) != 7 || !d.Has("quay.io") {
		t.Errorf("the node describes itself as %+v", d)
	}
	for _, u := range d.Upstreams {
		if u.Name == "quay.io" && (u.Ledger == nil || u.Ledger.URL != "https://origin.example.org/ledger") {
			t.Errorf("quay.io's ledger is %+v", u.Ledger)
		}
	}
	router := &RouterConfig{Upstreams: map[string]RouterUpstreamConfig{"a.example": {Private: true}}, Files: map[string]RouterFilesConfig{"b.example": {}}}
	if d := router.description(); d.Role != "router" || !d.Upstreams[0].Private || d.Files[0].Name != "b.example" {
		t.Errorf("the router describes itself as %+v", d)
	}
}

func TestClientConfigShowsWritesAndUndoes(t *testing.T) {
	server := describedBy(t, standaloneConfig().Node.description())
	root := t.TempDir()
	const hosts = "etc/containerd/certs.d/quay.io/hosts.toml"
	status, out, told := clientConfigure(t, root, "containerd", "--node", server.URL)
	if status != exitDone || !strings.Contains(out, "# /"+hosts+" (create)") || !strings.Contains(out, "Nothing was written") {
		t.Errorf("status %d, %s%s", status, out, told)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("showing wrote %v, %v", entries, err)
	}
	if status, out, told = clientConfigure(t, root, "containerd", "--node", server.URL, "--write"); status != exitDone || !strings.Contains(out, "created: /"+hosts) {
		t.Errorf("status %d, %s%s", status, out, told)
	}
	if content, err := os.ReadFile(filepath.Join(root, hosts)); err != nil || !strings.Contains(string(content), server.URL) {
		t.Errorf("hosts.toml is %q, %v", content, err)
	}
	if status, out, told = clientConfigure(t, root, "containerd", "--node", server.URL, "--write"); status != exitDone || !strings.Contains(out, "nothing had to be changed") {
		t.Errorf("again: status %d, %s%s", status, out, told)
	}
	if status, out, told = clientConfigure(t, root, "containerd", "--undo"); status != exitDone || !strings.Contains(out, "removed: /"+hosts) {
		t.Errorf("status %d, %s%s", status, out, told)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("undo left %v, %v", entries, err)
	}
}

func TestClientConfigNeedsNoServerForUpstreamsThatAreNamed(t *testing.T) {
	status, out, told := clientConfigure(t, t.TempDir(), "containerd", "--router", "http://127.0.0.1:1", "--upstream", "quay.io", "--untrusted")
	if status != exitDone || !strings.Contains(out, "quay.io/hosts.toml") || strings.Contains(out, "docker.io") || strings.Contains(out, "resolve") {
		t.Errorf("status %d, %s%s", status, out, told)
	}
	status, out, told = clientConfigure(t, t.TempDir(), "containerd", "--router", "http://127.0.0.1:1")
	if status != exitFailed || !strings.Contains(told, "--upstream") {
		t.Errorf("status %d, %s%s", status, out, told)
	}
}

func TestClientConfigIsToldWhatIsWrongWithItsUse(t *testing.T) {
	for want, args := range map[string][]string{
		"--node URL or --router URL": {"docker"},
		"invalid argument":           {"dockre", "--node", "http://a"},
		"write it with http://":      {"docker", "--node", "a:5000"},
		"one or the other":           {"docker", "--node", "http://a", "--write", "--undo"},
		"--force goes with --undo":   {"docker", "--node", "http://a", "--force"},
		"is not a host":              {"docker", "--node", "http://a", "--upstream", "../x"},
		"--image goes with --check":  {"docker", "--node", "http://a", "--image", "b"},
		"accepts 1 arg":              {"--node", "http://a"},
	} {
		if status, out, told := clientConfigure(t, t.TempDir(), args...); status != exitUsage || !strings.Contains(told, want) {
			t.Errorf("%v: status %d, %s%s, want %q", args, status, out, told, want)
		}
	}
}

func TestClientConfigCheckFailsWithItsStatus(t *testing.T) {
	server := describedBy(t, standaloneConfig().Node.description()) // it has no /v2/
	if status, out, _ := clientConfigure(t, t.TempDir(), "podman", "--node", server.URL, "--check"); status != exitFailed || !strings.Contains(out, "FAIL") {
		t.Errorf("status %d: %s", status, out)
	}
}
