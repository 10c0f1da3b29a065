package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"
)

// insideVariable tells this program that it runs for the second time, on a machine of
// its own: with a network that no packet leaves, and that the kernel takes away with
// all processes when the program ends, however it does.
const insideVariable = "ENTREPOT_CHAOS_INSIDE"

// tryCables is its value where the program is only to say whether that works.
const tryCables = "try"

func isInside() bool { return os.Getenv(insideVariable) != "" }

// settle makes the machine usable, and says why not. It ends the program where there
// was nothing else to do.
func settle() (why string) {
	err := testenv.SettleAlone()
	if os.Getenv(insideVariable) != tryCables {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	if err == nil {
		for range 2 { // as with two seeds
			err = errors.Join(err, harness.Run(context.Background(), "cables", func(t testing.TB) {
				c := testenv.LayCables(t, "try")
				c.Cut("try", "127.0.0.1:80")
				c.Mend("try", "127.0.0.1:80")
				c.Crowd("try", 400_000)
				c.Clear("try")
			}))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return ""
}

// noMachine says why there can be no machine of its own; empty is that there can. It
// has all programs built and installed, which takes the network.
func noMachine(ctx context.Context) (why string) {
	if os.Geteuid() != 0 {
		return "network namespaces take root"
	}
	finders := []func(testing.TB) string{
		toolFinder("minio"), toolFinder("registry"), toolFinder("crane"), toolFinder("containerd"), toolFinder("ctr"),
		debianFinder("skopeo", "skopeo"), debianFinder("curl", "curl"), debianFinder("ip", "iproute2"), debianFinder("nft", "nftables"),
	}
	for _, find := range finders {
		// Who needs it tells that it is missing.
		_ = harness.Run(ctx, "program", func(t testing.TB) { find(t) })
	}
	try := secondTime(ctx, tryCables)
	if said, err := try.CombinedOutput(); err != nil {
		return fmt.Sprintf("a network namespace: %v: %s", err, said)
	}
	return ""
}

// inside runs the program once more, on a machine of its own, and returns its exit
// status.
func inside(ctx context.Context, args ...string) int {
	again := secondTime(ctx, "run", args...)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := again.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	return 0
}

// secondTime is this program, not yet started, on a machine of its own. It is asked to
// end when ctx does, and has a minute for that.
func secondTime(ctx context.Context, value string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), insideVariable+"="+value)
	cmd.SysProcAttr = testenv.AloneAttr()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	return cmd
}
