package testenv

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// The names of what a [World] serves: dockerd has mirrors for this one of images
// only.
const (
	WorldImages = "docker.io"
	WorldFiles  = "dl.example.org"
)

// WorldConfig says what a world has besides the usual.
type WorldConfig struct {
	// Origin is what the origin has besides the usual.
	Origin OriginConfig
	// Node says what the node of a region has besides the usual.
	Node func(region string) NodeConfig
	// WayToOrigin is by which base URL the node of a region, or "router", reaches the
	// origin at url. Nil means that one.
	WayToOrigin func(region, url string) string
	// RouterPlace is where on a network the router is, and RouterEnv is added to its
	// environment.
	RouterPlace Place
	RouterEnv   []string
	// Binary is run in place of one that is built.
	Binary string
	// Mirrors are more mirrors of the router.
	Mirrors func(*World) []map[string]any
	// Router is merged into the section of the router, replacing what is there.
	Router map[string]any
	// Here is the region that this machine counts as being in; "" is nowhere.
	Here string
	// Race builds the binary with the race detector.
	Race bool
}

// World is a whole system on this machine: staging, an origin that promotion
// writes, a node for each of three regions that follows the ledger, and a router
// before them.
type World struct {
	Staging *Origin // whose promoter stands for every project's builds
	Origin  *Origin
	Regions []Region
	Router  *Router
	Ledger  string // URL of its folder
	Key     string // private key; the public one is Key + ".pub"

	t      testing.TB
	dir    string // of configurations
	config WorldConfig
}

// Region is a part of the world, with its node.
type Region struct {
	Name, Country string
	Lat, Lon      float64
	Network       string // of its clients, a /24
	Node          *Node
	Door          *Tap // through which clients come to the node
}

// Client is the address of a client in the region.
func (r *Region) Client() string { return strings.Replace(r.Network, ".0/24", ".10", 1) }

// regions are where the world's nodes are. The first is before the origin.
func regions() []Region {
	return []Region{
		{Name: "us", Country: "US", Lat: 41.3, Lon: -95.9, Network: "198.51.100.0/24"},
		{Name: "eu", Country: "DE", Lat: 50.1, Lon: 8.7, Network: "192.0.2.0/24"},
		{Name: "jp", Country: "JP", Lat: 35.7, Lon: 139.7, Network: "203.0.113.0/24"},
	}
}

// StartWorld starts a world in which nothing is promoted yet. It ends with the
// test.
func StartWorld(t testing.TB, config WorldConfig) *World {
	t.Helper()
	dir := t.TempDir()
	w := &World{
		t: t, dir: dir, config: config, Regions: regions(),
		Ledger: (&url.URL{Scheme: "file", Path: filepath.Join(dir, "ledger")}).String(),
		Key:    filepath.Join(dir, "ledger.key"),
	}
	if made := Entrepot(t, dir, "ledger", "keygen", "--name", "example.org/ledger", "--out", w.Key); made.Status != 0 {
		t.Fatal("no key")
	}
	w.Staging = StartOrigin(t, OriginConfig{})
	origin := config.Origin
	origin.Ledger, origin.Race, origin.Binary = w.Ledger, config.Race, config.Binary
	origin.Extra = maps.Clone(origin.Extra)
	if origin.Extra == nil {
		origin.Extra = map[string]any{}
	}
	origin.Extra["ledger_key"] = w.Key + ".pub"
	w.Origin = StartOrigin(t, origin)
	for i := range w.Regions {
		w.Regions[i].Node = StartNode(t, w.node(w.Regions[i].Name))
		w.Regions[i].Door = startTap(t, config.RouterPlace, w.Regions[i].Node.URL(), "")
	}
	w.Router = StartRouter(t, RouterConfig{
		Section: w.router(), Binary: config.Binary, Race: config.Race, Env: config.RouterEnv, Place: config.RouterPlace,
	})
	return w
}

// node is the node of a region, which follows the ledger and keeps what the origin
// has.
func (w *World) node(region string) NodeConfig {
	var node NodeConfig
	if w.config.Node != nil {
		node = w.config.Node(region)
	}
	origin := w.originFor(region)
	upstream := func(name string) map[string]any {
		return map[string]any{"urls": []string{origin}, "ledger": w.ledger(origin, name)}
	}
	upstreams := map[string]any{WorldImages: upstream(w.Origin.Host())}
	for name, urls := range node.Upstreams {
		upstreams[name] = map[string]any{"urls": urls}
	}
	extra := map[string]any{
		"default_upstream": WorldImages, "default_files": WorldFiles,
		"upstreams": upstreams, "files": map[string]any{WorldFiles: upstream(w.Origin.URL())},
	}
	maps.Copy(extra, node.Extra)
	node.Extra, node.Race, node.Binary = extra, w.config.Race, w.config.Binary
	return node
}

// originFor is the base URL by which somebody reaches the origin.
func (w *World) originFor(who string) string {
	if w.config.WayToOrigin == nil {
		return w.Origin.URL()
	}
	return w.config.WayToOrigin(who, w.Origin.URL())
}

// ledger is that of the origin at a base URL, where an upstream has a name.
func (w *World) ledger(origin, name string) map[string]any {
	return map[string]any{"url": origin + "/ledger", "key": w.Key + ".pub", "names": []string{name}}
}

func (w *World) router() map[string]any {
	var mirrors, prefixes []map[string]any
	for i, r := range w.Regions {
		m := map[string]any{
			"name": r.Name, "urls": []string{r.Door.URL()}, "tier": "trusted", "names": true,
			"country": r.Country, "lat": fmt.Sprint(r.Lat), "lon": fmt.Sprint(r.Lon),
		}
		if i == 0 {
			m["tier"] = "origin"
		}
		mirrors = append(mirrors, m)
		prefixes = append(prefixes, map[string]any{"prefix": r.Network, "country": r.Country})
		if r.Name == w.config.Here {
			prefixes = append(prefixes, map[string]any{"prefix": "127.0.0.0/8", "country": r.Country})
		}
	}
	if w.config.Mirrors != nil {
		mirrors = append(mirrors, w.config.Mirrors(w)...)
	}
	origin := w.originFor("router")
	section := map[string]any{
		"trusted_proxies":  []string{"127.0.0.0/8"},
		"default_upstream": WorldImages, "default_files": WorldFiles,
		"upstreams": map[string]any{WorldImages: map[string]any{"ledger": w.ledger(origin, w.Origin.Host())}},
		"files":     map[string]any{WorldFiles: map[string]any{"ledger": w.ledger(origin, w.Origin.URL())}},
		"geo":       map[string]any{"prefixes": prefixes},
		"probes":    map[string]any{"interval": "1s"},
		"mirrors":   mirrors,
	}
	maps.Copy(section, w.config.Router)
	return section
}

// Release is what is to be promoted: images that were pushed to staging, and files
// below release/.
type Release struct {
	Images []Artifact
	Files  map[string]string // contents by path: "v1.0.0/bin/tool"
}

// Promote writes a configuration with all of a release, and nothing else, and
// applies it.
func (w *World) Promote(r Release) {
	w.t.Helper()
	if got := Run(w.t, w.PromoteCommand(r)); got.Status != 0 {
		w.t.Fatalf("promoting: status %d\n%s%s", got.Status, got.Stdout, got.Stderr)
	}
}

// PromoteCommand is what [World.Promote] does, not yet started.
func (w *World) PromoteCommand(r Release) *exec.Cmd {
	w.t.Helper()
	roots := r.Roots(w.t, w.dir, w.Staging.Host(), w.Origin.URL())
	args := append([]string{"promote", "apply", "--ledger", w.Ledger, "--ledger-key", w.Key}, roots...)
	return EntrepotCommand(w.t, binaryOf(w.t, w.config.Binary, false), w.Origin.Docker, args...)
}

// Roots writes what promotes the release to the origin at a base URL into a folder:
// configurations of images, whose staging is that registry, and of files, which are
// staged in the folder. It returns the configurations.
func (r Release) Roots(t testing.TB, dir, registry, origin string) (roots []string) {
	t.Helper()
	if len(r.Images) > 0 {
		var text strings.Builder
		text.WriteString("registries:\n- name: " + registry + "\n  src: true\n- name: " + strings.TrimPrefix(origin, "http://") + "\nimages:\n")
		for _, a := range r.Images {
			fmt.Fprintf(&text, "- name: %s\n  dmap:\n    %q: [%q]\n", a.Repository, a.Root.Digest, a.Tag)
		}
		roots = append(roots, writeFile(t, filepath.Join(dir, "images.yaml"), text.String()))
	}
	if len(r.Files) > 0 {
		staging := filepath.Join(dir, "staging")
		var text strings.Builder
		text.WriteString("filestores:\n- base: file://" + staging + "\n  src: true\n- base: " + origin + "/release\nmutable_tags: [\"stable*.txt\"]\nfiles:\n")
		for name, content := range r.Files {
			path := filepath.Join(staging, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatalf("staging %s: %v", name, err)
			}
			writeFile(t, path, content)
			fmt.Fprintf(&text, "- name: %s\n  sha256: %s\n", name, digest.FromString(content).Encoded())
		}
		roots = append(roots, writeFile(t, filepath.Join(dir, "files.yaml"), text.String()))
	}
	return roots
}

// Recorded is how many entries the ledger has.
func (w *World) Recorded() int {
	w.t.Helper()
	got := Entrepot(w.t, w.dir, "ledger", "show", "--ledger", w.Ledger, "--output", "json")
	if got.Status != 0 {
		w.t.Fatalf("reading the ledger: status %d\n%s", got.Status, got.Stderr)
	}
	return strings.Count(got.Stdout, `"sequence"`)
}

// Rollback brings the names back to what they were when the ledger had so many
// entries.
func (w *World) Rollback(entries int) {
	w.t.Helper()
	got := Entrepot(w.t, w.Origin.Docker, "promote", "rollback", "--ledger", w.Ledger, "--ledger-key", w.Key, "--to", fmt.Sprint(entries-1), "--max-deletes", "1000")
	if got.Status != 0 {
		w.t.Fatalf("rolling back: status %d\n%s%s", got.Status, got.Stdout, got.Stderr)
	}
}

// Forwarder starts a proxy that the router trusts, through which clients seem to
// come from an address.
func (w *World) Forwarder(client string) *Tap {
	w.t.Helper()
	return startTap(w.t, Place{}, w.Router.URL(), client)
}
