package blobstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Permissions of what a Dir makes: blobs may be private, so that others than
// the owner are kept out.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// noSpace adds ErrNoSpace to an error of a full disk or quota.
func noSpace(err error) error {
	if diskFull(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// syncDir makes the names in a directory survive a crash.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// mkdirDurable makes a directory and its missing parents, such that they
// survive a crash.
func mkdirDurable(path string) error {
	err := os.Mkdir(path, dirMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdirDurable(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, dirMode)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// renameDurable moves a file, whose content is synced already, to its place,
// making the place's directory. After it, the file is there whatever crashes.
func renameDurable(from, to string) error {
	dir := filepath.Dir(to)
	err := mkdirDurable(dir)
	if err == nil {
		err = os.Rename(from, to)
	}
	if errors.Is(err, fs.ErrNotExist) {
		// Scrubbing from another process put aside what was in the directory, and
		// removed that just then: once, as it is empty now.
		if err = mkdirDurable(dir); err == nil {
			err = os.Rename(from, to)
		}
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}
