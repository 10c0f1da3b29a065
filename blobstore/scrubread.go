package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"entrepot/blobstore/pause"

	"golang.org/x/time/rate"
)

// scrubChunk is how many bytes are read at a time to see whether they are
// still right. Reading past the page cache wants large reads.
const scrubChunk = 256 << 10

// scrubSeek is how many bytes could be read in the time that it takes to find
// a file on a disk, about: a million small blobs must not get in the way of
// clients more than a few large ones do.
const scrubSeek = 64 << 10

// scrubReader reads files from the disk at a limited pace, and says whether
// they have their digest. It is used by one goroutine.
type scrubReader struct {
	pace   *rate.Limiter
	buffer []byte // aligned to pages
	read   func(n int)
}

// newScrubReader makes a reader of at most perSecond bytes a second, 0 for no
// bound, which tells read of what it has read.
func newScrubReader(perSecond int64, read func(n int)) (*scrubReader, error) {
	buffer, err := pageAligned(scrubChunk)
	if err != nil {
		return nil, fmt.Errorf("getting memory to read files with: %w", err)
	}
	limit := rate.Limit(perSecond)
	if perSecond == 0 {
		limit = rate.Inf
	}
	pace := rate.NewLimiter(limit, scrubChunk)
	return &scrubReader{pace: pace, buffer: buffer, read: read}, nil
}

func (r *scrubReader) close() { freePages(r.buffer) }

// verify says whether the file at path, of size bytes, has a digest. What does
// not is read a second time: a bit that flipped on the way is no reason to
// give up a blob. Errors: errGone, ErrDigestMismatch, and of reading.
func (r *scrubReader) verify(ctx context.Context, s *sum, path string, size int64) error {
	err := r.verifyOnce(ctx, s, path, size)
	if errors.Is(err, ErrDigestMismatch) {
		err = r.verifyOnce(ctx, s, path, size)
	}
	return err
}

func (r *scrubReader) verifyOnce(ctx context.Context, s *sum, path string, size int64) error {
	if err := r.wait(ctx, scrubSeek); err != nil {
		return err
	}
	file, err := openSized(path, size)
	if err != nil {
		return err
	}
	defer file.Close() // read from only
	if past, err := openPastCache(path); err == nil {
		defer past.Close() // read from only
		if err := r.verifyFile(ctx, s, past, size); !notPastCache(err) {
			return err
		}
	}
	return r.verifyFile(ctx, s, file, size)
}

func (r *scrubReader) verifyFile(ctx context.Context, s *sum, file *os.File, size int64) error {
	h := s.newHash()
	for done := int64(0); done < size; {
		if err := r.wait(ctx, int(min(scrubChunk, size-done))); err != nil {
			return err
		}
		n, err := file.Read(r.buffer)
		h.Write(r.buffer[:n])
		done += int64(n)
		r.read(n)
		if n == 0 && err == io.EOF {
			return fmt.Errorf("%w: %s ends after %d bytes of %d", ErrDigestMismatch, file.Name(), done, size)
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return matches(s, h, size)
}

// wait waits until n bytes may be read. The limiter's own Wait fails ahead of
// the end of a context, which must not be taken for a failure to read.
func (r *scrubReader) wait(ctx context.Context, n int) error {
	if pause.For(ctx, r.pace.ReserveN(time.Now(), n).Delay()) != nil {
		return ctx.Err()
	}
	return nil
}
