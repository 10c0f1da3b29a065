package blobstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
	"entrepot/blobstore/storetest"
)

const diskMiB = 1 << 20

// fillDisk takes all room but rest bytes of a file system of size bytes.
func fillDisk(t *testing.T, dir string, size, rest int) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, size-rest), 0o600); err != nil {
		t.Fatal(err)
	}
	return ballast
}

// filled is size bytes that differ by seed.
func filled(size int, seed byte) []byte { return bytes.Repeat([]byte{seed, seed ^ 0x5a, 1, 2}, size/4) }

func putBytes(t *testing.T, d *blobstore.Dir, b []byte) error {
	t.Helper()
	return d.Put(t.Context(), digest.FromBytes(b), int64(len(b)), bytes.NewReader(b))
}

func TestCacheOnAFullDiskEvictsAndGoesOn(t *testing.T) {
	const size = 64 * diskMiB
	disk := storetest.Tmpfs(t, size)
	d := openDir(t, filepath.Join(disk, "store"), blobstore.DirConfig{EvictWhenFull: true})
	read, _, err := openFirst(t, d)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	for i := range 40 { // 160 MiB
		b := filled(4*diskMiB, byte(i+1))
		if err := putBytes(t, d, b); err != nil {
			t.Fatalf("blob %d: %v", i, err)
		}
		if _, err := d.Stat(t.Context(), digest.FromBytes(b)); err != nil {
			t.Fatalf("blob %d was not kept: %v", i, err)
		}
		if err := d.PutRecord(t.Context(), fmt.Sprintf("tags/%d", i), b[:4096]); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	if d.Usage().Evictions == 0 {
		t.Error("nothing was evicted")
	}
	// What somebody reads all the while is not evicted.
	if got, err := io.ReadAll(read); err != nil || !bytes.Equal(got, filled(diskMiB, 0)) {
		t.Errorf("the reader got %d bytes, %v", len(got), err)
	}
	if _, err := d.Stat(t.Context(), digest.FromBytes(filled(diskMiB, 0))); err != nil {
		t.Errorf("the blob that is read: %v", err)
	}
}

// openFirst stores a blob and opens it.
func openFirst(t *testing.T, d *blobstore.Dir) (io.ReadCloser, blobstore.Info, error) {
	t.Helper()
	b := filled(diskMiB, 0)
	if err := putBytes(t, d, b); err != nil {
		t.Fatal(err)
	}
	return d.Open(t.Context(), digest.FromBytes(b), 0, -1)
}

func TestManyWritersOnAFullDiskAllGoOn(t *testing.T) {
	disk := storetest.Tmpfs(t, 64*diskMiB)
	d := openDir(t, filepath.Join(disk, "store"), blobstore.DirConfig{EvictWhenFull: true})
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 15 { // 120 MiB in all
				if err := putBytes(t, d, filled(2*diskMiB, byte(16*w+i))); err != nil {
					t.Errorf("writer %d, blob %d: %v", w, i, err)
					return
				}
			}
		})
	}
	writers.Wait()
}

func TestFullDiskWithNothingToEvictRefusesServesAndRecovers(t *testing.T) {
	const size = 32 * diskMiB
	for _, evict := range []bool{true, false} {
		t.Run(fmt.Sprintf("evict=%v", evict), func(t *testing.T) {
			disk := storetest.Tmpfs(t, size)
			path := filepath.Join(disk, "store")
			d, err := blobstore.OpenDir(path, blobstore.DirConfig{EvictWhenFull: evict})
			if err != nil {
				t.Fatal(err)
			}
			held := filled(diskMiB, 1)
			if err := putBytes(t, d, held); err != nil {
				t.Fatal(err)
			}
			reader, err := d.OpenFile(digest.FromBytes(held)) // it is in use: nothing can be evicted
			if err != nil {
				t.Fatal(err)
			}
			ballast := fillDisk(t, disk, size, 2*diskMiB)
			if err := putBytes(t, d, filled(4*diskMiB, 2)); !errors.Is(err, blobstore.ErrNoSpace) {
				t.Errorf("Put on a full disk: %v; want ErrNoSpace", err)
			}
			p, err := d.Partial(t.Context(), digest.FromBytes(filled(4*diskMiB, 3)))
			if err != nil {
				t.Fatal(err)
			}
			n, err := p.Write(filled(4*diskMiB, 3))
			if !errors.Is(err, blobstore.ErrNoSpace) || int64(n) != p.Size() {
				t.Errorf("Write on a full disk: %d of %d, %v; want ErrNoSpace", n, p.Size(), err)
			}
			if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, held) {
				t.Errorf("a hit on a full disk: %d bytes, %v", len(got), err)
			}
			// A full disk keeps nobody from closing and opening the store.
			if err := errors.Join(p.Close(), reader.Close(), d.Close()); err != nil {
				t.Error(err)
			}
			d = openDir(t, path, blobstore.DirConfig{EvictWhenFull: evict})
			if _, err := d.Stat(t.Context(), digest.FromBytes(held)); err != nil {
				t.Error(err)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if err := putBytes(t, d, filled(4*diskMiB, 2)); err != nil {
				t.Errorf("Put with room again: %v", err)
			}
			if used := d.Usage(); used.Bytes != 5*diskMiB || used.PartialBytes != int64(n) {
				t.Errorf("the books say %+v; want %d bytes of blobs and %d of partials", used, 5*diskMiB, n)
			}
		})
	}
}

func TestFullDiskTakesTheQuarantineBeforeAnythingElse(t *testing.T) {
	const size = 64 * diskMiB
	disk := storetest.Tmpfs(t, size)
	path := filepath.Join(disk, "store")
	d := openDir(t, path, blobstore.DirConfig{EvictWhenFull: true})
	kept, wrong := filled(4*diskMiB, 1), filled(20*diskMiB, 2)
	if err := errors.Join(putBytes(t, d, kept), putBytes(t, d, wrong)); err != nil {
		t.Fatal(err)
	}
	f, err := d.OpenFile(digest.FromBytes(wrong))
	if err != nil {
		t.Fatal(err)
	}
	if !f.Quarantine(errors.New("wrong")) {
		t.Fatal("not put aside")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, disk, size-24*diskMiB, 2*diskMiB)
	if err := putBytes(t, d, filled(8*diskMiB, 3)); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, d, digest.FromBytes(kept), true)
	if u := d.Usage(); u.QuarantineBytes != 0 || u.Evictions != 0 {
		t.Errorf("the usage is %+v", u)
	}
}
