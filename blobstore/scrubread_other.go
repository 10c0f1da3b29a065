//go:build !linux

package blobstore

import (
	"errors"
	"os"
)

// openPastCache is not known to work here.
func openPastCache(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func notPastCache(error) bool { return false }

func pageAligned(size int) ([]byte, error) { return make([]byte, size), nil }

func freePages([]byte) {}
