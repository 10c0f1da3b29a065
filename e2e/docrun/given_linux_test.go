package docrun

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"entrepot/e2e/testenv"
)

const (
	productionPage  = "testdata/production.md"
	productionPlace = "127.0.0.1:7090" // as that page has it
	dockerSocket    = "/run/docker.sock"
)

// give has what a page takes for granted be there until its end.
func (p *page) give(t *testing.T, s Step) {
	t.Helper()
	switch s.Given {
	case "a production":
		p.produce(t)
	case "another machine":
		p.move(t)
	case "no network":
		p.cutOff(t)
	case "docker":
		p.docker(t)
	default:
		t.Errorf("line %d: nobody knows how to give %q", s.Line, s.Given)
	}
}

// produce starts an origin with a ledger and content, and a router before it, under the names
// that the examples have for them.
func (p *page) produce(t *testing.T) {
	t.Helper()
	leads := hosts()
	maps.Copy(leads, map[string]string{
		"origin.example.org": "7001", "registry.example.org": "7001", "dl.example.org": "7001", "artifacts.example.org": "7080",
	})
	p.change(t, leads)
	text, err := os.ReadFile(productionPage)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Steps(string(text))
	if err != nil {
		t.Fatalf("%s: %v", productionPage, err)
	}
	p.steps(t, steps)
}

// move leaves of this machine what others see of it: a production. What else it served ends,
// and the files of that are gone.
func (p *page) move(t *testing.T) {
	t.Helper()
	if server := p.servers[here]; server != nil {
		server.Stop()
	}
	for _, path := range []string{p.path("entrepot.yaml"), "/etc/entrepot", "/var/lib/entrepot"} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

// cutOff leaves of the network what is inside: no production, and no name in the world.
func (p *page) cutOff(t *testing.T) {
	t.Helper()
	if server := p.servers[productionPlace]; server != nil {
		server.Stop()
	}
	p.change(t, map[string]string{"origin.inside.example": hosts()["origin.inside.example"]})
}

// docker starts dockerd where its clients look for it.
func (p *page) docker(t *testing.T) {
	t.Helper()
	socket, _ := testenv.StartDockerd(t)
	if err := os.MkdirAll(filepath.Dir(dockerSocket), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(socket, dockerSocket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dockerSocket) })
}
