package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"entrepot/blobstore/filelock"
)

// Permissions of a log in a directory: it is public, and often served by a web
// server that runs as somebody else.
const (
	dirMode  = 0o755
	fileMode = 0o644
)

// Dir keeps a log in a directory. It is made when the first object is written.
type Dir struct{ path string }

// NewDir is the storage of a log in a directory.
func NewDir(path string) *Dir { return &Dir{path: filepath.Clean(path)} }

func (d *Dir) file(path string) string { return filepath.Join(d.path, filepath.FromSlash(path)) }

// Read is [Reader].
func (d *Dir) Read(ctx context.Context, path string, known Version) ([]byte, Version, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	data, err := readFile(d.file(path), maxSize(path))
	if err != nil {
		return nil, "", fmt.Errorf("reading %s: %w", path, err)
	}
	version := Version("only")
	if !strings.HasPrefix(path, tilePrefix) { // tiles are written once
		version = hashVersion(data)
	}
	if version == known {
		return nil, "", fmt.Errorf("reading %s: %w", path, ErrNotModified)
	}
	return data, version, nil
}

func hashVersion(data []byte) Version {
	sum := sha256.Sum256(data)
	return Version(hex.EncodeToString(sum[:]))
}

// readFile reads a file of at most limit bytes. Errors: ErrNotExist, ErrCorrupt.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // below the log's directory: paths are made by tilePath, or parsed
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, tooLarge(limit)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	return data, nil
}

func tooLarge(limit int64) error {
	return fmt.Errorf("%w: it has more than the %d bytes possible", ErrCorrupt, limit)
}

// Create is [Storage].
func (d *Dir) Create(ctx context.Context, path string, data []byte) error {
	if err := d.create(ctx, path, data); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func (d *Dir) create(ctx context.Context, path string, data []byte) error {
	name := d.file(path)
	// Most often what is there already is the same: then nothing is written.
	if err := d.same(ctx, path, data); !errors.Is(err, ErrNotExist) {
		return err
	}
	temp, err := d.writeTemp(name, data)
	if err != nil {
		return err
	}
	defer os.Remove(temp) //nolint:errcheck // it is no part of the log, and sweep finds it
	// A link, unlike a rename, does not replace.
	err = os.Link(temp, name)
	if errors.Is(err, fs.ErrExist) {
		return d.same(ctx, path, data)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// same says whether an object has these bytes. Errors: ErrNotExist, ErrConflict.
func (d *Dir) same(ctx context.Context, path string, data []byte) error {
	there, _, err := d.Read(ctx, path, "")
	if err == nil && !bytes.Equal(there, data) {
		err = ErrConflict
	}
	return err
}

// Swap is [Storage].
func (d *Dir) Swap(ctx context.Context, path string, old Version, data []byte) error {
	if err := d.swap(ctx, path, old, data); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func (d *Dir) swap(ctx context.Context, path string, old Version, data []byte) error {
	name := d.file(path)
	d.sweep()
	temp, err := d.writeTemp(name, data)
	if err != nil {
		return err
	}
	defer os.Remove(temp) //nolint:errcheck // it is gone when it was renamed
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	_, now, err := d.Read(ctx, path, "")
	if err != nil && !errors.Is(err, ErrNotExist) {
		return err
	}
	if now != old {
		return ErrConflict
	}
	if err := os.Rename(temp, name); err != nil { //nolint:gosec // both are below the log's directory
		return err
	}
	return syncDir(filepath.Dir(name))
}

// lock keeps all others, of this and of other processes, from swapping. It is
// held for as long as a rename takes; a process that ends lets go of it.
func (d *Dir) lock() (unlock func(), err error) {
	f, err := os.OpenFile(d.file(".lock"), os.O_RDWR|os.O_CREATE, fileMode) //nolint:gosec // as public as the rest of the log
	if err != nil {
		return nil, err
	}
	if err := filelock.Wait(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

// Files are written in tempDir. One that is older than tempAge was left by a
// process that was killed.
const (
	tempDir = ".tmp"
	tempAge = time.Hour
)

// writeTemp writes the content of a file, whose directory it makes if need be,
// to where it can be moved from.
func (d *Dir) writeTemp(name string, data []byte) (temp string, err error) {
	for _, dir := range []string{filepath.Dir(name), d.file(tempDir)} {
		if err := mkdirDurable(dir); err != nil {
			return "", err
		}
	}
	f, err := os.CreateTemp(d.file(tempDir), "new-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(fileMode), f.Sync(), f.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name())) //nolint:gosec // below the log's directory
	}
	return f.Name(), nil
}

// sweep removes what killed processes left. What cannot be removed now is in
// nobody's way.
func (d *Dir) sweep() {
	files, err := os.ReadDir(d.file(tempDir))
	if err != nil {
		return
	}
	for _, file := range files {
		if info, err := file.Info(); err == nil && time.Since(info.ModTime()) > tempAge {
			_ = os.Remove(filepath.Join(d.file(tempDir), file.Name())) //nolint:gosec // below the log's directory
		}
	}
}

// mkdirDurable makes a directory and its missing parents, such that they
// survive a crash.
func mkdirDurable(path string) error {
	err := os.Mkdir(path, dirMode) //nolint:gosec // a log is public
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdirDurable(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, dirMode) //nolint:gosec // a log is public
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory survive a crash.
func syncDir(path string) error {
	dir, err := os.Open(path) //nolint:gosec // a directory of the log's, or of the operator's key
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
