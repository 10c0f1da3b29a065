package blobstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// ErrPartialOpen says that the partial of a digest is open already: only one
// may write it.
var ErrPartialOpen = errors.New("partial is open already")

// Partial is a blob on its way into a [Dir]: bytes from its start, which
// others may read while more are written, and which are kept, when it is
// closed early or the process dies, for whoever goes on with it.
//
// One goroutine uses it at a time; Size and OpenReader are for all.
type Partial struct {
	dir    *Dir
	raw    string // its name in the spool
	digest digest.Digest
	sum    sum
	known  bool // sum is what the bytes are to have, and not what they turn out to have
	size   atomic.Int64
	ahead  hashAhead
	room   allocation

	mu        sync.Mutex // guards what follows, and digest and sum unless known, against OpenReader
	file      *os.File
	closed    bool
	committed bool
}

// Partial opens the partial of a digest, new or with the bytes that an earlier
// one left: Size tells how many. They are hashed again, because a crash may
// have damaged them, but while more is written, and not before.
// Errors: ErrInvalidDigest, ErrPartialOpen, ErrNoSpace.
func (d *Dir) Partial(ctx context.Context, dgst digest.Digest) (*Partial, error) {
	s, err := parseDigest(dgst)
	if err != nil {
		return nil, err
	}
	return d.partial(ctx, &s, true)
}

// PartialOf is [Dir.Partial] of content whose digest nobody knows yet. What
// tells it from other content, and finds its bytes again, is id: the digest of
// a name and a version, say. [Partial.Digest] tells what the bytes have, and
// Commit stores them under that, by sha256.
func (d *Dir) PartialOf(ctx context.Context, id digest.Digest) (*Partial, error) {
	s, err := parseDigest(id)
	if err != nil {
		return nil, err
	}
	return d.partial(ctx, &s, false)
}

func (d *Dir) partial(ctx context.Context, s *sum, known bool) (*Partial, error) {
	name := s.digest()
	if err := errors.Join(ctx.Err(), d.writable()); err != nil {
		return nil, fmt.Errorf("opening the partial of %s: %w", name, err)
	}
	raw := string(s.bytes())
	var (
		file        *os.File
		size, added int64
	)
	err := d.withRoom(func() (err error) {
		file, size, added, err = d.spool.open(raw)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening the partial of %s: %w", name, err)
	}
	d.release(-added)
	p := &Partial{dir: d, raw: raw, digest: name, sum: *s, known: known, file: file}
	if known {
		p.ahead.hash = s.newHash()
	} else {
		p.ahead.hash = sha256.New()
	}
	p.size.Store(size)
	return p, nil
}

// Expect tells the size, in bytes, that the blob is said to have. Nothing
// depends on it being right.
func (p *Partial) Expect(size int64) { p.room.total = size }

// Size is how many bytes are there.
func (p *Partial) Size() int64 { return p.size.Load() }

// Write appends b. The bytes it counts are there also when it returns an
// error. Errors: ErrNoSpace.
func (p *Partial) Write(b []byte) (int, error) {
	if p.closed {
		return 0, p.errClosed()
	}
	p.room.cover(p.file, p.Size(), len(b))
	n, err := p.dir.append(p.file, b)
	p.size.Add(int64(n))
	p.startHashing()
	if err != nil {
		return n, fmt.Errorf("writing the partial of %s at %d: %w", p.digest, p.Size(), err)
	}
	return n, nil
}

// OpenReader opens the file at its start, for reading what is there, which
// Size tells, while more comes. It can be read to its end whatever becomes of
// the partial. After Commit, it opens the blob. Errors: ErrNotExist, when the
// blob was evicted since; fs.ErrClosed after Close and Discard.
func (p *Partial) OpenReader() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed && !p.committed {
		return nil, p.errClosed()
	}
	path := p.file.Name()
	if p.committed {
		path = p.dir.blobFile(p.digest)
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !p.committed {
		// Commit has moved it, and is not done yet.
		file, err = os.Open(p.dir.blobFile(p.digest))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, absent(p.digest) // evicted or deleted since
	}
	if err != nil {
		return nil, fmt.Errorf("opening the partial of %s to read: %w", p.digest, err)
	}
	return file, nil
}

// Digest tells what the bytes have that are there: that of a partial of a
// known digest is the one that they are to have.
func (p *Partial) Digest() (digest.Digest, error) {
	if err := p.Verify(); err != nil {
		return "", err
	}
	return p.digest, nil
}

// Verify says whether the bytes have the digest; those of [Dir.PartialOf]
// always do. They are not synced to the disk yet, so that readers can be given
// the last ones before Commit. Errors: ErrDigestMismatch.
func (p *Partial) Verify() error {
	if p.closed {
		return p.errClosed()
	}
	if err := p.hashRest(); err != nil {
		return fmt.Errorf("verifying the partial of %s: %w", p.digest, err)
	}
	if !p.known {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sum = sum{}
		p.sum.n = uint8(len(p.ahead.hash.Sum(p.sum.raw[:0])))
		p.digest = p.sum.digest()
		return nil
	}
	if err := matches(&p.sum, p.ahead.hash, p.Size()); err != nil {
		return fmt.Errorf("verifying the partial of %s: %w", p.digest, err)
	}
	return nil
}

// Commit verifies the bytes and stores them as the blob; that it is stored
// already is no error. The partial is then closed; after an error, it is still
// open. Errors: ErrDigestMismatch, ErrNoSpace.
func (p *Partial) Commit(ctx context.Context) error {
	if err := p.Verify(); err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), p.dir.writable(), p.room.trim(p.file, p.Size())); err != nil {
		return fmt.Errorf("committing blob %s: %w", p.digest, err)
	}
	if err := p.dir.commit(&p.sum, p.file, p.Size()); err != nil {
		return fmt.Errorf("committing blob %s: %w", p.digest, err)
	}
	_ = p.finish(true) // synced, nothing to lose
	p.dir.spool.forget(p.raw)
	return nil
}

// Reset starts over at byte 0, in a new file: who reads the old one reads on.
func (p *Partial) Reset() error {
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.errClosed()
	}
	path := p.file.Name()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("resetting the partial of %s: %w", p.digest, err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, fileMode)
	if err != nil {
		return fmt.Errorf("resetting the partial of %s: %w", p.digest, noSpace(err))
	}
	_ = p.file.Close() // removed, nothing to lose
	p.file = file
	p.room.ahead = 0
	p.dir.release(p.size.Swap(0))
	p.ahead.hash.Reset()
	p.ahead.hashed.Store(0)
	return nil
}

// Close closes the partial, and keeps its bytes for a later one until they are
// evicted or, when the store is opened, too old. Closing it again, or after
// Commit or Discard, does nothing.
func (p *Partial) Close() error {
	if p.closed {
		return nil
	}
	if p.Size() == 0 {
		return p.Discard()
	}
	now := p.dir.cfg.Now()
	err := p.room.trim(p.file, p.Size())
	// The next open of the store judges the partial's age by it.
	err = errors.Join(err, os.Chtimes(p.file.Name(), time.Time{}, now))
	err = errors.Join(err, p.finish(false))
	p.dir.spool.close(p.raw, p.Size(), now)
	p.dir.wakeEvictor() // it may be evicted now
	if err != nil {
		return fmt.Errorf("closing the partial of %s: %w", p.digest, noSpace(err))
	}
	return nil
}

// Discard closes the partial and removes its bytes. Discarding it again, or
// after Commit or Close, does nothing.
func (p *Partial) Discard() error {
	if p.closed {
		return nil
	}
	err := os.Remove(p.file.Name())
	_ = p.finish(false) // removed, nothing to lose
	p.dir.spool.forget(p.raw)
	p.dir.release(p.Size())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discarding the partial of %s: %w", p.digest, err)
	}
	return nil
}

// finish closes the file; new readers come only after a commit.
func (p *Partial) finish(committed bool) error {
	p.stopHashing()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.committed = true, committed
	return p.file.Close()
}

func (p *Partial) errClosed() error {
	return fmt.Errorf("partial of %s: %w", p.digest, fs.ErrClosed)
}
