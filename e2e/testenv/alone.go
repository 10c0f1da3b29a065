package testenv

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// alone tells the second process of a test that it is on a machine of its own.
const alone = "ENTREPOT_TEST_ALONE"

// Alone gives a test a machine of its own, where every port is free and nothing can
// be reached but what the test starts: it runs the test once more, in a process whose
// network, mounts and processes nobody else sees, and which end with it. There Alone
// is true; for the test that was asked to run it is false, and nothing is left to do.
//
// What comes from elsewhere is had before, by prepare, which returns what the second
// process is to find in its environment.
func Alone(t *testing.T, prepare func() (env []string)) bool {
	t.Helper()
	if os.Getenv(alone) != "" {
		if err := SettleAlone(); err != nil {
			t.Fatalf("settling on a machine of its own: %v", err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		Missing(t, "a network namespace takes root")
	}
	run := "^" + t.Name() + "$"
	if asked := flag.Lookup("test.run").Value.String(); strings.Contains(asked, "/") {
		run = asked // for a part of it
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", run, "-test.v", "-test.timeout", "10m")
	cmd.Env = append(append(os.Environ(), alone+"=1"), prepare()...)
	cmd.SysProcAttr = AloneAttr()
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("on a machine of its own: %v", err)
	}
	return false
}

// AloneAttr are the attributes of a process that is to be on a machine of its own, for
// who is no test: it has to call [SettleAlone] first. When it ends, however it does, the
// kernel ends what it started and takes its network and mounts away. It takes root.
func AloneAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
}

// SettleAlone makes the namespaces of [AloneAttr] a machine: mounts stay in it, /proc
// shows its processes, and loopback is up.
func SettleAlone() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts to ourselves: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return raiseLoopback()
}

// LayOver has what is written below directories of a machine of one's own ("etc") be
// gone with it.
func LayOver(dirs ...string) error {
	scratch, err := os.MkdirTemp("", "alone-")
	if err != nil {
		return err
	}
	// In memory, because an overlay cannot be written over another one.
	if err := unix.Mount("alone", scratch, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting a scratch: %w", err)
	}
	for _, dir := range dirs {
		upper, work := filepath.Join(scratch, dir, "upper"), filepath.Join(scratch, dir, "work")
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount("overlay", "/"+dir, "overlay", 0, fmt.Sprintf("lowerdir=/%s,upperdir=%s,workdir=%s", dir, upper, work)); err != nil {
			return fmt.Errorf("laying over /%s: %w", dir, err)
		}
	}
	return nil
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
