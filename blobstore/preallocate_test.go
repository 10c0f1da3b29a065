package blobstore

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// allocated is how much of the disk a file has, in bytes.
func allocated(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// needPreallocation skips where the file system has no such thing.
func needPreallocation(t *testing.T, dir string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := preallocate(file, 0, allocationLeast); err != nil {
		t.Skipf("the file system of %s makes no room ahead: %v", dir, err)
	}
}

func TestPartialGivesBackTheRoomItDidNotUse(t *testing.T) {
	needPreallocation(t, t.TempDir())
	const written = 1 << 20
	for name, end := range map[string]func(*testing.T, *Dir, *Partial){
		"when closed early": func(t *testing.T, _ *Dir, p *Partial) {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		},
		"at the next open after a crash": func(t *testing.T, d *Dir, _ *Partial) {
			if err := d.Close(); err != nil { // the partial stays as it is
				t.Error(err)
			}
			reopened, err := OpenDir(d.path, d.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := reopened.Close(); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := OpenDir(t.TempDir(), DirConfig{})
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			partial, err := dir.Partial(t.Context(), digest.FromString("never whole"))
			if err != nil {
				t.Fatal(err)
			}
			partial.Expect(1 << 40)
			if _, err := partial.Write(make([]byte, written)); err != nil {
				t.Fatal(err)
			}
			file := partial.file.Name()
			if got := allocated(t, file); got <= written || got > written+2*allocationStep {
				t.Errorf("%d bytes of an expected TiB have %d bytes of the disk, want up to a step more", written, got)
			}
			end(t, dir, partial)
			if got := allocated(t, file); got > 2*written {
				t.Errorf("%d bytes that are left have %d bytes of the disk", written, got)
			}
		})
	}
}

func TestBlobTakesNoMoreRoomThanItsBytesWhateverWasExpected(t *testing.T) {
	dir, err := OpenDir(t.TempDir(), DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	content := make([]byte, 2<<20)
	for _, expected := range []int64{-1, 0, 1, int64(len(content)), 100 << 20} {
		content[0]++
		want := digest.FromBytes(content)
		partial, err := dir.Partial(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		partial.Expect(expected)
		for rest := content; len(rest) > 0; rest = rest[1<<19:] {
			if _, err := partial.Write(rest[:1<<19]); err != nil {
				t.Fatal(err)
			}
		}
		if err := partial.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := allocated(t, dir.blobFile(want)); got > int64(len(content))+1<<19 {
			t.Errorf("expecting %d bytes, a blob of %d has %d bytes of the disk", expected, len(content), got)
		}
	}
}
