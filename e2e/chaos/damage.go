package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"
)

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
	if err == nil {
		w.bit(e.fault, 1)
		w.hurt(e.target, filepath.Base(filepath.Dir(path)))
	}
	return nil, err == nil
}

// bucketOwner is whose the bucket is in [world.damaged], which has the nodes too.
const bucketOwner = "bucket"

// hurt remembers that a blob was damaged.
func (w *world) hurt(owner, hex string) {
	if w.damaged[owner] == nil {
		w.damaged[owner] = map[string]bool{}
	}
	w.damaged[owner][hex] = true
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
	if err == nil {
		w.bit(e.fault, 1)
		w.hurt(bucketOwner, filepath.Base(filepath.Dir(o.Key)))
	}
	return nil, err == nil
}

// fillDisk leaves a process less room than most of what it is asked for needs.
func (w *world) fillDisk(e event) (func(), bool) {
	return w.once("disk of "+e.target, func() func() {
		disk := w.disks[e.target]
		before := w.refusedWrites(e.target)
		ballast := filepath.Join(disk, "ballast")
		var stat unix.Statfs_t
		err := unix.Statfs(disk, &stat)
		room := int64(stat.Bavail)*stat.Bsize - int64(e.choice%(256<<10))
		var f *os.File
		if err == nil {
			f, err = os.Create(ballast)
		}
		if err == nil {
			// An error means that it is full, which is what is wanted.
			_ = unix.Fallocate(int(f.Fd()), 0, 0, max(1, room))
			err = f.Close()
		}
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			w.t.Errorf("filling the disk of %s: %v", e.target, err)
		}
		return func() {
			w.bit(e.fault, w.refusedWrites(e.target)-before)
			if err := os.Remove(ballast); err != nil && !errors.Is(err, fs.ErrNotExist) {
				w.t.Errorf("emptying the disk of %s: %v", e.target, err)
			}
		}
	})
}

// refusedWrites is of how many a process has said that the disk was full.
func (w *world) refusedWrites(process string) int64 {
	said := w.processes[process].Log()
	return int64(strings.Count(said, unix.ENOSPC.Error()) + strings.Count(said, "the disk is full"))
}
