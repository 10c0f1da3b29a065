package blobstore_test

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

func openPartialOf(t *testing.T, d *blobstore.Dir, id digest.Digest) *blobstore.Partial {
	t.Helper()
	p, err := d.PartialOf(t.Context(), id)
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

func TestPartialOfUnknownContentIsStoredUnderTheDigestThatItTurnsOutToHave(t *testing.T) {
	d, err := blobstore.OpenDir(t.TempDir(), blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	body := []byte("a file that is known by its name")
	id, want := digest.SHA512.FromString("its name and version"), digest.FromBytes(body)

	p := openPartialOf(t, d, id)
	write(t, p, body[:10])
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = openPartialOf(t, d, id)
	if p.Size() != 10 {
		t.Fatalf("%d bytes are left of the earlier partial, want 10", p.Size())
	}
	early := openReader(t, p)
	write(t, p, body[10:])
	if got, err := p.Digest(); err != nil || got != want {
		t.Fatalf("Digest = %s, %v; want %s", got, err, want)
	}
	if err := p.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFile(t, early, body)
	wantFile(t, openReader(t, p), body)
	f, err := d.OpenFile(want)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wantFile(t, f.File, body)
	if _, err := d.Stat(t.Context(), id); err == nil {
		t.Error("something is stored under the id")
	}
	if usage := d.Usage(); usage.PartialBytes != 0 || usage.Bytes != int64(len(body)) {
		t.Errorf("the store holds %+v, want the blob only", usage)
	}

	again := openPartialOf(t, d, digest.FromString("another name of it"))
	write(t, again, body)
	if err := again.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFile(t, openReader(t, again), body)
	if usage := d.Usage(); usage.PartialBytes != 0 || usage.Blobs != 1 {
		t.Errorf("the store holds %+v, want one blob", usage)
	}
}
