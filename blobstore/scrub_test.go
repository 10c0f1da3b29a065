package blobstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

// rot flips a bit in the middle of a blob, on the disk.
func rot(t *testing.T, path string, d digest.Digest) {
	t.Helper()
	file, err := os.OpenFile(dataFile(path, d), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := file.WriteAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Sync(), os.Chtimes(file.Name(), time.Time{}, info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func newScrubber(t *testing.T, cfg blobstore.ScrubConfig) *blobstore.Scrubber {
	t.Helper()
	s, err := blobstore.NewScrubber(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantHeld(t *testing.T, d *blobstore.Dir, dgst digest.Digest, want bool) {
	t.Helper()
	_, err := d.Stat(t.Context(), dgst)
	if got := err == nil; got != want || err != nil && !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("%s is in the store: %v (%v); want %v", dgst, got, err, want)
	}
}

func quarantined(t *testing.T, path string) []string {
	t.Helper()
	held, err := filepath.Glob(filepath.Join(path, "quarantine", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

const fastScrub = 1 << 30

func TestScrubPutsRottenBlobsAsideAndLeavesTheRest(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{MaxSize: 1 << 30})
	var right []digest.Digest
	for i, size := range []int{1, 4095, 4096, 4097, 256 << 10, 1<<20 + 17} {
		right = append(right, put(t, d, content(fmt.Sprint("right", i), size)))
	}
	right = append(right, put(t, d, nil))
	large := content("large", 3<<20+5)
	rotten := []digest.Digest{put(t, d, large), put(t, d, content("small", 100))}
	for _, dgst := range rotten {
		rot(t, path, dgst)
	}
	truncated := put(t, d, content("truncated", 9999))
	if err := os.Truncate(dataFile(path, truncated), 9000); err != nil {
		t.Fatal(err)
	}
	reader, _, err := d.Open(t.Context(), rotten[0], 0, -1) // a client is in the middle of it
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()

	s := newScrubber(t, blobstore.ScrubConfig{Dir: d, Rate: fastScrub})
	if err := s.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dgst := range right {
		wantHeld(t, d, dgst, true)
	}
	for _, dgst := range append(rotten, truncated) {
		wantHeld(t, d, dgst, false)
	}
	held := quarantined(t, path)
	if len(held) != 2 || !strings.Contains(strings.Join(held, " "), rotten[0].Encoded()) {
		t.Errorf("put aside: %v", held)
	}
	if got, err := io.ReadAll(reader); err != nil || len(got) != len(large) {
		t.Errorf("the reader got %d bytes, %v; want what was there: %d", len(got), err, len(large))
	}
	st := s.Status()
	if st.Rotten != 3 || st.Blobs != int64(len(right)) || st.Running || st.LastFinished.IsZero() || st.PassBytes != st.PassTotal {
		t.Errorf("the status is %+v", st)
	}
	if u := d.Usage(); u.Quarantined != 2 || u.QuarantineBytes != 3<<20+105 || u.Blobs != len(right) {
		t.Errorf("the usage is %+v", u)
	}
	// It is stored again like anything else, and is right then.
	put(t, d, large)
	if err := s.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, d, rotten[0], true)
}

func TestScrubKeepsToItsRate(t *testing.T) {
	path := t.TempDir()
	for i := range 8 {
		openDirOnce(t, path, content(fmt.Sprint(i), 1<<20))
	}
	synctest.Test(t, func(t *testing.T) {
		d, err := blobstore.OpenDir(path, blobstore.DirConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		s := newScrubber(t, blobstore.ScrubConfig{Dir: d, Rate: 1 << 20})
		began := time.Now()
		if err := s.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		// 8 MiB, and 8 times 64 KiB for finding the files, less what may be read at once.
		if took := time.Since(began); took < 8*time.Second || took > 9*time.Second {
			t.Errorf("8 MiB at 1 MiB/s took %v", took)
		}
	})
}

// openDirOnce stores a blob in a store that is opened for it.
func openDirOnce(t *testing.T, path string, b []byte) {
	t.Helper()
	d, err := blobstore.OpenDir(path, blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer closeDir(t, d)
	put(t, d, b)
}

func TestScrubGoesOnWhereItWasAfterARestart(t *testing.T) {
	path := t.TempDir()
	const blobs, size = 10, 1 << 20
	for i := range blobs {
		openDirOnce(t, path, content(fmt.Sprint(i), size))
	}
	synctest.Test(t, func(t *testing.T) {
		var read int64
		passes := 0
		for read < blobs*size && passes < 100 {
			d, err := blobstore.OpenDir(path, blobstore.DirConfig{})
			if err != nil {
				t.Fatal(err)
			}
			s := newScrubber(t, blobstore.ScrubConfig{Dir: d, Rate: 1 << 20, Every: 24 * time.Hour})
			ctx, cancel := context.WithTimeout(t.Context(), 4500*time.Millisecond)
			s.Run(ctx)
			cancel()
			st := s.Status()
			if before := st.PassBytes - st.Blobs*size; passes > 0 && before <= 0 {
				t.Errorf("start %d: the pass began anew: %+v", passes, st)
			}
			read += st.Blobs * size
			passes++
			closeDir(t, d)
		}
		if read != blobs*size || passes != 3 {
			t.Errorf("after %d starts, %d blobs were read; want 3 and %d", passes, read/size, blobs)
		}
		// All is read: the next pass is a day after the beginning of the first.
		d, err := blobstore.OpenDir(path, blobstore.DirConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		s := newScrubber(t, blobstore.ScrubConfig{Dir: d, Rate: 1 << 20, Every: 24 * time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.Run(ctx) }()
		time.Sleep(23 * time.Hour)
		if st := s.Status(); st.Blobs != 0 {
			t.Errorf("an hour too early: %+v", st)
		}
		time.Sleep(2 * time.Hour)
		if st := s.Status(); st.Blobs != blobs || st.LastFinished.IsZero() {
			t.Errorf("a day later: %+v", st)
		}
		cancel()
		<-ended
	})
}

func TestScrubBeginsAnewWhereItsStateIsGarbled(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	put(t, d, []byte("blob"))
	for _, text := range []string{"", "{", `{"after":"sha256:../../etc","running":true}`} {
		if err := os.WriteFile(filepath.Join(path, "scrub"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := newScrubber(t, blobstore.ScrubConfig{Dir: d, Rate: fastScrub})
		if err := s.Pass(t.Context()); err != nil || s.Status().Blobs != 1 {
			t.Errorf("state %q: %v, %+v", text, err, s.Status())
		}
	}
}

func TestScrubOfAnEvictedBlobFindsNothing(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	gone := put(t, d, []byte("evicted"))
	// As if it were evicted, and stored again, between two looks.
	f, err := d.OpenFile(gone)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	put(t, d, []byte("evicted"))
	if f.Quarantine(errors.New("the old one was wrong")) {
		t.Error("the new blob was put aside for the old one's sake")
	}
	wantHeld(t, d, gone, true)
}

func TestQuarantineIsBoundedAndLosesTheOldestFirst(t *testing.T) {
	path := t.TempDir()
	clock := newClock()
	d := openDir(t, path, blobstore.DirConfig{QuarantineSize: 2500, Now: clock.Now})
	for i := range 4 {
		clock.advance(time.Second)
		dgst := put(t, d, content(fmt.Sprint("blob", i), 1000))
		f, err := d.OpenFile(dgst)
		if err != nil {
			t.Fatal(err)
		}
		if !f.Quarantine(errors.New("wrong")) || f.Quarantine(errors.New("wrong")) {
			t.Error("it is put aside once")
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if held := quarantined(t, path); len(held) != min(i+1, 2) || !strings.Contains(held[len(held)-1], dgst.Encoded()) {
			t.Errorf("after %d: %v", i+1, held)
		}
	}
	if u := d.Usage(); u.QuarantineBytes != 2000 || u.Quarantined != 4 || u.Bytes != 0 {
		t.Errorf("the usage is %+v", u)
	}
	closeDir(t, d)
	d = openDir(t, path, blobstore.DirConfig{QuarantineSize: 1000})
	if u := d.Usage(); u.QuarantineBytes != 1000 {
		t.Errorf("after a restart with less room, the usage is %+v", u)
	}
}

func TestScrubDoesNotCountAsUse(t *testing.T) {
	path := t.TempDir()
	clock := newClock()
	d := openDir(t, path, blobstore.DirConfig{MaxSize: 10_000, HighWatermark: 1, LowWatermark: 1, Now: clock.Now})
	oldest := put(t, d, content("oldest", 4000))
	clock.advance(time.Hour)
	newer := put(t, d, content("newer", 4000))
	s := newScrubber(t, blobstore.ScrubConfig{Dir: d, Rate: fastScrub})
	if err := s.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, d, bytes.Repeat([]byte{1}, 4000))
	wantHeld(t, d, oldest, false)
	wantHeld(t, d, newer, true)
}
