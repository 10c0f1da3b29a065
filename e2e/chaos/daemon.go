package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// daemon is containerd, which pulls as the nodes of a cluster do: over and over, from
// each node and through the router, into a store that is empty each time but for what
// a pull that failed has left, from where it goes on.
type daemon struct {
	w       *world
	server  *testenv.ContainerdServer
	sources []source
}

// source is somewhere that containerd is told to pull from.
type source struct {
	hosts    string // folder with hosts.toml
	isRouter bool
}

// startDaemon starts containerd, and returns nil where it cannot be had.
func (w *world) startDaemon() *daemon {
	if os.Geteuid() != 0 {
		w.lack("the client containerd: it takes root")
		return nil
	}
	for _, name := range []string{"containerd", "ctr"} {
		if _, missing := harness.Program(w.t, toolFinder(name)); missing != "" {
			w.lack("the client containerd: " + missing)
			return nil
		}
	}
	d := &daemon{w: w, server: testenv.Containerd{Version: 2, Parallel: true}.Start(w.t)}
	for _, r := range w.Regions {
		d.from(w.links[r.Name+"-clients"].Address(), false)
		d.from(strings.TrimPrefix(w.forward[r.Name], "http://"), true)
	}
	return d
}

func (d *daemon) from(address string, isRouter bool) {
	hosts := testenv.HostsDir(d.w.t, testenv.Source{Address: address, Upstream: testenv.WorldImages})
	d.sources = append(d.sources, source{hosts, isRouter})
}

func (d *daemon) run(ctx context.Context, random *rand.Rand) {
	images := d.w.releases[0].Images
	for ctx.Err() == nil {
		d.pull(ctx, d.sources[random.IntN(len(d.sources))], images[random.IntN(len(images))])
		_ = pause.For(ctx, 300*time.Millisecond)
	}
}

// pull pulls an image, verifies all that containerd has then, and removes it again.
func (d *daemon) pull(ctx context.Context, from source, a testenv.Artifact) {
	name := testenv.WorldImages + "/" + a.Name()
	said, err := d.ctr(ctx, append(testenv.Containerd{Version: 2}.PullArgs(from.hosts), name)...)
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, context.DeadlineExceeded):
		d.w.tally.add(stuck, 1)
		d.w.t.Errorf("containerd does not end its pull of %s: %s", name, said)
	case err != nil:
		d.w.tally.add(heldBad, 1)
	default:
		d.w.tally.add(held, 1)
		if from.isRouter {
			d.w.tally.add(heldRouted, 1)
		}
		d.verify(a)
	}
	for _, args := range [][]string{{"images", "rm", "--sync", name}, {"content", "prune", "references"}} {
		// What is pruned may be collected just then.
		if said, err := d.ctr(ctx, args...); err != nil && ctx.Err() == nil && !strings.Contains(said, "not found") {
			d.w.t.Errorf("ctr %s: %v\n%s", strings.Join(args, " "), err, said)
		}
	}
}

// verify compares what containerd has with what it is called, and checks that an image
// it says it has is all there.
func (d *daemon) verify(a testenv.Artifact) {
	has := map[digest.Digest]bool{}
	blobs := filepath.Join(d.server.Content, "blobs", "sha256")
	entries, err := os.ReadDir(blobs)
	if err != nil {
		d.w.t.Errorf("reading what containerd has: %v", err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(blobs, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // of a pull before, and just collected
		}
		got, want := digest.FromBytes(content), digest.NewDigestFromEncoded(digest.SHA256, entry.Name())
		if err != nil || got != want {
			d.w.tally.add(wrongBytes, 1)
			d.w.t.Errorf("containerd has %d bytes of %s as %s (%v)", len(content), got, want, err)
		}
		has[want] = true
	}
	for _, b := range a.Blobs {
		if !has[b.Digest] {
			d.w.tally.add(wrongBytes, 1)
			d.w.t.Errorf("containerd says that it has %s, and lacks its %s %s", a.Name(), b.MediaType, b.Digest)
		}
	}
}

// ctr runs a command of containerd's.
func (d *daemon) ctr(ctx context.Context, args ...string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, stuckAfter)
	defer cancel()
	cmd := exec.CommandContext(limited, d.server.Ctr[0], slices.Concat(d.server.Ctr[1:], args)...)
	cmd.Env = []string{"HOME=" + d.server.Home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + d.w.scratch}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if limited.Err() != nil {
		err = limited.Err()
	}
	return said.String(), err
}
