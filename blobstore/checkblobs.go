package blobstore

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// blobs looks at blobs/<algorithm>/<2 hex>/<hex>/data and at what else is on
// the way there.
func (c *checker) blobs(ctx context.Context) error {
	for path, err := range c.directories("blobs", "sha256", "sha512") {
		if err != nil {
			return err
		}
		for fan, err := range c.directories(path) {
			if err != nil {
				return err
			}
			if !isFan(filepath.Base(fan)) {
				c.misplaced(fan, "it is not named by two lower-case hex digits")
				continue
			}
			for blob, err := range c.directories(fan) {
				if err == nil {
					err = c.blob(ctx, blob)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// directories lists those in a directory. What else is there is misplaced, as
// is one that has none of the names, where there are some.
func (c *checker) directories(path string, names ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		entries, err := c.list(path)
		if err != nil {
			yield("", err)
			return
		}
		for _, entry := range entries {
			below := path + "/" + entry.Name()
			known := len(names) == 0
			for _, name := range names {
				known = known || name == entry.Name()
			}
			switch {
			case !known:
				c.misplaced(below, "the store keeps nothing under this name")
			case !entry.IsDir():
				c.misplaced(below, "it is not a directory")
			case !yield(below, nil):
				return
			}
		}
	}
}

func isFan(name string) bool {
	return len(name) == 2 && hexValue(name[0])|hexValue(name[1]) <= 0xf
}

// blob looks at the directory of a blob.
func (c *checker) blob(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d, ok := digestOfPath(path + "/data")
	if !ok {
		c.misplaced(path, "it is not named by a digest, or lies under other hex digits than its own")
		return nil
	}
	entries, err := c.list(path)
	if err != nil {
		return err
	}
	stored := false
	for _, entry := range entries {
		if entry.Name() != "data" {
			c.misplaced(path+"/"+entry.Name(), "the store keeps nothing under this name")
			continue
		}
		stored = true
		if err := c.data(ctx, path+"/data", d, entry); err != nil {
			return err
		}
	}
	if !stored && len(entries) == 0 {
		c.found(FoundEmpty, path, ActionRemove, "no blob is in it")
	}
	return nil
}

// data looks at a blob.
func (c *checker) data(ctx context.Context, path string, d digest.Digest, entry fs.DirEntry) error {
	if !entry.Type().IsRegular() {
		c.misplaced(path, "it is not a file")
		return nil
	}
	info, err := entry.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // evicted meanwhile
	}
	if err != nil {
		return err // of a directory that was just listed
	}
	c.report.Blobs++
	c.report.Bytes += info.Size()
	s, err := parseDigest(d)
	if err != nil {
		return err
	}
	if info.Size() == 0 && d != d.Algorithm().FromString("") {
		c.found(FoundTruncated, path, ActionQuarantine, "it is empty, and its name is not the digest of nothing")
		return nil
	}
	if c.reader == nil {
		return nil
	}
	err = c.reader.verify(ctx, &s, filepath.Join(c.root, path), info.Size())
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errGone): // evicted meanwhile, and maybe stored again
	case errors.Is(err, ErrDigestMismatch):
		c.found(FoundRotten, path, ActionQuarantine, "%v", err)
	default:
		c.found(FoundUnreadable, path, ActionQuarantine, "%v", err)
	}
	return nil
}
