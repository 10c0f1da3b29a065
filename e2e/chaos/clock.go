package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"entrepot/e2e/internal/harness"
)

// clocks steps the wall clock of processes while they run. The binary is built
// with a time.Now of its own, by an overlay of the standard library: all of the
// program has the time that it gives, and the program has no line for it. The
// monotonic clock is left alone, as it is when a machine's clock is set.
type clocks struct {
	binary string
	dir    string
}

// clockVariable names the file with the seconds that a process's clock is ahead, 8
// bytes in the order of the processor.
const clockVariable = "ENTREPOT_CHAOS_CLOCK"

// clockSource is what time.Now adds. It maps the file, so that to read the clock
// still costs no system call.
const clockSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var chaosAhead = func() *int64 {
	if name, ok := syscall.Getenv("` + clockVariable + `"); ok {
		if fd, err := syscall.Open(name, syscall.O_RDONLY, 0); err == nil {
			defer syscall.Close(fd)
			if page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED); err == nil {
				return (*int64)(unsafe.Pointer(&page[0]))
			}
		}
	}
	return new(int64)
}()

func chaosSeconds() int64 { return atomic.LoadInt64(chaosAhead) }
`

func newClocks(t testing.TB, flags []string) *clocks {
	t.Helper()
	c := &clocks{dir: t.TempDir()}
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("asking for GOROOT: %v", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	now, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		t.Fatalf("reading the standard library: %v", err)
	}
	const read = "sec, nsec, mono := runtimeNow()\n"
	if n := strings.Count(string(now), read); n == 0 {
		t.Fatalf("this Go's time.Now does not have %q", read)
	}
	text := strings.ReplaceAll(string(now), read, read+"\tsec += chaosSeconds()\n")
	overlay := fmt.Sprintf(`{"Replace": {%q: %q, %q: %q}}`,
		filepath.Join(source, "time.go"), c.file(t, "time.go", text),
		filepath.Join(source, "chaos.go"), c.file(t, "chaos.go", clockSource))
	c.binary = harness.BuildEntrepot(t, append(slices.Clone(flags), "-overlay", c.file(t, "overlay.json", overlay))...)
	return c
}

func (c *clocks) file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatalf("preparing a clock: %v", err)
	}
	return path
}

// env gives a process a clock that is right.
func (c *clocks) env(t testing.TB, process string) []string {
	t.Helper()
	return []string{clockVariable + "=" + c.file(t, process+".clock", strings.Repeat("\x00", 8))}
}

// step sets by how many seconds a process's clock is ahead.
func (c *clocks) step(t testing.TB, process string, seconds int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(c.dir, process+".clock"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write(binary.NativeEndian.AppendUint64(nil, uint64(seconds)))
		_ = f.Close()
	}
	if err != nil {
		t.Errorf("stepping the clock of %s: %v", process, err)
	}
}
