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
	diskSize  = 96 << 20 // file system of the node in jp
	smallSize = 40 << 20 // limit of the store in us, less than what is pulled
	jpSize    = 80 << 20 // limit of the store in jp, less than its file system
	cacheSize = 32 << 20 // limit of the directory before the bucket in eu
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
	disk     string // root of the small file system; empty where there is none
	noDisk   string // why
	clocks   *clocks
	forward  map[string]string // by region: base URL of the router, for clients there

	processes map[string]*testenv.Process
	links     map[string]*testenv.Relay // "eu-origin" is how the node in eu reaches the origin
	dirs      map[string]string         // of the nodes' stores, by region
	isDown    map[string]bool           // processes, links and disks that are out of order

	releases []testenv.Release // each with all of those before
	next     int               // release to promote
	catalog  *catalog
	real     []program // clients
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
		t: t, binary: harness.BuildEntrepot(t), tally: tally, catalog: new(catalog),
		registry: testenv.StartRegistry(t), s3: testenv.StartMinIO(t), fresh: startFresh(t, o.seed),
		links: map[string]*testenv.Relay{}, dirs: map[string]string{}, isDown: map[string]bool{}, forward: map[string]string{},
	}
	if o.clock {
		w.clocks = newClocks(t)
		w.binary = w.clocks.binary
	}
	w.bucket = w.s3.NewBucket(t)
	var err error
	if w.disk, err = storetest.OpenTmpfs(t, diskSize); err != nil {
		w.noDisk = err.Error()
	}
	w.real, w.scratch = w.programs(), t.TempDir()
	w.World = testenv.StartWorld(t, testenv.WorldConfig{
		Binary: w.binary, Node: w.node,
		Origin:      w.origin(),
		Router:      map[string]any{"shutdown_timeout": "2s"},
		WayToOrigin: func(region, url string) string { return w.link(region+"-origin", url) },
	})
	w.processes = map[string]*testenv.Process{
		"origin": w.Origin.Process(), "router": w.Router.Process(), "bucket": w.s3.Process(),
	}
	for i := range w.Regions {
		r := &w.Regions[i]
		w.processes[r.Name] = r.Node.Process()
		w.link(r.Name+"-clients", r.Node.URL())
		w.forward[r.Name] = w.Forwarder(r.Client()).URL()
	}
	return w
}

// link puts a relay before a server, and returns the base URL to reach it by.
func (w *world) link(name, url string) string {
	r := testenv.StartRelay(w.t, strings.TrimPrefix(url, "http://"))
	w.links[name] = r
	return r.URL()
}

// node is what a region's node has besides the usual. Its timeouts are short, so
// that a fault is noticed in a run of minutes.
func (w *world) node(region string) testenv.NodeConfig {
	dir := w.t.TempDir()
	if region == "jp" && w.disk != "" {
		dir = w.disk
	}
	w.dirs[region] = filepath.Join(dir, "store")
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
	config := testenv.NodeConfig{
		Store: store,
		Upstreams: map[string][]string{
			registryName: {w.link(region+"-registry", w.registry.URL())},
			freshName:    {w.link(region+"-fresh", w.fresh.URL)},
		},
		Extra: map[string]any{"shutdown_timeout": "2s", "memory": "4MiB"},
	}
	if w.clocks != nil {
		config.Env = w.clocks.env(w.t, region)
	}
	return config
}

func (w *world) origin() testenv.OriginConfig {
	config := testenv.OriginConfig{Extra: map[string]any{"shutdown_timeout": "2s"}}
	if w.clocks != nil {
		config.Env = w.clocks.env(w.t, "origin")
	}
	return config
}

// command is the entrepot command of the binary under test.
func (w *world) command(args ...string) *exec.Cmd {
	return testenv.EntrepotCommand(w.t, w.binary, w.Origin.Docker, args...)
}
