package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// TouchRecord notes that a record is in use: see [Dir.TrimRecords]. One that is not
// there is left alone.
func (d *Dir) TouchRecord(key string) error {
	path, err := d.recordFile(key)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("touching record %q: %w", key, recordError(err))
	}
	return nil
}

// trimmedTo is to which part of what they may be records are trimmed, so that it is
// not done again at once.
const trimmedTo = 0.9

// TrimRecords deletes records below a prefix, where there are more than most: those
// that were written or touched longest ago, but none that is spared. It returns how
// many there are then, and how many it deleted. It holds a time for each record in
// memory, and no key.
func (d *Dir) TrimRecords(ctx context.Context, prefix string, most int, spare func(key string) bool) (left, deleted int, err error) {
	walk := func(record func(key string, modified int64) error) error { return d.walkRecords(ctx, prefix, record) }
	return trim(walk, most, spare, func(key string) error { return d.DeleteRecord(ctx, key) })
}

// trim walks records twice, and removes the oldest where there are more than most.
func trim(walk func(record func(key string, modified int64) error) error, most int, spare func(key string) bool, remove func(key string) error) (left, deleted int, err error) {
	var times []int64
	err = walk(func(_ string, modified int64) error {
		times = append(times, modified)
		return nil
	})
	if err != nil || len(times) <= most {
		return len(times), 0, err
	}
	slices.Sort(times)
	excess := len(times) - int(trimmedTo*float64(most))
	newest := times[excess-1] // of those to be deleted
	err = walk(func(key string, modified int64) error {
		if modified > newest || deleted == excess || spare(key) {
			return nil
		}
		deleted++
		return remove(key)
	})
	return len(times) - deleted, deleted, err
}

// walkRecords calls a function with each record below a prefix, and when it was
// modified, in nanoseconds since 1970.
func (d *Dir) walkRecords(ctx context.Context, prefix string, record func(key string, modified int64) error) error {
	if err := checkKey(prefix); err != nil {
		return err
	}
	root := d.recordsDir()
	err := filepath.WalkDir(filepath.Join(root, recordDir(prefix)), func(path string, entry fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil && !entry.IsDir() {
			info, err = entry.Info()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // there is nothing below, or it was deleted meanwhile
			return nil
		case err != nil:
			return recordError(err)
		case entry.IsDir():
			return ctx.Err()
		}
		if key, ok := recordKey(strings.TrimPrefix(path, root+"/")); ok {
			return record(key, info.ModTime().UnixNano())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("walking the records below %q: %w", prefix, err)
	}
	return nil
}
