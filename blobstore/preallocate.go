package blobstore

import "os"

const (
	// allocationStep is how much of the disk, in bytes, a file is given at a
	// time. It bounds what a file takes that never reaches the size that
	// somebody announced for it.
	allocationStep = 64 << 20
	// allocationLeast is the size, in bytes, from which it is worth the calls.
	allocationLeast = 1 << 20
)

// allocation gives a file that grows to a known size its room on the disk some
// way ahead of what is written. The file system then finds the blocks in a few
// large runs, where it would look for them page by page: writing costs half the
// processor time, and much less than that where the file system is busy.
//
// It is a help and no promise: where it fails, writing goes on without.
type allocation struct {
	total int64 // size that the file grows to; 0 when unknown
	ahead int64 // bytes from the start that have room
}

// cover makes room for n bytes more in a file of size bytes.
func (a *allocation) cover(file *os.File, size int64, n int) {
	end := size + int64(n)
	if end <= a.ahead || end > a.total || a.total < allocationLeast {
		return
	}
	from := max(a.ahead, size)
	a.ahead = min(a.total, end+allocationStep)
	if preallocate(file, from, a.ahead-from) != nil {
		a.total = 0 // nor will it the next time
	}
}

// trim gives back what a file of size bytes does not use of its room.
func (a *allocation) trim(file *os.File, size int64) error {
	if a.ahead <= size {
		return nil
	}
	return file.Truncate(size)
}
