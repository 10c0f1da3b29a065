package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BuildEntrepot builds the binary as `make build` does.
func BuildEntrepot(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "entrepot")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, "entrepot/cmd/entrepot")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building entrepot: %v\n%s", err, output)
	}
	return binary
}
