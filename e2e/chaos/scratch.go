package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// scratchPrefix is what the directories of runs are called, with the number of the
// process after it.
const scratchPrefix = "entrepot-chaos-"

// makeScratch has all temporary files of this process, and of those that it starts, in
// a directory of its own, and removes what runs have left there that were killed.
func makeScratch() (remove func(), err error) {
	parent := os.TempDir()
	old, err := filepath.Glob(filepath.Join(parent, scratchPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range old {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), scratchPrefix))
		if err != nil {
			continue // not ours
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); os.IsNotExist(err) {
			if err := os.RemoveAll(dir); err != nil {
				return nil, fmt.Errorf("removing what a run has left: %w", err)
			}
		}
	}
	dir := filepath.Join(parent, scratchPrefix+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return func() { _ = os.RemoveAll(dir) }, os.Setenv("TMPDIR", dir) // it would be removed the next time
}
