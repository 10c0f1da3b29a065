package harness

import (
	"context"
	"errors"
	"os"
	"testing"
)

func TestScopeUndoesEverythingWhenItFails(t *testing.T) {
	var dir string
	var undone []int
	err := Run(t.Context(), "scope", func(t testing.TB) {
		dir = t.TempDir()
		t.Cleanup(func() { undone = append(undone, 1) })
		t.Cleanup(func() { undone = append(undone, 2) })
		t.(*scope).fail(context.Canceled)
		t.Cleanup(func() { undone = append(undone, 3) })
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got the error %v, want that of Fatalf", err)
	}
	if len(undone) != 2 || undone[0] != 2 || undone[1] != 1 {
		t.Errorf("undone in the order %v, want the last first", undone)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestMissingProgramIsAReasonAndNotAFailure(t *testing.T) {
	path, missing := Program(t, func(t testing.TB) string {
		t.Skipf("no such program: %s", "it")
		return "/bin/it"
	})
	if path != "" || missing != "no such program: it" {
		t.Errorf("got the path %q and the reason %q", path, missing)
	}
}
