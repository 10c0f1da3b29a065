// Package filelock keeps processes apart by a lock on a file or folder.
package filelock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Wait takes the lock of an open file, and waits for whoever has it. It is let go of when
// the file is closed, or its process ends, however that ends.
func Wait(f *os.File) error {
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return nil
}
