package blobstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
)

// storeBytes stores size bytes that a seed tells from others.
func storeBytes(t *testing.T, d *Dir, seed string, size int) digest.Digest {
	t.Helper()
	b := bytes.Repeat([]byte(seed), size/len(seed)+1)[:size]
	dgst := digest.FromBytes(b)
	if err := d.Put(t.Context(), dgst, int64(size), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	return dgst
}

func has(t *testing.T, d *Dir, dgst digest.Digest) bool {
	t.Helper()
	_, err := d.Stat(t.Context(), dgst)
	if err != nil && !errors.Is(err, ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestHeldBlobsAreNeverEvicted(t *testing.T) {
	path := t.TempDir()
	cfg := DirConfig{MaxSize: 100_000, KeepHeld: true}
	open := func() *Dir {
		t.Helper()
		d, err := OpenDir(path, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	held := storeBytes(t, d, "held", 40_000)
	if err := d.Hold(held); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		storeBytes(t, d, fmt.Sprint("passing ", i), 20_000)
	}
	if !has(t, d, held) {
		t.Fatal("the blob that is held was evicted")
	}
	if got := d.Held(); len(got) != 1 || got[0].Digest != held || got[0].Size != 40_000 {
		t.Errorf("held: %v", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = open() // and still, after a restart
	for i := range 10 {
		storeBytes(t, d, fmt.Sprint("passing again ", i), 20_000)
	}
	if !has(t, d, held) {
		t.Fatal("the blob that was held before the restart was evicted")
	}
	if err := d.LetGo(held); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		storeBytes(t, d, fmt.Sprint("passing at last ", i), 20_000)
	}
	if has(t, d, held) {
		t.Error("the blob that was let go of is still there")
	}
	for _, do := range []func(digest.Digest) error{d.Hold, d.LetGo} {
		if err := do(held); !errors.Is(err, ErrNotExist) {
			t.Errorf("of a blob that is not there: %v", err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsHeldDoesNotFitSaysSo(t *testing.T) {
	d, err := OpenDir(t.TempDir(), DirConfig{MaxSize: 50_000})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Hold(storeBytes(t, d, "held", 40_000)); err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte("more"), 5_000)
	if err := d.Put(t.Context(), digest.FromBytes(b), int64(len(b)), bytes.NewReader(b)); !errors.Is(err, ErrNoSpace) {
		t.Errorf("storing more than there is room for beside what is held: %v", err)
	}
}

func TestStoreThatDoesNotKeepWhatIsHeldEvictsIt(t *testing.T) {
	path := t.TempDir()
	d, err := OpenDir(path, DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	held := storeBytes(t, d, "held", 40_000)
	if err := errors.Join(d.Hold(held), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = OpenDir(path, DirConfig{MaxSize: 50_000}); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	storeBytes(t, d, "passing", 20_000)
	if has(t, d, held) || len(d.Held()) > 0 {
		t.Error("a store that is no mirror's any more holds blobs")
	}
}

func TestVerifierTellsWhatTheDiskDid(t *testing.T) {
	d, err := OpenDir(t.TempDir(), DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	v, err := d.Verifier(0)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	good, rotten, cut := storeBytes(t, d, "good", 5_000), storeBytes(t, d, "rotten", 5_000), storeBytes(t, d, "cut", 5_000)
	write := func(dgst digest.Digest, b []byte) {
		if err := os.WriteFile(d.blobFile(dgst), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(rotten, make([]byte, 5_000))
	write(cut, []byte("cut"))
	if size, err := v.Verify(t.Context(), good); err != nil || size != 5_000 {
		t.Errorf("the good one: %d, %v", size, err)
	}
	for name, dgst := range map[string]digest.Digest{"rotten": rotten, "cut short": cut} {
		if _, err := v.Verify(t.Context(), dgst); !errors.Is(err, ErrDigestMismatch) {
			t.Errorf("the one that is %s: %v", name, err)
		}
		d.PutAside(dgst, errors.New("found by the test"))
		if _, err := v.Verify(t.Context(), dgst); !errors.Is(err, ErrNotExist) {
			t.Errorf("the one that is %s, put aside: %v", name, err)
		}
	}
}
