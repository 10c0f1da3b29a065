package blobstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

const (
	// maxPartBuffers bounds the buffers of cfg.PartSize in use at once. Put
	// waits for one when its content comes as a stream.
	maxPartBuffers = 4
	// maxOwnBuffer is the size, in bytes, up to which a Put of known size
	// takes a buffer of just that size, and waits for nobody: manifests.
	maxOwnBuffer = 1 << 20
	// maxParts is the most that S3 puts together.
	maxParts = 10_000
)

// Put stores what r gives; see [Store]. Content that can be read at any place,
// as files and what is in memory can, is read twice: it is verified before
// anything is sent, and then sent without a buffer. Other content is held in
// memory part by part.
func (s *S3) Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) error {
	want, err := parseDigest(d)
	if err != nil {
		return err
	}
	if _, err := s.stat(ctx, d); err == nil {
		return nil
	} else if !errors.Is(err, ErrNotExist) {
		return fmt.Errorf("storing blob %s: asking whether it is there: %w", d, err)
	}
	if at, offset, length, ok := seekable(r); ok {
		err = s.putSeekable(ctx, &want, size, at, offset, length)
	} else {
		err = s.putStream(ctx, &want, size, r)
	}
	if err != nil {
		return fmt.Errorf("storing blob %s: %w", d, err)
	}
	return nil
}

// seekable says whether content can be read more than once, and what of it is
// still to be read: length bytes from offset.
func seekable(r io.Reader) (at io.ReaderAt, offset, length int64, ok bool) {
	at, canReadAt := r.(io.ReaderAt)
	seeker, canSeek := r.(io.Seeker)
	if !canReadAt || !canSeek {
		return nil, 0, 0, false
	}
	offset, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, 0, 0, false // a pipe is an *os.File, too
	}
	end, err := seeker.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, 0, false
	}
	if _, err := seeker.Seek(offset, io.SeekStart); err != nil || end < offset {
		return nil, 0, 0, false
	}
	return at, offset, end - offset, true
}

// piece is content that is sent in one request: size bytes at an offset.
type piece struct {
	at     io.ReaderAt
	offset int64
	size   int64
	sum    [sha256.Size]byte // which the server compares with what it receives
}

// putSeekable stores length bytes of at from offset.
func (s *S3) putSeekable(ctx context.Context, want *sum, size int64, at io.ReaderAt, offset, length int64) error {
	if size >= 0 && size != length {
		return fmt.Errorf("%w: %d bytes, want %d", ErrSizeMismatch, length, size)
	}
	partSize := max(s.cfg.PartSize, (length+maxParts-1)/maxParts)
	in := &content{ctx: ctx, r: io.NewSectionReader(at, offset, length), hash: want.newHash(), size: length}
	var pieces []piece
	for from := int64(0); from == 0 || from < length; from += partSize {
		p := piece{at: at, offset: offset + from, size: min(partSize, length-from)}
		partHash := sha256.New()
		if n, err := io.Copy(partHash, io.LimitReader(in, p.size)); err != nil {
			return err
		} else if n != p.size { // a file that was cut meanwhile
			return fmt.Errorf("%w: %d bytes, want %d", ErrSizeMismatch, from+n, length)
		}
		partHash.Sum(p.sum[:0])
		pieces = append(pieces, p)
	}
	if err := matches(want, in.hash, in.read); err != nil {
		return err
	}
	key := s.blobKey(want.digest())
	if len(pieces) == 1 {
		return s.putObject(ctx, key, pieces[0])
	}
	return s.putParts(ctx, key, func(add func(piece) error) error {
		for _, p := range pieces {
			if err := add(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// putStream stores content that can be read once.
func (s *S3) putStream(ctx context.Context, want *sum, size int64, r io.Reader) error {
	if size > maxParts*s.cfg.PartSize {
		return fmt.Errorf("%d bytes are more than %d parts of %d bytes", size, maxParts, s.cfg.PartSize)
	}
	buffer, release, err := s.buffer(ctx, size)
	if err != nil {
		return err
	}
	defer release()
	in := &content{ctx: ctx, r: r, hash: want.newHash(), size: size}
	first, last, err := in.piece(buffer)
	if err != nil {
		return err
	}
	key := s.blobKey(want.digest())
	if last {
		if err := in.verify(want); err != nil {
			return err
		}
		return s.putObject(ctx, key, first)
	}
	return s.putParts(ctx, key, func(add func(piece) error) error {
		next := first
		for count := 1; ; count++ {
			if next.size > 0 { // else the content ended with the piece before
				if err := add(next); err != nil {
					return err
				}
			}
			if last {
				return in.verify(want)
			}
			if count == maxParts {
				return fmt.Errorf("more than %d parts of %d bytes", maxParts, s.cfg.PartSize)
			}
			if next, last, err = in.piece(buffer); err != nil {
				return err
			}
		}
	})
}

// buffer is memory for content of a size, or for a part of it.
func (s *S3) buffer(ctx context.Context, size int64) (buffer []byte, release func(), err error) {
	if 0 <= size && size <= maxOwnBuffer {
		return make([]byte, size+1), func() {}, nil // one more, to see the end
	}
	select {
	case s.bufferSlots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("waiting for one of %d buffers: %w", maxPartBuffers, ctx.Err())
	}
	pooled, ok := s.buffers.Get().(*[]byte)
	if !ok {
		fresh := make([]byte, s.cfg.PartSize)
		pooled = &fresh
	}
	return *pooled, func() {
		s.buffers.Put(pooled)
		<-s.bufferSlots
	}, nil
}

// content reads what is to be stored, and hashes it.
type content struct {
	ctx  context.Context
	r    io.Reader
	hash hash.Hash
	size int64 // announced; negative when unknown
	read int64 // so far
}

// Read gives at most one byte more than was announced, and says what an error
// is about. Errors: ErrSizeMismatch.
func (c *content) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	if c.size >= 0 {
		p = p[:min(int64(len(p)), c.size-c.read+1)]
	}
	n, err := c.r.Read(p)
	c.hash.Write(p[:n])
	c.read += int64(n)
	if c.size >= 0 && c.read > c.size {
		return n, fmt.Errorf("%w: more than %d bytes", ErrSizeMismatch, c.size)
	}
	if ctxErr := c.ctx.Err(); ctxErr != nil {
		return n, ctxErr // whatever the reader made of it
	}
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped io.EOF is no end: see io.Reader
		err = fmt.Errorf("reading content after %d bytes: %w", c.read, err)
	}
	return n, err
}

// piece fills buffer. It reports last when the content ended; a piece that is
// not the last fills the buffer.
func (c *content) piece(buffer []byte) (p piece, last bool, err error) {
	n, err := io.ReadFull(c, buffer)
	// Read wraps errors, so that these two can only be the end's.
	last = err == io.EOF || err == io.ErrUnexpectedEOF
	if err != nil && !last {
		return piece{}, false, err
	}
	filled := buffer[:n]
	return piece{at: bytes.NewReader(filled), size: int64(n), sum: sha256.Sum256(filled)}, last, nil
}

// verify says whether all of the content was what was announced.
// Errors: ErrSizeMismatch, ErrDigestMismatch.
func (c *content) verify(want *sum) error {
	if c.size >= 0 && c.read != c.size {
		return fmt.Errorf("%w: %d bytes, want %d", ErrSizeMismatch, c.read, c.size)
	}
	return matches(want, c.hash, c.read)
}
