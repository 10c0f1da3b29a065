package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/opencontainers/go-digest"
)

// Adopt stores a file as a blob, after its content was found to have the
// digest, by moving it: content that was received elsewhere on the disk is not
// written twice. Nobody writes the file meanwhile. On success it is gone, also
// when the blob was stored already; after an error it is where it was. A file
// on another file system is copied. Errors: ErrDigestMismatch,
// ErrInvalidDigest, ErrNoSpace.
func (d *Dir) Adopt(ctx context.Context, dgst digest.Digest, path string) error {
	s, err := parseDigest(dgst)
	if err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), d.writable()); err != nil {
		return fmt.Errorf("adopting blob %s: %w", dgst, err)
	}
	if err := d.adopt(ctx, &s, path); err != nil {
		return fmt.Errorf("adopting %s as blob %s: %w", path, dgst, err)
	}
	return nil
}

func (d *Dir) adopt(ctx context.Context, s *sum, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close() // read from only
	size, err := d.verifyFile(ctx, s, file)
	if err != nil {
		return err
	}
	if err := d.reserve(size); err != nil {
		return err
	}
	err = d.commit(s, file, size)
	if err == nil {
		return nil
	}
	d.release(size)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := d.Put(ctx, s.digest(), size, file); err != nil {
		return err
	}
	return os.Remove(path)
}

// verifyFile says whether a file, from its start, has a digest, and its size.
// Errors: ErrDigestMismatch.
func (d *Dir) verifyFile(ctx context.Context, s *sum, file *os.File) (size int64, err error) {
	buffer := d.buffer()
	defer d.buffers.Put(buffer)
	h := s.newHash()
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := file.Read(*buffer)
		h.Write((*buffer)[:n])
		size += int64(n)
		if err == io.EOF {
			return size, matches(s, h, size)
		}
		if err != nil {
			return 0, err
		}
	}
}
