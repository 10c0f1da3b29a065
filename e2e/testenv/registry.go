package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Registry is distribution v3 as its own process, on a directory: the upstream
// that tests pull from, which speaks the protocol without any of our code.
type Registry struct {
	host    string
	process *Process
}

// StartRegistry starts an empty registry that takes pushes and deletes from
// anyone. It ends with the test.
func StartRegistry(t testing.TB) *Registry {
	t.Helper()
	dir := t.TempDir()
	host := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	config := writeFile(t, filepath.Join(dir, "config.yml"), fmt.Sprintf(`
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: %q, secret: "the same after a restart"}
`, filepath.Join(dir, "data"), host))
	process := Start(t, ProcessConfig{
		Name: "registry",
		Path: Tool(t, "registry"),
		Args: []string{"serve", config},
		// Its tracing exports to a collector on this machine unless told not to.
		Env:   append(os.Environ(), "OTEL_TRACES_EXPORTER=none"),
		Ready: func(ctx context.Context) error { return WaitHTTP(ctx, "http://"+host+"/v2/") },
	})
	return &Registry{host: host, process: process}
}

// Host is the registry's host:port; it stays the same when the registry is
// stopped and started.
func (r *Registry) Host() string { return r.host }

// URL is the registry's base URL.
func (r *Registry) URL() string { return "http://" + r.host }

// Stop stops the registry: connections to it are refused.
func (r *Registry) Stop() { r.process.Stop() }

// Start starts the registry again after [Registry.Stop], with what it held.
func (r *Registry) Start() { r.process.Restart() }
