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
	file    string
	config  map[string]any
	process *Process
}

// StartRouter starts a router with the router section of a configuration. It ends
// with the test.
func StartRouter(t testing.TB, section map[string]any) *Router {
	t.Helper()
	r := &Router{
		t: t, address: fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		file: filepath.Join(t.TempDir(), "router.yaml"),
	}
	section = maps.Clone(section)
	section["listen"] = r.address
	admin := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	r.config = map[string]any{"admin": map[string]any{"listen": admin}, "router": section}
	r.write()
	r.process = Start(t, ProcessConfig{
		Name: "entrepot", Path: buildEntrepot(t, false),
		Args:  []string{"serve", "--config", r.file},
		Ready: (&Node{admin: admin}).ready,
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

// Source is the router as clients see it, for names of an upstream.
func (r *Router) Source(upstream string) Source {
	return Source{Address: r.address, Upstream: upstream}
}
