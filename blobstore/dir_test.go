package blobstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"entrepot/blobstore"
	"entrepot/blobstore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDirPassesTheSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return openDir(t, filepath.Join(t.TempDir(), "store"), blobstore.DirConfig{})
	})
}

func TestDirWithALimitPassesTheSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return openDir(t, t.TempDir(), blobstore.DirConfig{MaxSize: 1 << 30})
	})
}

// openDir opens a store, and checks at the end of the test that it left no
// temporary file.
func openDir(t *testing.T, path string, cfg blobstore.DirConfig) *blobstore.Dir {
	t.Helper()
	d, err := blobstore.OpenDir(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		litter, err := filepath.Glob(filepath.Join(path, "spool", "tmp-*"))
		if err != nil || len(litter) > 0 {
			t.Errorf("left in the spool: %v (%v)", litter, err)
		}
	})
	return d
}

func closeDir(t *testing.T, d *blobstore.Dir) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// content is size bytes that differ with name.
func content(name string, size int) []byte {
	return bytes.Repeat([]byte(name+"\n"), size/(len(name)+1)+1)[:size]
}

func put(t *testing.T, d *blobstore.Dir, b []byte) digest.Digest {
	t.Helper()
	dgst := digest.FromBytes(b)
	if err := d.Put(t.Context(), dgst, int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatalf("Put: %v", err)
	}
	return dgst
}

func stored(t *testing.T, d *blobstore.Dir, dgst digest.Digest) bool {
	t.Helper()
	_, err := d.Stat(t.Context(), dgst)
	if err != nil && !errors.Is(err, blobstore.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func dataFile(dir string, dgst digest.Digest) string {
	return filepath.Join(dir, "blobs", dgst.Algorithm().String(), dgst.Encoded()[:2], dgst.Encoded(), "data")
}

func TestDirKeepsBlobsAndRecordsOverARestart(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	want := map[digest.Digest]int64{}
	for i := range 50 {
		b := content(fmt.Sprint("blob ", i), 10*i)
		want[put(t, d, b)] = int64(len(b))
	}
	wide := []byte("a sha512 blob")
	wideDigest := digest.SHA512.FromBytes(wide)
	if err := d.Put(t.Context(), wideDigest, -1, bytes.NewReader(wide)); err != nil {
		t.Fatal(err)
	}
	want[wideDigest] = int64(len(wide))
	if err := d.PutRecord(t.Context(), "tags/a", []byte("value")); err != nil {
		t.Fatal(err)
	}
	before := d.Usage()
	closeDir(t, d)

	d = openDir(t, path, blobstore.DirConfig{})
	for dgst, size := range want {
		if info, err := d.Stat(t.Context(), dgst); err != nil || info.Size != size {
			t.Errorf("Stat(%s) = %+v, %v; want %d bytes", dgst, info, err, size)
		}
	}
	if after := d.Usage(); after != before || after.Blobs != len(want) {
		t.Errorf("usage after the restart is %+v, was %+v", after, before)
	}
	if value, err := d.Record(t.Context(), "tags/a"); err != nil || string(value) != "value" {
		t.Errorf("Record = %q, %v", value, err)
	}
}

func TestDirIsOpenToOneProcessOnly(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	_, err := blobstore.OpenDir(path, blobstore.DirConfig{})
	if err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("the second open gives %v", err)
	}
	closeDir(t, d)
	openDir(t, path, blobstore.DirConfig{})
}

func TestDirOfANewerFormatIsRefusedUntouched(t *testing.T) {
	for version, want := range map[string]string{
		"2\n": "store format 2", "100": "store format 100", "": "is this a store", "one": "is this a store", "0": "is this a store",
		"7\nentrepot 3.0 or later reads it\n": "entrepot 3.0 or later",
	} {
		path := t.TempDir()
		d := openDir(t, path, blobstore.DirConfig{})
		dgst := put(t, d, []byte("blob"))
		closeDir(t, d)
		litter := filepath.Join(path, "spool", "what-a-newer-one-knows")
		for file, text := range map[string]string{filepath.Join(path, "version"): version, litter: "x"} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := blobstore.OpenDir(path, blobstore.DirConfig{})
		if !errors.Is(err, blobstore.ErrFormat) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("version %q: %v, want %q in it", version, err, want)
		}
		for _, file := range []string{dataFile(path, dgst), litter} {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("version %q: %v", version, err)
			}
		}
	}
}

func TestDirWithoutAFormatIsTakenAsAnOldOneAndMarked(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	dgst := put(t, d, []byte("blob"))
	closeDir(t, d)
	if err := os.Remove(filepath.Join(path, "version")); err != nil {
		t.Fatal(err)
	}
	d = openDir(t, path, blobstore.DirConfig{})
	if _, err := d.Stat(t.Context(), dgst); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(path, "version")); err != nil || string(text) != "1\n" {
		t.Errorf("version holds %q, %v", text, err)
	}
}

// The tests may run as root, whom permissions do not stop; a file where a
// directory should be stops everyone.
func TestDirThatCannotBeWrittenIsRefused(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := filepath.Join(base, "blocked")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(blocked, "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                                   "not a directory",
		filepath.Join(file, "store"):           "not a directory",
		filepath.Join(base, "absent", "store"): "parent directory " + filepath.Join(base, "absent") + " does not exist",
		blocked:                                "not a directory",
		"/proc/self/store":                     "/proc/self/store",
	} {
		_, err := blobstore.OpenDir(path, blobstore.DirConfig{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenDir(%s) = %v, want %q in it", path, err, want)
		}
	}
}

func TestDirConfigIsChecked(t *testing.T) {
	for _, cfg := range []blobstore.DirConfig{
		{MaxSize: -1},
		{HighWatermark: 1.1},
		{HighWatermark: 0.5, LowWatermark: 0.6},
		{LowWatermark: -0.1},
		{HighWatermark: 0.5}, // below the default of the low one
	} {
		if d, err := blobstore.OpenDir(t.TempDir(), cfg); err == nil {
			closeDir(t, d)
			t.Errorf("OpenDir with %+v succeeds", cfg)
		}
	}
}

func TestDirRemovesWhatACrashLeft(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	kept := put(t, d, []byte("kept"))
	empty := put(t, d, nil)
	hollow := put(t, d, []byte("becomes an empty file"))
	bare := put(t, d, []byte("becomes an empty directory"))
	closeDir(t, d)
	if err := os.Truncate(dataFile(path, hollow), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dataFile(path, bare)); err != nil {
		t.Fatal(err)
	}
	litter := filepath.Join(path, "spool", "tmp-123")
	foreign := filepath.Join(path, "blobs", "sha256", "zz", "README")
	if err := os.MkdirAll(filepath.Dir(foreign), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{litter, foreign} {
		if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	d = openDir(t, path, blobstore.DirConfig{})
	for dgst, want := range map[digest.Digest]bool{kept: true, empty: true, hollow: false, bare: false} {
		if got := stored(t, d, dgst); got != want {
			t.Errorf("%s is stored: %v, want %v", dgst, got, want)
		}
	}
	for file, want := range map[string]bool{
		litter: false, filepath.Dir(dataFile(path, hollow)): false, filepath.Dir(dataFile(path, bare)): false, foreign: true,
	} {
		if _, err := os.Stat(file); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", file, err, want)
		}
	}
	if got := d.Usage(); got.Bytes != 4 || got.PartialBytes != 0 {
		t.Errorf("usage %+v, want 4 bytes", got)
	}
}

func TestDirDropsABlobChangedBehindItsBack(t *testing.T) {
	for name, change := range map[string]func(file string) error{
		"removed":   os.Remove,
		"truncated": func(file string) error { return os.Truncate(file, 3) },
		"longer":    func(file string) error { return os.Truncate(file, 3000) },
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			d := openDir(t, path, blobstore.DirConfig{})
			b := content("blob", 1000)
			for _, call := range []string{"Open", "Put"} {
				dgst := put(t, d, b)
				if err := change(dataFile(path, dgst)); err != nil {
					t.Fatal(err)
				}
				if call == "Open" {
					if _, _, err := d.Open(t.Context(), dgst, 0, -1); !errors.Is(err, blobstore.ErrNotExist) {
						t.Errorf("Open = %v, want ErrNotExist", err)
					}
					if stored(t, d, dgst) || d.Usage() != (blobstore.Usage{}) {
						t.Errorf("it is still known: %+v", d.Usage())
					}
					if _, err := os.Stat(dataFile(path, dgst)); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("the file is still there: %v", err)
					}
				}
				put(t, d, b)
				if got := readAll(t, d, dgst); !bytes.Equal(got, b) {
					t.Errorf("after %s and another Put, it reads as %d other bytes", call, len(got))
				}
			}
		})
	}
}

func readAll(t *testing.T, d *blobstore.Dir, dgst digest.Digest) []byte {
	t.Helper()
	r, _, err := d.Open(t.Context(), dgst, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDirPersistsUseOnceAMinute(t *testing.T) {
	path, now := t.TempDir(), newClock()
	d := openDir(t, path, blobstore.DirConfig{Now: now.Now})
	dgst := put(t, d, []byte("blob"))
	stored := now.Now()
	for _, step := range []struct {
		after time.Duration
		want  time.Duration // of the mtime, since it was stored
	}{{0, 0}, {59 * time.Second, 0}, {time.Second, time.Minute}, {time.Second, time.Minute}, {time.Hour, time.Hour + 61*time.Second}} {
		now.advance(step.after)
		readAll(t, d, dgst)
		d.Touch(dgst)
		info, err := os.Stat(dataFile(path, dgst))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.ModTime().Sub(stored); got != step.want {
			t.Errorf("after %s more, the mtime is %s on, want %s", step.after, got, step.want)
		}
	}
}

func TestDirClosedRefusesToWrite(t *testing.T) {
	d := openDir(t, t.TempDir(), blobstore.DirConfig{})
	dgst := put(t, d, []byte("blob"))
	closeDir(t, d)
	_, partialErr := d.Partial(t.Context(), digest.FromString("other"))
	for call, err := range map[string]error{
		"Put":          d.Put(t.Context(), digest.FromString("x"), 1, strings.NewReader("x")),
		"PutRecord":    d.PutRecord(t.Context(), "a", nil),
		"Delete":       d.Delete(t.Context(), dgst),
		"DeleteRecord": d.DeleteRecord(t.Context(), "a"),
		"Partial":      partialErr,
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s = %v, want fs.ErrClosed", call, err)
		}
	}
}

func TestDirDeletedRecordsLeaveNoDirectories(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{Logger: slog.New(slog.DiscardHandler)})
	for _, key := range []string{"a/b/c", "a/" + strings.Repeat(":", 255)} {
		if err := d.PutRecord(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.DeleteRecord(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(filepath.Join(path, "records"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
}
