package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"time"

	"entrepot/blobstore"
	"entrepot/registry"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"
)

const (
	// verifiedTTL is for how long ranges of a blob are sent without reading it
	// whole again. A client that reads by ranges asks dozens of times.
	verifiedTTL = 10 * time.Minute
	// maxVerified bounds how many blobs that is remembered of.
	maxVerified = 16384
)

// errRotten says that a blob changed in the store since it was verified.
var errRotten = errors.New("the blob changed on the disk")

// readVerifier hashes what is read from the store. Whoever reads a blob whole
// gets it hashed on the way, with the last bytes held back until it is right. A
// range says nothing of itself: the blob is read whole before, once in
// verifiedTTL, and again when its file was written to since.
type readVerifier struct {
	local *blobstore.Dir
	log   *slog.Logger
	spawn func(func(context.Context)) bool

	verified *lru.Cache[digest.Digest, verification]
	flights  singleflight.Group
}

// verification is that a file was right.
type verification struct {
	at      time.Time
	changed time.Time // the file, at the latest: when that is another, nothing is known
}

func newReadVerifier(local *blobstore.Dir, log *slog.Logger, spawn func(func(context.Context)) bool) *readVerifier {
	return &readVerifier{local: local, log: log, spawn: spawn, verified: newLRU[digest.Digest, verification](maxVerified)}
}

// stored takes in that a blob was verified and stored just now. A nil readVerifier
// is one that is not asked for.
func (v *readVerifier) stored(d digest.Digest) {
	if v == nil {
		return
	}
	f, err := v.local.OpenFile(d)
	if err != nil {
		return // it was evicted
	}
	defer f.Close()
	v.whole(d, changed(f))
}

// whole takes in that a blob was found to be right, whose file had last been changed
// at a time.
func (v *readVerifier) whole(d digest.Digest, changed time.Time) {
	v.verified.Add(d, verification{time.Now(), changed})
}

// changed is when a file was written to, or marked as used.
func changed(f *blobstore.File) time.Time {
	info, err := f.Stat()
	if err != nil {
		return time.Now() // which it never was
	}
	return info.ModTime()
}

// knows says whether a file was found to be right lately.
func (v *readVerifier) knows(f *blobstore.File) bool {
	seen, ok := v.verified.Get(f.Info.Digest)
	return ok && time.Since(seen.at) < verifiedTTL && seen.changed.Equal(changed(f))
}

// check says whether a blob in the store is right, for ranges. Many ask at
// once, and one reads. Errors: errRotten, blobstore.ErrNotExist.
func (v *readVerifier) check(ctx context.Context, f *blobstore.File) error {
	if v.knows(f) {
		return nil
	}
	d := f.Info.Digest
	c := v.flights.DoChan(string(d), func() (any, error) {
		done := make(chan error, 1)
		if !v.spawn(func(ctx context.Context) { done <- v.read(ctx, d) }) {
			return nil, errClosing
		}
		return nil, <-done
	})
	select {
	case r := <-c:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read reads a blob whole, and puts it aside when it is wrong.
func (v *readVerifier) read(ctx context.Context, d digest.Digest) error {
	f, err := v.local.OpenFile(d)
	if err != nil {
		return err
	}
	defer f.Close()
	at := changed(f)
	h := d.Verifier()
	if _, err := io.Copy(h, contextReader{ctx, f.File}); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return v.rotten(f, err)
	}
	if !h.Verified() {
		return v.rotten(f, blobstore.ErrDigestMismatch)
	}
	v.whole(d, at)
	return nil
}

// rotten puts a blob aside. The next request fetches it again.
func (v *readVerifier) rotten(f *blobstore.File, why error) error {
	v.verified.Remove(f.Info.Digest)
	err := fmt.Errorf("reading %s: %w: %w", f.Info.Digest, errRotten, why)
	f.Quarantine(err)
	return err
}

// contextReader stops reading when a context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// verifiedContent is a stored blob that is verified while it is read. It is
// used by one goroutine.
type verifiedContent struct {
	file   *blobstore.File
	reads  *readVerifier
	refill func(context.Context) (registry.Content, error) // nil where nobody can

	sent    bool             // the client has bytes of it
	instead registry.Content // the blob from elsewhere, once it was found to be rotten
}

// orRefill has content that turns out to be rotten, before the client has any
// of it, replaced by what refill gives.
func orRefill(content registry.Content, refill func(context.Context) (registry.Content, error)) registry.Content {
	if v, ok := content.(*verifiedContent); ok {
		v.refill = refill
	}
	return content
}

// WriteRange implements registry.Content.
func (c *verifiedContent) WriteRange(ctx context.Context, w io.Writer, offset, length int64) (int64, error) {
	if c.instead != nil {
		return c.instead.WriteRange(ctx, w, offset, length)
	}
	size := c.file.Info.Size
	if length < 0 {
		length = size - offset
	}
	var n int64
	var err error
	if offset == 0 && length == size {
		n, err = c.writeWhole(ctx, w)
	} else if err = c.reads.check(ctx, c.file); err == nil {
		n, err = fileContent{c.file}.WriteRange(ctx, w, offset, length)
	}
	c.sent = c.sent || n > 0
	if c.sent || c.refill == nil || !errors.Is(err, errRotten) && !errors.Is(err, blobstore.ErrNotExist) {
		return n, err
	}
	instead, again := c.refill(ctx)
	if again != nil {
		return 0, again
	}
	c.instead = instead
	return c.instead.WriteRange(ctx, w, offset, length)
}

// writeWhole sends the blob while hashing it, the last tailSize bytes once it
// is known to be right.
func (c *verifiedContent) writeWhole(ctx context.Context, w io.Writer) (int64, error) {
	d, size := c.file.Info.Digest, c.file.Info.Size
	if _, err := c.file.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("reading %s: %w", d, err)
	}
	at := changed(c.file)
	h := d.Verifier()
	buffer := make([]byte, tailSize)
	var sent int64
	for sent < size-tailSize {
		p := buffer[:min(tailSize, size-tailSize-sent)]
		if err := c.readFull(ctx, p); err != nil {
			return sent, err
		}
		_, _ = h.Write(p) // a hash never fails
		n, err := w.Write(p)
		sent += int64(n)
		if err != nil {
			return sent, fmt.Errorf("sending %s: %w", d, err)
		}
	}
	tail := buffer[:size-sent]
	if err := c.readFull(ctx, tail); err != nil {
		return sent, err
	}
	if _, _ = h.Write(tail); !h.Verified() {
		return sent, c.reads.rotten(c.file, blobstore.ErrDigestMismatch)
	}
	c.reads.whole(d, at)
	n, err := w.Write(tail)
	if err != nil {
		err = fmt.Errorf("sending %s: %w", d, err)
	}
	return sent + int64(n), err
}

// readFull reads what the disk must have.
func (c *verifiedContent) readFull(ctx context.Context, p []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.file.File, p); err != nil {
		return c.reads.rotten(c.file, err)
	}
	return nil
}

// Ready says whether bytes go out without the whole blob being read before.
func (c *verifiedContent) Ready(offset, length int64) bool {
	return c.instead == nil && (offset == 0 && (length < 0 || length == c.file.Info.Size) || c.reads.knows(c.file))
}

// Close implements registry.Content.
func (c *verifiedContent) Close() error {
	if c.instead != nil {
		return errors.Join(c.instead.Close(), c.file.Close())
	}
	return c.file.Close()
}

// unreadable puts a blob aside of which the disk does not give the bytes, where
// err says so: nobody would get it before somebody scrubs.
func unreadable(f *blobstore.File, err error) {
	if errors.Is(err, syscall.EIO) {
		f.Quarantine(err)
	}
}

// readVerified reads a small blob whole. It is verified whatever is configured,
// which costs less than what is saved by having it in memory next: what is
// there is not read from the disk again for days. Errors: blobstore.ErrNotExist,
// also for a blob that was found to be wrong and put aside.
func readVerified(f *blobstore.File) ([]byte, error) {
	b := make([]byte, f.Info.Size)
	_, err := io.ReadFull(f.File, b)
	if d := f.Info.Digest; err == nil && d.Algorithm().FromBytes(b) != d {
		err = blobstore.ErrDigestMismatch
	}
	if err != nil {
		err = fmt.Errorf("reading %s: %w: %w", f.Info.Digest, errRotten, err)
		f.Quarantine(err)
		return nil, fmt.Errorf("%w: %w", blobstore.ErrNotExist, err)
	}
	return b, nil
}
