package blobstore_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

func openPartial(t *testing.T, d *blobstore.Dir, dgst digest.Digest) *blobstore.Partial {
	t.Helper()
	p, err := d.Partial(t.Context(), dgst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

func write(t *testing.T, p *blobstore.Partial, b []byte) {
	t.Helper()
	if n, err := p.Write(b); n != len(b) || err != nil {
		t.Fatalf("Write of %d bytes = %d, %v", len(b), n, err)
	}
}

// wantFile reads all of an open file.
func wantFile(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	got, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the reader gets %d bytes, want %d others", len(got), len(want))
	}
}

func openReader(t *testing.T, p *blobstore.Partial) *os.File {
	t.Helper()
	f, err := p.OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestPartialIsABlobOnlyAfterCommit(t *testing.T) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		d := openDir(t, t.TempDir(), blobstore.DirConfig{})
		b := content("blob", 100_000)
		dgst := algorithm.FromBytes(b)
		p := openPartial(t, d, dgst)
		write(t, p, b[:70_000])
		write(t, p, nil)
		write(t, p, b[70_000:])
		if err := p.Verify(); err != nil {
			t.Fatalf("Verify: %v", err)
		}
		if stored(t, d, dgst) {
			t.Error("it is stored before Commit")
		}
		if got := d.Usage(); got.PartialBytes != int64(len(b)) || got.Bytes != 0 {
			t.Errorf("before Commit, usage is %+v", got)
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Fatalf("Commit: %v", err)
		}
		if got := readAll(t, d, dgst); !bytes.Equal(got, b) {
			t.Errorf("it reads as %d other bytes", len(got))
		}
		if got := d.Usage(); got.PartialBytes != 0 || got.Bytes != int64(len(b)) {
			t.Errorf("after Commit, usage is %+v", got)
		}
		if _, err := p.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Write after Commit = %v, want fs.ErrClosed", err)
		}
		wantFile(t, openReader(t, p), b)
	}
}

func TestPartialOfTheEmptyBlob(t *testing.T) {
	d := openDir(t, t.TempDir(), blobstore.DirConfig{})
	dgst := digest.FromBytes(nil)
	if err := openPartial(t, d, dgst).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !stored(t, d, dgst) {
		t.Error("it is not stored")
	}
}

func TestPartialWithAWrongByteIsNotStoredAndCanStartOver(t *testing.T) {
	d := openDir(t, t.TempDir(), blobstore.DirConfig{})
	b := content("blob", 10_000)
	wrong := bytes.Clone(b)
	wrong[len(b)-1] ^= 1
	dgst := digest.FromBytes(b)
	p := openPartial(t, d, dgst)
	write(t, p, wrong)
	for call, err := range map[string]error{"Verify": p.Verify(), "Commit": p.Commit(t.Context())} {
		if !errors.Is(err, blobstore.ErrDigestMismatch) {
			t.Errorf("%s = %v, want ErrDigestMismatch", call, err)
		}
	}
	if stored(t, d, dgst) {
		t.Error("the wrong bytes are stored")
	}
	early := openReader(t, p)
	if err := p.Reset(); err != nil {
		t.Fatal(err)
	}
	if p.Size() != 0 || d.Usage().PartialBytes != 0 {
		t.Errorf("after Reset, %d bytes, usage %+v", p.Size(), d.Usage())
	}
	write(t, p, b)
	wantFile(t, early, wrong) // whole, not cut off nor mixed with new bytes
	if err := p.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, d, dgst); !bytes.Equal(got, b) {
		t.Error("the blob has other bytes")
	}
}

func TestPartialResumesAfterCloseAndAfterARestart(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	b := content("blob", 900_000)
	dgst := digest.FromBytes(b)
	p := openPartial(t, d, dgst)
	write(t, p, b[:300_000])
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = openPartial(t, d, dgst)
	if p.Size() != 300_000 {
		t.Fatalf("resumed at %d, want 300000", p.Size())
	}
	wantFile(t, openReader(t, p), b[:300_000])
	write(t, p, b[300_000:600_000])
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	closeDir(t, d)

	d = openDir(t, path, blobstore.DirConfig{})
	if got := d.Usage().PartialBytes; got != 600_000 {
		t.Errorf("after the restart, partials have %d bytes", got)
	}
	p = openPartial(t, d, dgst)
	if p.Size() != 600_000 {
		t.Fatalf("resumed at %d, want 600000", p.Size())
	}
	write(t, p, b[600_000:])
	if err := p.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, d, dgst); !bytes.Equal(got, b) {
		t.Error("the blob has other bytes")
	}
}

func TestPartialCompleteButNotCommittedIsVerifiedOnResume(t *testing.T) {
	d := openDir(t, t.TempDir(), blobstore.DirConfig{})
	b := content("blob", 5000)
	p := openPartial(t, d, digest.FromBytes(b))
	write(t, p, b)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openPartial(t, d, digest.FromBytes(b)).Commit(t.Context()); err != nil {
		t.Errorf("Commit without another Write: %v", err)
	}
}

// A crash may lose bytes that were not synced, or leave others in their place.
func TestPartialDamagedByACrashIsNoticed(t *testing.T) {
	b := content("blob", 5000)
	dgst := digest.FromBytes(b)
	for name, c := range map[string]struct {
		damage func(file string) error
		size   int64
		want   error
	}{
		"tail lost": {func(file string) error { return os.Truncate(file, 3000) }, 3000, nil},
		"tail zero": {func(file string) error {
			if err := os.Truncate(file, 3000); err != nil {
				return err
			}
			return os.Truncate(file, 4000)
		}, 4000, blobstore.ErrDigestMismatch},
		"all lost": {os.Remove, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			d := openDir(t, path, blobstore.DirConfig{})
			p := openPartial(t, d, dgst)
			write(t, p, b[:4000])
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(path, "spool", "*"+dgst.Encoded()+"*"))
			if err != nil || len(files) != 1 {
				t.Fatalf("partials: %v, %v", files, err)
			}
			if err := c.damage(files[0]); err != nil {
				t.Fatal(err)
			}
			p = openPartial(t, d, dgst)
			if p.Size() != c.size || d.Usage().PartialBytes != c.size {
				t.Fatalf("resumed at %d, usage %+v; want %d", p.Size(), d.Usage(), c.size)
			}
			write(t, p, b[c.size:])
			if err := p.Commit(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("Commit = %v, want %v", err, c.want)
			}
		})
	}
}

func TestPartialOfADigestIsOpenOnce(t *testing.T) {
	d := openDir(t, t.TempDir(), blobstore.DirConfig{})
	dgst := digest.FromString("blob")
	for _, end := range []func(*blobstore.Partial) error{
		func(p *blobstore.Partial) error { return p.Close() },
		func(p *blobstore.Partial) error { return p.Discard() },
		func(p *blobstore.Partial) error { return p.Commit(t.Context()) },
	} {
		p := openPartial(t, d, dgst)
		if err := p.Reset(); err != nil {
			t.Fatal(err)
		}
		write(t, p, []byte("blob"))
		if _, err := d.Partial(t.Context(), dgst); !errors.Is(err, blobstore.ErrPartialOpen) {
			t.Errorf("the second Partial = %v, want ErrPartialOpen", err)
		}
		if err := openPartial(t, d, digest.FromString("another")).Close(); err != nil {
			t.Errorf("of another digest: %v", err)
		}
		if err := end(p); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Close(), p.Discard()); err != nil {
			t.Errorf("ending it again: %v", err)
		}
	}
	_ = openPartial(t, d, dgst)
	if _, err := d.Partial(t.Context(), "sha256:.."); !errors.Is(err, blobstore.ErrInvalidDigest) {
		t.Errorf("Partial of a malformed digest = %v, want ErrInvalidDigest", err)
	}
}

func TestPartialAndPutOfOneDigestDoNotDisturbEachOther(t *testing.T) {
	d := openDir(t, t.TempDir(), blobstore.DirConfig{})
	b := content("blob", 10_000)
	dgst := digest.FromBytes(b)
	p := openPartial(t, d, dgst)
	write(t, p, b[:5000])
	put(t, d, b)
	write(t, p, b[5000:])
	if err := p.Commit(t.Context()); err != nil {
		t.Errorf("Commit of what is stored already: %v", err)
	}
	if got := d.Usage(); got != (blobstore.Usage{Bytes: 10_000, Blobs: 1}) {
		t.Errorf("usage %+v, want the blob once", got)
	}
	wantFile(t, openReader(t, p), b)
}

func TestPartialReadersOutliveIt(t *testing.T) {
	b := content("blob", 10_000)
	dgst := digest.FromBytes(b)
	for name, end := range map[string]func(*blobstore.Dir, *blobstore.Partial) error{
		"Commit":  func(_ *blobstore.Dir, p *blobstore.Partial) error { return p.Commit(t.Context()) },
		"Reset":   func(_ *blobstore.Dir, p *blobstore.Partial) error { return p.Reset() },
		"Discard": func(_ *blobstore.Dir, p *blobstore.Partial) error { return p.Discard() },
		"Close":   func(_ *blobstore.Dir, p *blobstore.Partial) error { return p.Close() },
		"Delete": func(d *blobstore.Dir, p *blobstore.Partial) error {
			return errors.Join(p.Commit(t.Context()), d.Delete(t.Context(), dgst))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := openDir(t, t.TempDir(), blobstore.DirConfig{})
			p := openPartial(t, d, dgst)
			write(t, p, b[:2000])
			first, second := openReader(t, p), openReader(t, p)
			wantFile(t, first, b[:2000])
			write(t, p, b[2000:])
			if err := end(d, p); err != nil {
				t.Fatal(err)
			}
			wantFile(t, first, b[2000:]) // goes on where it was
			wantFile(t, second, b)       // independent of the first
			if name == "Discard" || name == "Close" {
				if _, err := p.OpenReader(); !errors.Is(err, fs.ErrClosed) {
					t.Errorf("OpenReader = %v, want fs.ErrClosed", err)
				}
			}
			if name == "Delete" {
				if _, err := p.OpenReader(); !errors.Is(err, blobstore.ErrNotExist) {
					t.Errorf("OpenReader = %v, want ErrNotExist", err)
				}
			}
		})
	}
}

// Late joiners open readers while the writer writes, commits and is done.
func TestPartialGivesReadersThroughItsCommit(t *testing.T) {
	d := openDir(t, t.TempDir(), blobstore.DirConfig{})
	for round := range 20 {
		b := content(string(rune('a'+round)), 50_000)
		p := openPartial(t, d, digest.FromBytes(b))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for p.Size() < int64(len(b)) || !stored(t, d, digest.FromBytes(b)) {
					f, err := p.OpenReader()
					if err != nil {
						t.Errorf("OpenReader: %v", err)
						return
					}
					size := p.Size()
					got, err := io.ReadAll(io.LimitReader(f, size))
					if err != nil || !bytes.Equal(got, b[:size]) {
						t.Errorf("a reader gets %d bytes of %d, %v", len(got), size, err)
					}
					_ = f.Close()
				}
			})
		}
		for i := 0; i < len(b); i += 5000 {
			write(t, p, b[i:i+5000])
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

func TestPartialsUnusedForLongAreRemovedAtOpen(t *testing.T) {
	path, now := t.TempDir(), newClock()
	cfg := blobstore.DirConfig{Now: now.Now, PartialTTL: time.Hour}
	d := openDir(t, path, cfg)
	p := openPartial(t, d, digest.FromString("blob"))
	write(t, p, []byte("bl"))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	now.advance(59 * time.Minute)
	closeDir(t, d)
	d = openDir(t, path, cfg)
	if got := d.Usage().PartialBytes; got != 2 {
		t.Errorf("after 59 minutes %d bytes are left, want 2", got)
	}
	closeDir(t, d)
	now.advance(2 * time.Minute)
	d = openDir(t, path, cfg)
	if got := d.Usage().PartialBytes; got != 0 {
		t.Errorf("after 61 minutes %d bytes are left, want none", got)
	}
	if left, err := filepath.Glob(filepath.Join(path, "spool", "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
}

func TestEmptyPartialLeavesNothing(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	if err := openPartial(t, d, digest.FromString("blob")).Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(path, "spool", "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
}
