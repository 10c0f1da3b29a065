package blobstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

// limited is a store of at most 1000 bytes, watermarks at 900 and 700.
func limited(t *testing.T, path string) (*blobstore.Dir, *clock) {
	t.Helper()
	now := newClock()
	return openDir(t, path, blobstore.DirConfig{MaxSize: 1000, Now: now.Now}), now
}

// fill puts count blobs of 100 bytes, two minutes apart.
func fill(t *testing.T, d *blobstore.Dir, now *clock, from, count int) []digest.Digest {
	t.Helper()
	var all []digest.Digest
	for i := range count {
		now.advance(2 * time.Minute)
		all = append(all, put(t, d, content(fmt.Sprint("blob ", from+i), 100)))
	}
	return all
}

// left is which of all are stored.
func left(t *testing.T, d *blobstore.Dir, all []digest.Digest) []int {
	t.Helper()
	var is []int
	for i, dgst := range all {
		if stored(t, d, dgst) {
			is = append(is, i)
		}
	}
	return is
}

func TestEvictionStartsAboveTheHighWatermarkAndEndsAtTheLowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := t.TempDir()
		d, now := limited(t, path)
		all := fill(t, d, now, 0, 9)
		synctest.Wait()
		if got := d.Usage(); got.Blobs != 9 || got.Evictions != 0 {
			t.Errorf("at the high watermark, usage is %+v, want all 9", got)
		}
		all = append(all, fill(t, d, now, 9, 1)...)
		synctest.Wait() // for the evictor to sleep again
		if got, want := left(t, d, all), []int{3, 4, 5, 6, 7, 8, 9}; !slices.Equal(got, want) {
			t.Errorf("left are %v, want %v", got, want)
		}
		if got, want := d.Usage(), (blobstore.Usage{Bytes: 700, Blobs: 7, Evictions: 3, EvictedBytes: 300}); got != want {
			t.Errorf("usage %+v, want %+v", got, want)
		}
		if _, err := os.Stat(dataFile(path, all[0])); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file of an evicted blob: %v", err)
		}
		closeDir(t, d) // within the bubble, whose goroutines must end
	})
}

func TestEvictionSparesWhatWasUsedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, now := limited(t, t.TempDir())
		all := fill(t, d, now, 0, 8)
		readAll(t, d, all[0])
		d.Touch(all[2])
		d.Touch("sha256:malformed")
		d.Touch(digest.FromString("absent"))
		if _, err := d.Stat(t.Context(), all[1]); err != nil { // no use
			t.Fatal(err)
		}
		all = append(all, fill(t, d, now, 8, 2)...)
		synctest.Wait()
		if got, want := left(t, d, all), []int{0, 2, 5, 6, 7, 8, 9}; !slices.Equal(got, want) {
			t.Errorf("left are %v, want %v", got, want)
		}
		closeDir(t, d)
	})
}

func TestEvictionTakesWhatIsSparedAfterOthersAndBeforeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, now := limited(t, t.TempDir())
		all := fill(t, d, now, 0, 8)
		for _, spared := range []int{0, 1, 2, 3} {
			d.Spare(all[spared], true)
		}
		d.Spare(all[3], false)
		d.Spare("sha256:malformed", true)
		d.Spare(digest.FromString("absent"), true)
		all = append(all, fill(t, d, now, 8, 2)...)
		synctest.Wait()
		if got, want := left(t, d, all), []int{0, 1, 2, 6, 7, 8, 9}; !slices.Equal(got, want) {
			t.Errorf("left are %v, want %v", got, want)
		}
		for _, digest := range all {
			d.Spare(digest, true)
		}
		for i := range 10 {
			added := fill(t, d, now, 10+i, 1)
			d.Spare(added[0], true)
			all = append(all, added...)
			synctest.Wait()
		}
		if got := left(t, d, all); len(got) > 9 || slices.Contains(got, 2) || !slices.Contains(got, 19) {
			t.Errorf("left are %v; want what was used last", got)
		}
		closeDir(t, d)
	})
}

func TestEvictionOrderSurvivesARestart(t *testing.T) {
	path := t.TempDir()
	d, now := limited(t, path)
	all := fill(t, d, now, 0, 8)
	readAll(t, d, all[0])
	closeDir(t, d)
	synctest.Test(t, func(t *testing.T) {
		d, again := limited(t, path)
		again.advance(now.Now().Sub(again.Now()))
		all := append(slices.Clone(all), fill(t, d, again, 8, 2)...)
		synctest.Wait()
		if got, want := left(t, d, all), []int{0, 4, 5, 6, 7, 8, 9}; !slices.Equal(got, want) {
			t.Errorf("left are %v, want %v", got, want)
		}
		closeDir(t, d)
	})
}

func TestStoreAboveItsLimitIsEvictedWhenOpened(t *testing.T) {
	path := t.TempDir()
	now := newClock()
	d := openDir(t, path, blobstore.DirConfig{Now: now.Now})
	fill(t, d, now, 0, 20)
	closeDir(t, d)
	synctest.Test(t, func(t *testing.T) {
		d, _ := limited(t, path)
		synctest.Wait()
		if got := d.Usage(); got.Bytes != 700 {
			t.Errorf("usage %+v, want the low watermark", got)
		}
		closeDir(t, d)
	})
}

func TestEvictionSparesWhatIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, now := limited(t, t.TempDir())
		all := fill(t, d, now, 0, 8)
		var readers []*blobstore.File
		for _, dgst := range all[:4] {
			f, err := d.OpenFile(dgst)
			if err != nil {
				t.Fatal(err)
			}
			readers = append(readers, f)
		}
		for _, dgst := range all[4:] { // the readers' are the oldest again
			d.Touch(dgst)
		}
		all = append(all, fill(t, d, now, 8, 2)...)
		synctest.Wait()
		if got, want := left(t, d, all), []int{0, 1, 2, 3, 7, 8, 9}; !slices.Equal(got, want) {
			t.Errorf("while four are read, left are %v, want %v", got, want)
		}
		for i, f := range readers {
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, content(fmt.Sprint("blob ", i), 100)) {
				t.Errorf("reader %d gets %d bytes, %v", i, len(got), err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		all = append(all, fill(t, d, now, 10, 3)...)
		synctest.Wait()
		if got, want := left(t, d, all), []int{3, 7, 8, 9, 10, 11, 12}; !slices.Equal(got, want) {
			t.Errorf("after they are closed, left are %v, want %v", got, want)
		}
		closeDir(t, d)
	})
}

func TestWriteThatPassesTheLimitEvictsAtOnceOrFails(t *testing.T) {
	d, now := limited(t, t.TempDir())
	fill(t, d, now, 0, 3)
	big := content("big", 950)
	put(t, d, big)
	if got := d.Usage(); got.Bytes != 950 || got.Blobs != 1 {
		t.Errorf("usage %+v, want the big blob alone", got)
	}
	f, err := d.OpenFile(digest.FromBytes(big))
	if err != nil {
		t.Fatal(err)
	}
	other := content("other", 100)
	if err := d.Put(t.Context(), digest.FromBytes(other), 100, bytes.NewReader(other)); !errors.Is(err, blobstore.ErrNoSpace) {
		t.Errorf("Put while all is read = %v, want ErrNoSpace", err)
	}
	if got := d.Usage(); got.PartialBytes != 0 || got.Bytes != 950 {
		t.Errorf("after it, usage is %+v", got)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, d, other)
}

func TestBlobLargerThanTheLimitEvictsNothing(t *testing.T) {
	d, now := limited(t, t.TempDir())
	fill(t, d, now, 0, 8)
	huge := content("huge", 1001)
	if err := d.Put(t.Context(), digest.FromBytes(huge), 1001, bytes.NewReader(huge)); !errors.Is(err, blobstore.ErrNoSpace) {
		t.Errorf("Put = %v, want ErrNoSpace", err)
	}
	if got := d.Usage(); got.Blobs != 8 {
		t.Errorf("usage %+v, want the 8 blobs", got)
	}
}

func TestIdlePartialsAreEvictedInTheirTurnAndOpenOnesNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := t.TempDir()
		d, now := limited(t, path)
		older := fill(t, d, now, 0, 1)
		now.advance(2 * time.Minute)
		idle, open := digest.FromString("idle"), digest.FromString("open")
		p, writing := openPartial(t, d, idle), openPartial(t, d, open)
		write(t, p, content("idle", 100))
		write(t, writing, content("open", 100))
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		newer := fill(t, d, now, 1, 7)
		synctest.Wait()
		if stored(t, d, older[0]) {
			t.Error("the oldest blob is left")
		}
		if got := d.Usage(); got.PartialBytes != 100 || got.Bytes != 600 {
			t.Errorf("usage %+v, want the open partial and 6 blobs", got)
		}
		if got, want := left(t, d, newer), []int{1, 2, 3, 4, 5, 6}; !slices.Equal(got, want) {
			t.Errorf("left are %v, want %v", got, want)
		}
		if files, err := filepath.Glob(filepath.Join(path, "spool", "*")); err != nil || len(files) != 1 {
			t.Errorf("in the spool: %v (%v), want the open partial", files, err)
		}
		if resumed := openPartial(t, d, idle); resumed.Size() != 0 {
			t.Errorf("the evicted partial is resumed at %d", resumed.Size())
		}
		// All blobs go before an open partial is given up.
		if _, err := writing.Write(content("open", 900)); err != nil {
			t.Errorf("Write up to the limit: %v", err)
		}
		if n, err := writing.Write([]byte("x")); n != 0 || !errors.Is(err, blobstore.ErrNoSpace) {
			t.Errorf("Write past the limit = %d, %v; want ErrNoSpace", n, err)
		}
		if writing.Size() != 1000 {
			t.Errorf("it has %d bytes, want 1000", writing.Size())
		}
		if err := writing.Discard(); err != nil {
			t.Fatal(err)
		}
		closeDir(t, d)
	})
}

// Readers, writers, deleters and the evictor at once: whoever gets a blob gets
// all of it, and in the end the books are right.
func TestEvictionUnderConcurrentUse(t *testing.T) {
	const blobs, size, workers, rounds = 30, 1000, 6, 150
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{MaxSize: 20 * size})
	var all [blobs][]byte
	var digests [blobs]digest.Digest
	for i := range all {
		all[i] = content(fmt.Sprint("blob ", i), size)
		digests[i] = digest.FromBytes(all[i])
	}
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for round := range rounds {
				i := (round*7 + worker*11) % blobs
				if round%25 == worker {
					if err := d.Delete(t.Context(), digests[i]); err != nil && !errors.Is(err, blobstore.ErrNotExist) {
						t.Errorf("Delete: %v", err)
					}
				}
				f, err := d.OpenFile(digests[i])
				if errors.Is(err, blobstore.ErrNotExist) {
					if err := d.Put(t.Context(), digests[i], size, bytes.NewReader(all[i])); err != nil {
						t.Errorf("Put: %v", err)
					}
					continue
				}
				if err != nil {
					t.Errorf("OpenFile: %v", err)
					continue
				}
				if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, all[i]) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	closeDir(t, d)
	before := d.Usage()
	if before.Evictions == 0 || before.PartialBytes != 0 {
		t.Errorf("usage %+v, want evictions and nothing in the spool", before)
	}
	d = openDir(t, path, blobstore.DirConfig{}) // without a limit: as it was left
	if after := d.Usage(); after.Bytes != before.Bytes || after.Blobs != before.Blobs {
		t.Errorf("on the disk are %+v, the books said %+v", after, before)
	}
}
