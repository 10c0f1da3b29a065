package testenv

import (
	"fmt"
	"maps"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Router is an entrepot process with the role of a router.
type Router struct {
	t       testing.TB
	address string // host:port
	admin   string // host:port
	file    string
	config  map[string]any
	process *Process
}

// StartRouter starts a router with the router section of a configuration. It ends
// with the test.
func StartRouter(t testing.TB, section map[string]any) *Router {
	t.Helper()
	r := &Router{
		t: t, address: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), admin: fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		file: filepath.Join(t.TempDir(), "router.yaml"),
	}
	section = maps.Clone(section)
	section["listen"] = r.address
	r.config = map[string]any{"admin": map[string]any{"listen": r.admin}, "router": section}
	r.write()
	r.process = Start(t, ProcessConfig{
		Name: "entrepot", Path: buildEntrepot(t, false),
		Args:  []string{"serve", "--config", r.file},
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
	var added []any
	if err := yaml.Unmarshal([]byte(entry), &added); err != nil {
		r.t.Fatalf("reading the entry of a mirror: %v\n%s", err, entry)
	}
	section := r.config["router"].(map[string]any)
	list := []any{}
	for _, m := range section["mirrors"].([]map[string]any) {
		list = append(list, m)
	}
	section["mirrors"] = append(list, added...)
	r.write()
}
