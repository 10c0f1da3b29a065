package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Record returns a value; see [Records].
func (d *Dir) Record(_ context.Context, key string) ([]byte, error) {
	path, err := d.recordFile(key)
	if err != nil {
		return nil, err
	}
	value, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("record %q: %w", key, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("reading record %q: %w", key, recordError(err))
	}
	return value, nil
}

// PutRecord sets a value; see [Records].
func (d *Dir) PutRecord(ctx context.Context, key string, value []byte) error {
	path, err := d.recordFile(key)
	if err != nil {
		return err
	}
	if len(value) > MaxRecordSize {
		return fmt.Errorf("record %q has %d bytes, more than the %d allowed", key, len(value), MaxRecordSize)
	}
	if err := errors.Join(ctx.Err(), d.writable()); err != nil {
		return fmt.Errorf("storing record %q: %w", key, err)
	}
	if err := d.withRoom(func() error { return d.writeRecord(path, value) }); err != nil {
		return fmt.Errorf("storing record %q: %w", key, recordError(err))
	}
	return nil
}

func (d *Dir) writeRecord(path string, value []byte) error {
	file, err := d.spool.create()
	if err != nil {
		return err
	}
	_, err = file.Write(value)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = d.placeRecord(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name()) // the next open removes what is left
	}
	return err
}

// placeRecord moves a record to its place. Many can be moved at a time, but
// into a directory only after whoever made that has made it durable.
func (d *Dir) placeRecord(from, to string) error {
	err := d.moveRecord(from, to)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.recordNames.Lock()
	defer d.recordNames.Unlock()
	return renameDurable(from, to)
}

// moveRecord moves a record into a directory that is there.
func (d *Dir) moveRecord(from, to string) error {
	d.recordNames.RLock()
	defer d.recordNames.RUnlock()
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// DeleteRecord removes a record; see [Records].
func (d *Dir) DeleteRecord(_ context.Context, key string) error {
	path, err := d.recordFile(key)
	if err != nil {
		return err
	}
	if err := d.writable(); err != nil {
		return fmt.Errorf("deleting record %q: %w", key, err)
	}
	d.recordNames.Lock()
	defer d.recordNames.Unlock()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting record %q: %w", key, recordError(err))
	}
	// The directories that are empty now go too; the first that is not ends it.
	for dir := filepath.Dir(path); dir != d.recordsDir(); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break
		}
	}
	return nil
}

// RecordKeys lists keys; see [Records].
func (d *Dir) RecordKeys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		keys, err := d.recordKeys(ctx, prefix)
		if err != nil {
			yield("", fmt.Errorf("listing records below %q: %w", prefix, err))
			return
		}
		for _, key := range keys {
			if !yield(key, nil) {
				return
			}
		}
	}
}

// recordKeys collects before it sorts: "a-b" comes before "a/b" in the order
// of bytes, though the directory a comes before the file a-b~.
func (d *Dir) recordKeys(ctx context.Context, prefix string) ([]string, error) {
	if prefix != "" {
		if err := checkKey(prefix); err != nil {
			return nil, err
		}
	}
	var keys []string
	root := d.recordsDir()
	err := filepath.WalkDir(filepath.Join(root, recordDir(prefix)), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // there is nothing below, or it was deleted meanwhile
		}
		if err != nil {
			return recordError(err)
		}
		if entry.IsDir() {
			return ctx.Err()
		}
		if key, ok := recordKey(strings.TrimPrefix(path, root+"/")); ok {
			keys = append(keys, key)
		}
		return nil
	})
	slices.Sort(keys)
	return keys, err
}

func (d *Dir) recordsDir() string { return filepath.Join(d.path, "records") }

// recordFile is the path of a record. Errors: ErrInvalidKey.
func (d *Dir) recordFile(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	return filepath.Join(d.recordsDir(), recordPath(key)), nil
}

// recordError adds the store's meaning to an error of the file system.
func recordError(err error) error {
	if errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("%w: too long a path: %w", ErrInvalidKey, err)
	}
	return noSpace(err)
}
