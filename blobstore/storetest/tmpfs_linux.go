package storetest

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Tmpfs gives a test a file system of size bytes, which it may fill. It skips a
// test that root does not run, and, unless CI is true, where root may not make
// one.
func Tmpfs(t *testing.T, size int64) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a small file system")
	}
	dir, err := OpenTmpfs(t, size)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return dir
}

// OpenTmpfs makes a file system of size bytes, until the test ends. It is mounted
// nowhere: the directory leads to it through an open file of this process, for
// other processes too, and nothing of it outlives this one, however that ends.
func OpenTmpfs(t testing.TB, size int64) (dir string, err error) {
	t.Helper()
	root, err := openTmpfs(size)
	if err != nil {
		return "", fmt.Errorf("making a tmpfs: %w", err)
	}
	t.Cleanup(func() {
		if err := unix.Close(root); err != nil {
			t.Errorf("closing a tmpfs: %v", err)
		}
	})
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root), nil
}

// openTmpfs opens the root of a new one.
func openTmpfs(size int64) (int, error) {
	made, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(made)
	for key, value := range map[string]string{"size": strconv.FormatInt(size, 10), "mode": "0700"} {
		if err := unix.FsconfigSetString(made, key, value); err != nil {
			return 0, err
		}
	}
	if err := unix.FsconfigCreate(made); err != nil {
		return 0, err
	}
	return unix.Fsmount(made, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}
