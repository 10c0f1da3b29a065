package storetest

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Tmpfs gives a test a file system of size bytes, which it may fill. It is
// mounted nowhere: the directory leads to it through an open file of this
// process, for child processes too, and nothing of it outlives the process,
// however that ends. It skips a test that root does not run, and, unless CI is
// true, where root may not make one.
func Tmpfs(t testing.TB, size int64) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("only root can make a small file system")
	}
	disk, err := openTmpfs(size)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("making a tmpfs: %v", err)
	default:
		t.Skipf("making a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Close(disk); err != nil {
			t.Errorf("closing a tmpfs: %v", err)
		}
	})
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), disk)
}

// openTmpfs makes a tmpfs and opens its root.
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
