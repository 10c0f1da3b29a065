package testenv

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// RouterConfig says what a router under test is.
type RouterConfig struct {
	// Section is the router section of the configuration; where it listens is
	// filled in.
	Section map[string]any
	// Race builds the binary with the race detector.
	Race bool
	// Binary is run in place of one that is built.
	Binary string
	// Env is added to the environment of the process.
	Env []string
	// Place is where on a network it is. Zero is where the test is.
	Place Place
}

// Router is an entrepot process with the role of a router.
type Router struct {
	t       testing.TB
	address string // host:port
	admin   string // host:port
	file    string
	config  map[string]any
	process *Process
}

// StartRouter builds entrepot and starts it as a router. It ends with the test.
func StartRouter(t testing.TB, config RouterConfig) *Router {
	t.Helper()
	r := &Router{
		t: t, address: config.Place.listen(t), admin: config.Place.listen(t),
		file: filepath.Join(t.TempDir(), "router.yaml"),
	}
	section := maps.Clone(config.Section)
	section["listen"] = r.address
	r.config = map[string]any{"admin": config.Place.admin(r.admin), "router": section}
	r.write()
	r.process = Start(t, ProcessConfig{
		Name: "entrepot-router", Place: config.Place,
		Path:  binaryOf(t, config.Binary, config.Race),
		Args:  []string{"serve", "--config", r.file},
		Env:   append(append(os.Environ(), "GORACE=halt_on_error=1"), config.Env...),
		Ready: (&Node{admin: r.admin}).ready,
	})
	return r
}

func (r *Router) write() {
	r.t.Helper()
	file, err := yaml.Marshal(r.config)
	if err != nil {
		r.t.Fatalf("writing the router's configuration: %v", err)
	}
	writeFile(r.t, r.file, string(file))
}

// URL is the base URL of the router.
func (r *Router) URL() string { return "http://" + r.address }

// AdminURL is the base URL of the router's admin listener.
func (r *Router) AdminURL() string { return "http://" + r.admin }

// Process is the router's process, to kill it.
func (r *Router) Process() *Process { return r.process }

// Source is the router as clients see it, for names of an upstream.
func (r *Router) Source(upstream string) Source {
	return Source{Address: r.address, Upstream: upstream}
}

// AddMirror writes another mirror, given as YAML, into the list in the router's
// configuration, which the router takes into use by itself.
func (r *Router) AddMirror(entry string) {
	r.t.Helper()
	var added []map[string]any
	if err := yaml.Unmarshal([]byte(entry), &added); err != nil {
		r.t.Fatalf("reading the entry of a mirror: %v\n%s", err, entry)
	}
	r.SetMirrors(append(r.Mirrors(), added...))
}

// Mirrors is the list of mirrors in the router's configuration.
func (r *Router) Mirrors() []map[string]any {
	return slices.Clone(r.config["router"].(map[string]any)["mirrors"].([]map[string]any))
}

// SetMirrors writes another list of mirrors into the router's configuration.
func (r *Router) SetMirrors(list []map[string]any) {
	r.t.Helper()
	r.config["router"].(map[string]any)["mirrors"] = list
	r.write()
}

// HalfWrite leaves the router's configuration as an editor does that ends in the
// middle: it ends within the list of mirrors. [Router.SetMirrors] writes it again.
func (r *Router) HalfWrite() {
	r.t.Helper()
	file, err := os.ReadFile(r.file)
	if err == nil {
		err = os.Truncate(r.file, int64(bytes.Index(file, []byte("mirrors:"))+len("mirrors:\n    - na")))
	}
	if err != nil {
		r.t.Fatalf("writing half of the router's configuration: %v", err)
	}
}

// ConfigFile is the router's configuration.
func (r *Router) ConfigFile() string { return r.file }
