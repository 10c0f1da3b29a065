package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// slowly reads blobs, each of which takes its time.
func slowly(t *testing.T, f *filling, took func(n int) time.Duration, blobs int) {
	t.Helper()
	for n := range blobs {
		b := blobOf(n)
		err := f.add(t.Context(), digest.FromBytes(b), int64(len(b)), func(_ context.Context, to io.Writer) error {
			half := len(b) / 2
			_, err := to.Write(b[:half])
			time.Sleep(took(n)) // of the test's own clock
			_, failed := to.Write(b[half:])
			return errors.Join(err, failed)
		}, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestBundleHasTheSameBytesHoweverItsContentComes(t *testing.T) {
	for _, split := range []int64{0, 4096, 5000} {
		var bundles [][]byte
		for _, way := range []struct {
			parallel int
			took     func(n int) time.Duration
		}{
			{1, func(int) time.Duration { return 0 }},
			{4, func(n int) time.Duration { return time.Duration(n) * time.Second }},
			{16, func(n int) time.Duration { return time.Duration(16-n) * time.Second }}, // the last first
			{5, func(n int) time.Duration { return time.Duration(n*7%5) * time.Second }},
		} {
			path := filepath.Join(t.TempDir(), "bundle.tar")
			synctest.Test(t, func(t *testing.T) {
				w, err := Create(t.Context(), path, split)
				if err != nil {
					t.Fatal(err)
				}
				f := w.fill(way.parallel)
				slowly(t, f, way.took, 16)
				if err := f.wait(); err != nil {
					t.Fatal(err)
				}
				if err := w.Finish(t.Context(), new(Contents), nil, ledger.Checkpoint{}); err != nil {
					t.Fatal(err)
				}
			})
			bundles = append(bundles, bytesOf(t, path, split))
		}
		for n, b := range bundles[1:] {
			if !bytes.Equal(b, bundles[0]) {
				t.Errorf("split at %d, the %d. way has %d bytes, which are others than the %d of one after the other", split, n+1, len(b), len(bundles[0]))
			}
		}
	}
}

func TestContentsComeAtOnceAndNoMoreThanAreAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := Create(t.Context(), filepath.Join(t.TempDir(), "bundle.tar"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		start := time.Now()
		f := w.fill(4)
		slowly(t, f, func(int) time.Duration { return time.Second }, 16)
		if err := f.wait(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("16 contents of a second each took %v, want 4 s of 4 at once", took)
		}
	})
}

func TestContentThatFailsLeavesWhatWasBeforeItAndNothingElse(t *testing.T) {
	broke := errors.New("it broke")
	path := filepath.Join(t.TempDir(), "bundle.tar")
	synctest.Test(t, func(t *testing.T) {
		w, err := Create(t.Context(), path, 1000)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		add(t, w, 0)
		size := w.vol.size
		f := w.fill(8)
		for n := 1; n < 6; n++ {
			b := blobOf(n)
			read := func(_ context.Context, to io.Writer) error { return copyTo(b)(to) }
			if n == 1 {
				read = func(context.Context, io.Writer) error { time.Sleep(time.Minute); return broke }
			}
			if err := f.add(t.Context(), digest.FromBytes(b), int64(len(b)), read, func(error) {}); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.wait(); !errors.Is(err, broke) || w.vol.size != size {
			t.Errorf("%v; %d bytes, want %d", err, w.vol.size, size)
		}
		for n := range 6 {
			if w.Has(digest.FromBytes(blobOf(n))) != (n == 0) {
				t.Errorf("blob %d: %v", n, w.Has(digest.FromBytes(blobOf(n))))
			}
		}
		add(t, w, 2)
	})
	again, err := Create(t.Context(), path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Has(digest.FromBytes(blobOf(0))) || !again.Has(digest.FromBytes(blobOf(2))) || again.Has(digest.FromBytes(blobOf(1))) {
		t.Errorf("held: %v", again.held)
	}
}

// What is behind content that is not whole is lost when it is interrupted.
func TestContentsKeepCloseToTheFirstThatIsNotWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := Create(t.Context(), filepath.Join(t.TempDir(), "bundle.tar"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		f := w.fill(4)
		slowly(t, f, func(n int) time.Duration { return map[bool]time.Duration{true: time.Hour}[n == 0] }, 3)
		var waited atomic.Bool
		f.group.Go(func() error {
			f.keepClose(1000)
			waited.Store(true)
			return nil
		})
		time.Sleep(time.Minute)
		if waited.Load() {
			t.Error("more is added, though the first is on its way and more than 1000 bytes behind it are whole")
		}
		if err := f.wait(); err != nil {
			t.Fatal(err)
		}
		if !waited.Load() {
			t.Error("it waits for nothing")
		}
		f.keepClose(0) // nothing is on its way
	})
}
