package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// cost is what a command took, or several did.
type cost struct {
	wall, cpu time.Duration
	peak      int64 // bytes of resident memory of the largest process
	stdout    []byte
}

// run runs a command with a docker configuration and measures it.
func run(ctx context.Context, docker, path string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+docker)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Asked to end, so that what is interrupted leaves nothing behind.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return cost{}, fmt.Errorf("running %s: %w", path, err)
	}
	var c cost
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { c.peak = watchMemory(cmd.Process.Pid, ended) })
	err := cmd.Wait()
	c.wall = time.Since(start)
	close(ended)
	watching.Wait()
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	c.stdout = stdout.Bytes()
	if err != nil {
		return c, fmt.Errorf("running %s %s: %w\n%.4000s%.4000s", path, strings.Join(args, " "), err, stderr.Bytes(), stdout.Bytes())
	}
	return c, nil
}

// memoryEvery is how often a process is asked for its peak, which it cannot be
// when it has ended.
const memoryEvery = 5 * time.Millisecond

// watchMemory returns the most resident memory that a process has had, in
// bytes. It is not the ru_maxrss of wait4(2): a process that Go starts begins
// that with the peak of whoever started it, because until execve(2) they share
// their memory.
func watchMemory(pid int, ended <-chan struct{}) int64 {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	var peak int64
	for {
		select {
		case <-ended:
			return peak
		case <-tick.C:
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue // it has just ended
		}
		_, rest, found := strings.Cut(string(status), "\nVmHWM:")
		var kib int64
		if _, err := fmt.Sscan(rest, &kib); found && err == nil {
			peak = max(peak, kib<<10)
		}
	}
}
