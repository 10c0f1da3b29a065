package harness

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// Machine describes the processors and the kernel.
func Machine(t testing.TB) string {
	t.Helper()
	model := "unknown processor"
	for line := range strings.Lines(readFile(t, "/proc/cpuinfo")) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s", runtime.NumCPU(), model,
		strings.TrimSpace(readFile(t, "/proc/sys/kernel/osrelease")), runtime.Version())
}

// Load is the average of the minute before, of everything on the machine.
func Load(t testing.TB) string {
	t.Helper()
	return strings.Fields(readFile(t, "/proc/loadavg"))[0]
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("describing the machine: %v", err)
	}
	return string(data)
}
