package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// BuildEntrepot builds the binary as `make build` does, with more flags of go build.
func BuildEntrepot(t testing.TB, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "entrepot")
	args := slices.Concat([]string{"build", "-trimpath"}, flags, []string{"-o", binary, "entrepot/cmd/entrepot"})
	build := exec.CommandContext(t.Context(), "go", args...)
	build.Env = os.Environ()
	if !slices.Contains(flags, "-race") { // which takes cgo
		build.Env = append(build.Env, "CGO_ENABLED=0")
	}
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building entrepot: %v\n%s", err, output)
	}
	return binary
}
