package blobstore_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

func TestDirAdoptMovesAVerifiedFileIntoTheStore(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	d, err := blobstore.OpenDir(filepath.Join(place, "store"), blobstore.DirConfig{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	content := randomBytes(100_000)
	received := filepath.Join(place, "received")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(received, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantUsage := func(bytes int64) {
		t.Helper()
		if got := d.Usage(); got.Bytes != bytes || got.PartialBytes != 0 {
			t.Errorf("the store accounts for %+v, want %d bytes and no partial ones", got, bytes)
		}
	}

	write(content)
	wrong := digest.FromString("something else")
	if err := d.Adopt(t.Context(), wrong, received); !errors.Is(err, blobstore.ErrDigestMismatch) {
		t.Errorf("adopting wrong content: %v, want ErrDigestMismatch", err)
	}
	if _, err := d.Stat(t.Context(), wrong); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("after it, Stat: %v, want ErrNotExist", err)
	}
	if got, err := os.ReadFile(received); err != nil || len(got) != len(content) {
		t.Errorf("after it, the file has %d bytes, %v", len(got), err)
	}
	wantUsage(0)

	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		write(content)
		want := algorithm.FromBytes(content)
		for range 2 { // the second time it is there already
			write(content)
			if err := d.Adopt(t.Context(), want, received); err != nil {
				t.Fatalf("Adopt: %v", err)
			}
			if _, err := os.Stat(received); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is still there: %v", err)
			}
		}
		info, err := d.Stat(t.Context(), want)
		if err != nil || info.Size != int64(len(content)) {
			t.Errorf("Stat: %+v, %v", info, err)
		}
	}
	wantUsage(2 * int64(len(content)))
	if err := d.Adopt(t.Context(), wrong, received); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("adopting no file: %v, want fs.ErrNotExist", err)
	}
}
