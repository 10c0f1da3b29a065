package blobstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openPastCache opens a file to be read from the disk itself: so that rot shows
// that the page cache still hides, and so that reading everything does not push
// out of the cache what clients want. Not every file system can.
func openPastCache(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT|unix.O_NOFOLLOW, 0)
}

// notPastCache says that a file cannot be read in this way after all.
func notPastCache(err error) bool { return errors.Is(err, unix.EINVAL) }

// pageAligned is a buffer such as reading past the cache asks for.
func pageAligned(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

func freePages(buffer []byte) { _ = unix.Munmap(buffer) } // it is one that pageAligned gave
