package storetest

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// tmpfsTest is the name of the test that a process was started for.
const tmpfsTest = "ENTREPOT_TMPFS_TEST"

// Tmpfs gives a test a file system of size bytes, which it may fill. It runs
// the test again in a process of its own whose mounts nobody else sees: there
// it returns the directory and true. Where it returns false, the test has been
// run and returns. It skips a test that root does not run, and, unless CI is
// true, where root may not mount.
func Tmpfs(t *testing.T, size int64) (dir string, ok bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	if os.Getenv(tmpfsTest) == t.Name() {
		return mountTmpfs(t, size), true
	}
	test := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout=5m")
	test.Env = append(os.Environ(), tmpfsTest+"="+t.Name())
	// The Go runtime makes / private in the new namespace, so that mounts do
	// not spread.
	test.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	output, err := test.CombinedOutput()
	t.Logf("%s", output)
	switch {
	case err == nil:
	case test.ProcessState == nil && os.Getenv("CI") != "true":
		t.Skipf("no mount namespace can be had: %v", err)
	default:
		t.Fatalf("in a mount namespace of its own: %v", err)
	}
	return "", false
}

func mountTmpfs(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+strconv.FormatInt(size, 10))
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("mounting a tmpfs: %v", err)
	default:
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}
