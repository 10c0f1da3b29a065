package testenv

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"
)

// NodeConfig says what a node under test is.
type NodeConfig struct {
	// Upstreams are the base URLs of each upstream, by its name.
	Upstreams map[string][]string
	// DefaultUpstream is what a request means that names none.
	DefaultUpstream string
	// Address is where the node listens, host:port; empty takes a free port.
	Address string
	// Store is the store section of the configuration. Nil means a directory
	// of the test's own.
	Store map[string]any
	// Extra is merged into the node section, replacing what is there.
	Extra map[string]any
	// Race builds the binary with the race detector: a node that races ends
	// with a failure instead of serving on.
	Race bool
	// Binary is run in place of one that is built.
	Binary string
	// Env is added to the environment of the process.
	Env []string
	// Place is where on a network it is. Zero is where the test is.
	Place Place
}

// Node is an entrepot process with the role of a node.
type Node struct {
	t              testing.TB
	address, admin string // host:port
	process        *Process
}

// StartNode builds entrepot, and starts it with a configuration file. It ends
// with the test.
func StartNode(t testing.TB, config NodeConfig) *Node {
	t.Helper()
	n := &Node{t: t, address: config.Address, admin: config.Place.listen(t)}
	if n.address == "" {
		n.address = config.Place.listen(t)
	}
	upstreams := map[string]any{}
	for name, urls := range config.Upstreams {
		upstreams[name] = map[string]any{"urls": urls}
	}
	store := config.Store
	if store == nil {
		store = map[string]any{"dir": t.TempDir()}
	}
	node := map[string]any{"listen": n.address, "store": store, "upstreams": upstreams}
	if config.DefaultUpstream != "" {
		node["default_upstream"] = config.DefaultUpstream
	}
	maps.Copy(node, config.Extra)
	file, err := yaml.Marshal(map[string]any{"admin": config.Place.admin(n.admin), "node": node})
	if err != nil {
		t.Fatalf("writing the node's configuration: %v", err)
	}
	n.process = Start(t, ProcessConfig{
		Name: "entrepot", Place: config.Place,
		Path: binaryOf(t, config.Binary, config.Race),
		Args: []string{"serve", "--config", writeFile(t, filepath.Join(t.TempDir(), "entrepot.yaml"), string(file))},
		// A race ends the process, which fails the test, instead of being one
		// of many lines in its log.
		Env:   append(append(os.Environ(), "GORACE=halt_on_error=1"), config.Env...),
		Ready: n.ready,
	})
	return n
}

// ready says whether the node's readiness probe passes.
func (n *Node) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.AdminURL()+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("readiness: %s", response.Status)
	}
	return nil
}

// binaryOf is the binary that was asked for, or one that is built.
func binaryOf(t testing.TB, binary string, race bool) string {
	t.Helper()
	if binary != "" {
		return binary
	}
	return buildEntrepot(t, race)
}

// buildEntrepot builds the binary. The build cache makes this quick when
// nothing has changed.
func buildEntrepot(t testing.TB, race bool) string {
	t.Helper()
	binary := filepath.Join(moduleRoot(t), ".tools", "bin", "entrepot")
	args := []string{"build"}
	if race {
		binary += "-race"
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "-o", binary, "./cmd/entrepot")...)
	cmd.Dir = moduleRoot(t)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building entrepot: %v\n%s", err, output)
	}
	return binary
}

// Start starts the node again after [Node.Stop], on what it had stored, and
// waits until it is ready.
func (n *Node) Start() { n.process.Restart() }

// Stop ends the node as an operator would (SIGTERM) and waits for its end.
func (n *Node) Stop() { n.process.Stop() }

// Process is the node's process, for what it costs and to kill it.
func (n *Node) Process() *Process { return n.process }

// Address is the host:port of the node's listener.
func (n *Node) Address() string { return n.address }

// URL is the base URL of the node.
func (n *Node) URL() string { return "http://" + n.address }

// AdminURL is the base URL of the node's admin listener.
func (n *Node) AdminURL() string { return "http://" + n.admin }

// Source is the node as clients see it, for names of an upstream.
func (n *Node) Source(upstream string) Source {
	return Source{Address: n.address, Upstream: upstream}
}

// Metrics returns the node's metrics, in the text format of Prometheus.
func (n *Node) Metrics() string {
	n.t.Helper()
	response, err := http.Get(n.AdminURL() + "/metrics")
	if err != nil {
		n.t.Fatalf("reading the node's metrics: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatalf("reading the node's metrics: %v", err)
	}
	return string(body)
}
