package blobstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// preallocate makes room for length bytes of file at offset, without making it
// longer.
func preallocate(file *os.File, offset, length int64) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, offset, length)
	})
	return errors.Join(err, failed)
}
