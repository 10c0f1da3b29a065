package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"entrepot/e2e/testenv"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"
)

// fault is something that goes wrong.
type fault struct {
	name    string
	says    string // what it does, for the report
	targets []string
	most    time.Duration // that it lasts; 0 where it is over at once
	// inject does it. ok is false where it cannot be done now, such as to a process
	// that is down. undo, where there is any, ends it.
	inject func(w *world, e event) (undo func(), ok bool)
}

// allFaults lists what can go wrong in a world. Each is known by its name in plans.
func allFaults(w *world) []fault {
	nodes := []string{"us", "eu", "jp"}
	ways := []string{"us-origin", "eu-origin", "jp-origin", "us-registry", "eu-registry", "jp-registry", "us-fresh", "eu-fresh", "jp-fresh", "eu-bucket"}
	links := append([]string{"us-clients", "eu-clients", "jp-clients"}, ways...)
	processes := append([]string{"origin", "router", "bucket"}, nodes...)
	faults := []fault{
		{"kill", "kill -9 a process, and start it again", processes, 3 * time.Second, (*world).kill},
		{"kill node", "kill -9 a node, and start it again at once", nodes, 0, (*world).kill},
		{"stop", "SIGTERM to a process, and start it again", processes, 2 * time.Second, (*world).stop},
		{"bucket down", "the S3 server is killed, and comes back", []string{"bucket"}, 6 * time.Second, (*world).kill},
		{"origin down", "the origin is killed, and comes back", []string{"origin"}, 6 * time.Second, (*world).kill},
		{"refuse", "a link is cut and refuses connections", links, 4 * time.Second, (*world).refuse},
		{"reset", "all connections of a link are reset", links, 0, (*world).reset},
		{"black hole", "a link passes nothing and closes nothing", links, 5 * time.Second, (*world).stall},
		{"slow", "a link passes 200 to 800 KB/s", links, 5 * time.Second, (*world).slow},
		{"cut in the middle", "a link breaks up to 4 MiB on", links, 3 * time.Second, (*world).cutLater},
		{"wrong bytes from upstream", "bytes of content change between a source and a node", ways, 4 * time.Second, (*world).change},
		{"rot", "a byte of a stored blob changes on the disk of a node", nodes, 0, (*world).rot},
		{"truncated", "a stored blob loses its end on the disk of a node", nodes, 0, (*world).truncate},
		{"removed", "a stored blob is removed behind a node's back", nodes, 0, (*world).remove},
		{"rot in the bucket", "an object of the shared bucket has wrong bytes", []string{"eu"}, 0, (*world).rotBucket},
		{"promotion", "a promotion while all this happens", []string{"origin"}, 0, (*world).promote},
		{"promotion killed", "kill -9 a promotion at any moment", []string{"origin"}, 0, (*world).promoteKilled},
	}
	if w.disk != "" {
		faults = append(faults, fault{"full disk", "the file system of a node is filled", []string{"jp"}, 6 * time.Second, (*world).fillDisk})
	}
	if w.clocks != nil {
		faults = append(faults, fault{"clock", "the clock of a process jumps by up to a week, either way", append([]string{"origin"}, nodes...), 6 * time.Second, (*world).skew})
	}
	return faults
}

func (w *world) kill(e event) (func(), bool) { return w.down(e.target, (*testenv.Process).Kill) }
func (w *world) stop(e event) (func(), bool) { return w.down(e.target, (*testenv.Process).Stop) }

// down ends a process. It is started again by undo.
func (w *world) down(target string, end func(*testenv.Process)) (func(), bool) {
	if w.isDown[target] {
		return nil, false
	}
	w.isDown[target] = true
	w.countStore(target)
	p := w.processes[target]
	end(p)
	return func() {
		p.Restart()
		w.isDown[target] = false
	}, true
}

// onLink breaks a link until undo is called.
func (w *world) onLink(target string, begin, end func(*testenv.Relay)) (func(), bool) {
	if w.isDown[target] {
		return nil, false
	}
	w.isDown[target] = true
	r := w.links[target]
	begin(r)
	return func() {
		end(r)
		w.isDown[target] = false
	}, true
}

func (w *world) refuse(e event) (func(), bool) {
	return w.onLink(e.target, (*testenv.Relay).Close, (*testenv.Relay).Open)
}

func (w *world) stall(e event) (func(), bool) {
	return w.onLink(e.target, (*testenv.Relay).Stall, (*testenv.Relay).Flow)
}

func (w *world) slow(e event) (func(), bool) {
	rate := float64(200_000 + e.choice%600_000)
	return w.onLink(e.target, func(r *testenv.Relay) { r.Pace(rate) }, func(r *testenv.Relay) { r.Pace(0) })
}

func (w *world) cutLater(e event) (func(), bool) {
	bytes := int64(e.choice % (4 << 20))
	return w.onLink(e.target, func(r *testenv.Relay) { r.CloseAfter(bytes) }, func(r *testenv.Relay) {
		r.Close() // where less than that passed
		r.Open()
	})
}

func (w *world) change(e event) (func(), bool) {
	return w.onLink(e.target, func(r *testenv.Relay) { r.Change(1 << 20) }, func(r *testenv.Relay) { r.Change(0) })
}

func (w *world) reset(e event) (func(), bool) {
	if w.isDown[e.target] {
		return nil, false
	}
	w.links[e.target].Cut()
	return nil, true
}

// storedBlobs are the files of blobs in a store, in the order of digests.
func storedBlobs(dir string) []string {
	// What is evicted meanwhile is not there.
	found, _ := filepath.Glob(filepath.Join(dir, "blobs", "*", "*", "*", "data"))
	return found
}

// damage does something to a blob in a node's store.
func (w *world) damage(e event, do func(path string, size int64) error) (func(), bool) {
	found := storedBlobs(w.dirs[e.target])
	if len(found) == 0 {
		return nil, false
	}
	path := found[e.choice%uint64(len(found))]
	info, err := os.Stat(path)
	if err == nil {
		err = do(path, info.Size())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOSPC) {
		w.t.Errorf("damaging %s: %v", path, err)
	}
	return nil, err == nil
}

func (w *world) rot(e event) (func(), bool) {
	return w.damage(e, func(path string, size int64) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		at, b := int64(e.choice>>8%uint64(size)), make([]byte, 1)
		_, err = f.ReadAt(b, at)
		b[0] ^= 1
		if err == nil {
			_, err = f.WriteAt(b, at)
		}
		return errors.Join(err, f.Close())
	})
}

func (w *world) truncate(e event) (func(), bool) {
	return w.damage(e, func(path string, size int64) error { return os.Truncate(path, size/2) })
}

func (w *world) remove(e event) (func(), bool) {
	return w.damage(e, func(path string, _ int64) error { return os.Remove(path) })
}

func (w *world) rotBucket(e event) (func(), bool) {
	if w.isDown["bucket"] {
		return nil, false
	}
	client, ctx := w.s3.Client(w.t), w.t.Context()
	var objects []minio.ObjectInfo
	for o := range client.ListObjects(ctx, w.bucket, minio.ListObjectsOptions{Prefix: "blobs/", Recursive: true}) {
		if o.Err == nil && strings.HasSuffix(o.Key, "/data") {
			objects = append(objects, o)
		}
	}
	if len(objects) == 0 {
		return nil, false
	}
	o := objects[e.choice%uint64(len(objects))]
	wrong := bytes.Repeat([]byte("wrong"), int(o.Size/5+1))[:o.Size]
	_, err := client.PutObject(ctx, w.bucket, o.Key, bytes.NewReader(wrong), o.Size, minio.PutObjectOptions{DisableMultipart: true})
	return nil, err == nil
}

// fillDisk leaves a node less room than most of what it is asked for needs.
func (w *world) fillDisk(e event) (func(), bool) {
	if w.isDown["disk"] {
		return nil, false
	}
	ballast := filepath.Join(w.disk, "ballast")
	var stat unix.Statfs_t
	if err := unix.Statfs(w.disk, &stat); err != nil {
		w.t.Errorf("filling the disk: %v", err)
		return nil, false
	}
	room := int64(stat.Bavail)*stat.Bsize - int64(e.choice%(256<<10))
	f, err := os.Create(ballast)
	if err == nil {
		// An error means that it is full, which is what is wanted.
		_ = unix.Fallocate(int(f.Fd()), 0, 0, max(1, room))
		err = f.Close()
	}
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		w.t.Errorf("filling the disk: %v", err)
	}
	w.isDown["disk"] = true
	return func() {
		if err := os.Remove(ballast); err != nil {
			w.t.Errorf("emptying the disk: %v", err)
		}
		w.isDown["disk"] = false
	}, true
}

// skew steps the clock of a process, which runs on, by up to a week.
func (w *world) skew(e event) (func(), bool) {
	const week = 7 * 24 * 3600
	w.clocks.step(w.t, e.target, int64(e.choice%(2*week))-week)
	return func() { w.clocks.step(w.t, e.target, 0) }, true
}
