package blobstore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// /dev/full takes writes as a full disk does.
func TestFullDiskIsErrNoSpaceAndLeavesTheBooksRight(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(t.TempDir(), DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p, err := d.Partial(t.Context(), digest.FromString("blob"))
	if err != nil {
		t.Fatal(err)
	}
	disk := p.file
	p.file = full
	n, err := p.Write([]byte("blob"))
	if n != 0 || !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write = %d, %v; want ErrNoSpace because of ENOSPC", n, err)
	}
	if d.Usage().PartialBytes != 0 || d.used.Load() != 0 {
		t.Errorf("after it, usage is %+v, %d in all", d.Usage(), d.used.Load())
	}
	// When there is space again, it goes on.
	p.file = disk
	if _, err := p.Write([]byte("blob")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Commit(t.Context()), full.Close()); err != nil {
		t.Error(err)
	}
}

func TestNoSpaceKeepsOtherErrors(t *testing.T) {
	for err, want := range map[error]bool{
		&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}: true,
		fmt.Errorf("a quota: %w", syscall.EDQUOT):                  true,
		syscall.EIO: false,
	} {
		got := noSpace(err)
		if errors.Is(got, ErrNoSpace) != want || !errors.Is(got, err) || !strings.Contains(got.Error(), err.Error()) {
			t.Errorf("noSpace(%v) = %v", err, got)
		}
	}
	if noSpace(nil) != nil {
		t.Error("noSpace(nil) is an error")
	}
}
