package main

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
)

// What a container engine is told, of all interfaces too: the check is run where the
// process is.
func TestReadyIsTheHealthCheckOfAContainer(t *testing.T) {
	u := newGatedUpstream(t)
	p := start(t, u.config(t.TempDir(), ""))
	_, port, _ := strings.Cut(p.admin, ":")
	asked := writeFile(t, t.TempDir(), "asked.yaml", fmt.Sprintf(
		"admin: {listen: \":%s\", token: 0123456789abcdef}\nnode: {store: {dir: d}, upstreams: {up.example: {}}}\n", port))
	ready := func(wantStatus int, want string) {
		t.Helper()
		stdout, stderr, status := finish(t, command(t, "ready", "--config", asked))
		if said := stdout + stderr; status != wantStatus || !strings.Contains(said, want) {
			t.Errorf("exit status %d, want %d; it says\n%s\nwant\n%s", status, wantStatus, said, want)
		}
	}
	ready(exitDone, "ready\n")

	body, _ := u.halfway(t, p)
	defer body.Close()
	p.signal(t, syscall.SIGTERM)
	p.waitFor(t, "stopping; running transfers may finish")
	ready(exitFailed, "/readyz says 503 Service Unavailable: not ready\n")

	close(u.release)
	if _, err := io.Copy(io.Discard, body); err != nil {
		t.Fatal(err)
	}
	p.exit(t)
	ready(exitFailed, "connection refused")
}
