package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"entrepot/blobstore/storetest"
	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"
)

// registryName is the upstream that has no ledger: a plain registry.
const registryName = "registry.test"

// The sizes of what is small enough to be outgrown, in bytes.
const (
	diskSize = 96 << 20 // file system of the node in jp
	// originSize is that of the origin's file system, which has room for all that is
	// promoted and pushed in a run: originSize and pushedSize for each minute.
	originSize, pushedSize = 192 << 20, 32 << 20
	smallSize              = 40 << 20 // limit of the store in us, less than what is pulled
	jpSize                 = 80 << 20 // limit of the store in jp, less than its file system
	cacheSize              = 32 << 20 // limit of the directory before the bucket in eu
)

// world is the system under test, and every link and disk of it that can break.
//
//	clients ─┬───────────────> us: a directory with a limit ────┬──> origin, with its ledger
//	         ├──> router ────> eu: a bucket behind a directory ─┼──> a plain registry
//	         └───────────────> jp: a file system of 96 MiB ─────┴──> one that has ever new blobs
type world struct {
	*testenv.World

	t        testing.TB
	binary   string
	registry *testenv.Registry
	s3       *testenv.S3Server
	fresh    *fresh
	bucket   string
	disks    map[string]string // roots of the small file systems, by whose they are; empty where there are none
	cables   *testenv.Cables   // nil where all is on one network
	clocks   *clocks           // nil where they are left alone
	liar     *liar
	missing  []string          // what cannot be had here, and why
	forward  map[string]string // by region: base URL of the router, for clients there

	processes map[string]*testenv.Process
	links     map[string]*testenv.Relay  // "eu-origin" is how the node in eu reaches the origin
	dirs      map[string]string          // of the nodes' stores, by region
	isDown    map[string]bool            // processes, links, disks and cables that are out of order
	damaged   map[string]map[string]bool // hex digests of blobs, by whose store it was

	releases []testenv.Release // each with all of those before
	next     int               // release to promote
	catalog  *catalog
	real     []program // clients
	daemon   *daemon   // one more; nil where there is none
	scratch  string    // directory of what they pull
	tally    *tally

	promoting sync.WaitGroup
	mu        sync.Mutex
	busy      bool   // a promotion runs
	owed      []item // of promotions that did not end well
	acked     []item // of those that did, and that clients do not ask for yet
}

// newWorld starts all of it, with releases prepared in staging of which the first
// is promoted.
func newWorld(t testing.TB, o options, tally *tally) *world {
	t.Helper()
	w := &world{
		t: t, tally: tally, catalog: new(catalog), disks: map[string]string{}, damaged: map[string]map[string]bool{},
		registry: testenv.StartRegistry(t), s3: testenv.StartMinIO(t), fresh: startFresh(t, o.seed),
		links: map[string]*testenv.Relay{}, dirs: map[string]string{}, isDown: map[string]bool{}, forward: map[string]string{},
	}
	w.build(o)
	w.bucket = w.s3.NewBucket(t)
	if why := o.noCables; why == "" {
		w.cables = testenv.LayCables(t, "us", "eu", "jp", "router")
	} else {
		w.lack("partitions: not of the network, but of the fault proxy: " + why)
	}
	w.makeDisk("jp", diskSize)
	w.makeDisk("origin", originSize+int64(o.length.Minutes()*pushedSize))
	w.real, w.scratch = w.programs(), t.TempDir()
	w.liar = w.startLiar()
	w.World = testenv.StartWorld(t, testenv.WorldConfig{
		Binary: w.binary, Node: w.node,
		Origin:      w.origin(),
		Router:      w.router(),
		RouterPlace: w.place("router"), RouterEnv: w.env("router"),
		Mirrors:     func(*testenv.World) []map[string]any { return []map[string]any{w.liar.entry()} },
		WayToOrigin: func(who, url string) string { return w.link(who+"-origin", url) },
	})
	w.processes = map[string]*testenv.Process{
		"origin": w.Origin.Process(), "router": w.Router.Process(), "bucket": w.s3.Process(),
	}
	for i := range w.Regions {
		r := &w.Regions[i]
		w.processes[r.Name] = r.Node.Process()
		w.link(r.Name+"-clients", r.Node.URL())
		w.links[r.Name+"-door"] = r.Door.Relay
		w.forward[r.Name] = w.Forwarder(r.Client()).URL()
	}
	w.daemon = w.startDaemon()
	return w
}

// build makes the binary under test.
func (w *world) build(o options) {
	var flags []string
	if o.race {
		flags = append(flags, "-race")
	}
	if o.clock {
		w.clocks = newClocks(w.t, flags)
		w.binary = w.clocks.binary
	} else {
		w.binary = harness.BuildEntrepot(w.t, flags...)
	}
}

func (w *world) lack(what string) {
	w.t.Logf("not here: %s", what)
	w.missing = append(w.missing, what)
}

// makeDisk makes a small file system for a process.
func (w *world) makeDisk(owner string, size int64) {
	root, err := storetest.OpenTmpfs(w.t, size)
	if err != nil {
		w.lack("full disk of " + owner + ": " + err.Error())
		return
	}
	w.disks[owner] = root
}

// dir is a directory on a process's small file system, or elsewhere.
func (w *world) dir(owner string) string {
	if disk := w.disks[owner]; disk != "" {
		return disk
	}
	return w.t.TempDir()
}

// place is where on the network a process is.
func (w *world) place(process string) testenv.Place {
	if w.cables == nil {
		return testenv.Place{}
	}
	return w.cables.Place(process)
}

// env is what a process's environment has more.
func (w *world) env(process string) []string {
	if w.clocks == nil {
		return nil
	}
	return w.clocks.env(w.t, process)
}

// link puts a relay before a server, and returns the base URL to reach it by. What
// its name begins with says who does: "eu-origin" is for the node in eu. Clients are
// where the suite is.
func (w *world) link(name, url string) string {
	who, to, _ := strings.Cut(name, "-")
	place := w.place(who)
	if to == "clients" {
		place = testenv.Place{}
	}
	r := testenv.StartRelayFor(w.t, place, strings.TrimPrefix(url, "http://"))
	w.links[name] = r
	return r.URL()
}

// node is what a region's node has besides the usual. Its timeouts are short, so
// that a fault is noticed in a run of minutes.
func (w *world) node(region string) testenv.NodeConfig {
	w.dirs[region] = filepath.Join(w.dir(region), "store")
	store := map[string]any{
		"dir": w.dirs[region], "verify_reads": true, "scrub": map[string]any{"rate": "16MiB", "every": "1m"},
	}
	switch region {
	case "us":
		store["max_size"] = fmt.Sprint(smallSize)
	case "jp":
		store["max_size"] = fmt.Sprint(jpSize)
	case "eu":
		delete(store, "dir")
		store["cache"] = map[string]any{"dir": w.dirs[region], "max_size": fmt.Sprint(cacheSize)}
		store["s3"] = map[string]any{
			"endpoint": w.link("eu-bucket", w.s3.Endpoint), "bucket": w.bucket, "region": w.s3.Region,
			"access_key": w.s3.AccessKey, "secret_key": w.s3.SecretKey,
		}
	}
	return testenv.NodeConfig{
		Store: store, Place: w.place(region), Env: w.env(region),
		Upstreams: map[string][]string{
			registryName: {w.link(region+"-registry", w.registry.URL())},
			freshName:    {w.link(region+"-fresh", w.fresh.URL)},
		},
		Extra: map[string]any{"shutdown_timeout": "2s", "memory": "4MiB"},
	}
}

func (w *world) origin() testenv.OriginConfig {
	dir := w.dir("origin")
	return testenv.OriginConfig{
		Store: map[string]any{"dir": filepath.Join(dir, "store")}, Env: w.env("origin"),
		Extra: map[string]any{"shutdown_timeout": "2s", "uploads": filepath.Join(dir, "uploads")},
	}
}

// router is what the router has besides the usual: it trusts who forwards for clients
// of the regions, and remembers who sent wrong bytes.
func (w *world) router() map[string]any {
	return map[string]any{
		"shutdown_timeout": "2s",
		"trusted_proxies":  []string{"127.0.0.0/8", testenv.Network},
		"probes":           map[string]any{"interval": "1s", "quarantine": w.liar.quarantine},
	}
}

// command is the entrepot command of the binary under test.
func (w *world) command(args ...string) *exec.Cmd {
	return testenv.EntrepotCommand(w.t, w.binary, w.Origin.Docker, args...)
}
