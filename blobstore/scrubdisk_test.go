package blobstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// scrubbing is a store of blobs, and a scrubber of it.
func scrubbing(t *testing.T, blobs int) *Scrubber {
	t.Helper()
	d, err := OpenDir(t.TempDir(), DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range blobs {
		text := fmt.Sprint("blob ", i)
		if err := d.Put(t.Context(), digest.FromString(text), int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := NewScrubber(ScrubConfig{Dir: d})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBlobThatTheDiskDoesNotGiveIsPutAside(t *testing.T) {
	s := scrubbing(t, 20)
	blobs, _, _ := s.rest()
	bad := map[digest.Digest]bool{rawDigest(blobs[3].sum): true, rawDigest(blobs[4].sum): true, rawDigest(blobs[19].sum): true}
	err := s.check(t.Context(), func(_ context.Context, d *sum, _ string, _ int64) error {
		if bad[d.digest()] {
			return fmt.Errorf("read: %w", syscall.EIO)
		}
		return nil
	}, blobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range blobs {
		if s.dir.index.holds(e) == bad[rawDigest(e.sum)] {
			t.Errorf("%s: in the store %v, unreadable %v", rawDigest(e.sum), s.dir.index.holds(e), bad[rawDigest(e.sum)])
		}
	}
	if st := s.Status(); st.Unreadable != 3 || st.Rotten != 3 || st.Blobs != 17 {
		t.Errorf("the status is %+v", st)
	}
}

func TestDiskThatGivesNothingCostsNoBlob(t *testing.T) {
	s := scrubbing(t, 20)
	blobs, _, _ := s.rest()
	reads := 0
	err := s.check(t.Context(), func(context.Context, *sum, string, int64) error {
		if reads++; reads > 5 {
			return syscall.EIO
		}
		return nil
	}, blobs)
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("scrubbing a broken disk: %v", err)
	}
	if u := s.dir.Usage(); u.Blobs != 20 || u.Quarantined != 0 {
		t.Errorf("the usage is %+v", u)
	}
	// It goes on at the blob that could not be read.
	if rest, _, _ := s.rest(); len(rest) != 15 {
		t.Errorf("%d blobs are left to read, want 15", len(rest))
	}
}

func FuzzScrubState(f *testing.F) {
	f.Add(`{"started":"2026-11-23T12:00:00Z","running":true,"after":"sha256:` + digest.FromString("x").Encoded() + `","rotten":1}`)
	f.Add(`{"after":"sha256:../../../etc/passwd"}`)
	f.Add(`{"finished":"0001-01-01T00:00:00Z","rotten":-1}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseScrubState([]byte(text))
		if err != nil {
			return
		}
		if s.After != "" && checkDigest(s.After) != nil {
			t.Errorf("%q gives the digest %q", text, s.After)
		}
		again, err := s.text()
		if err != nil {
			t.Fatalf("%q is read and cannot be written: %v", text, err)
		}
		if back, err := parseScrubState(again); err != nil || back.After != s.After || back.Running != s.Running {
			t.Errorf("%q comes back as %+v, %v", text, back, err)
		}
	})
}

func TestBlobStoredAgainWhileItWasScrubbedIsPutBack(t *testing.T) {
	store := scrubbing(t, 1).dir
	d := digest.FromString("blob 0")
	path := store.blobFile(d)
	read, err := os.Open(path) // as ScrubDir has it open
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	info, err := read.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), d, 6, strings.NewReader("blob 0")); err != nil {
		t.Fatal(err)
	}
	s := dirScrub{root: store.path, aside: quarantineFor(store.path), cfg: ScrubDirConfig{Found: func(f ScrubFinding) { t.Errorf("found %+v", f) }}}
	if err := s.putAside(d, path, info, ErrDigestMismatch); err != nil || s.report.Rotten != 0 {
		t.Errorf("%v, %+v", err, s.report)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "blob 0" {
		t.Errorf("the new blob: %q, %v", b, err)
	}
	if held, err := s.aside.held(); err != nil || len(held) != 0 {
		t.Errorf("put aside: %v, %v", held, err)
	}
}
