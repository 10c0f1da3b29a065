package blobstore

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
)

// Put stores what r gives; see [Store].
func (d *Dir) Put(ctx context.Context, dgst digest.Digest, size int64, r io.Reader) (err error) {
	s, err := parseDigest(dgst)
	if err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), d.writable()); err != nil {
		return fmt.Errorf("storing blob %s: %w", dgst, err)
	}
	if d.present(&s) {
		return nil
	}
	if d.cfg.MaxSize > 0 && size > d.cfg.MaxSize {
		return fmt.Errorf("storing blob %s: %w: it has %d bytes, the limit is %d", dgst, ErrNoSpace, size, d.cfg.MaxSize)
	}
	t, err := d.newTemp(&s)
	if err != nil {
		return fmt.Errorf("storing blob %s: %w", dgst, err)
	}
	defer t.close()
	if err := t.fill(ctx, size, r); err != nil {
		return fmt.Errorf("storing blob %s: %w", dgst, err)
	}
	if err := matches(&s, t.hash, t.size); err != nil {
		return fmt.Errorf("storing blob %s: %w", dgst, err)
	}
	if err := d.commit(&s, t.file, t.size); err != nil {
		return fmt.Errorf("storing blob %s: %w", dgst, err)
	}
	t.committed = true
	return nil
}

// present says whether a blob is stored, on the disk as in the index: Put must
// not succeed on the strength of a file that somebody removed.
func (d *Dir) present(s *sum) bool {
	e := d.index.entry(s)
	if e == nil {
		return false
	}
	file, err := openSized(d.blobFile(s.digest()), e.size)
	if err == nil {
		_ = file.Close()
		return true
	}
	if errors.Is(err, errGone) {
		d.drop(e, err)
	}
	return false
}

// matches says whether h, of size bytes, is the hash that s asks for.
// Errors: ErrDigestMismatch.
func matches(s *sum, h hash.Hash, size int64) error {
	var got sum
	got.n = uint8(len(h.Sum(got.raw[:0])))
	if got != *s {
		return fmt.Errorf("%w: the %d bytes have %s, want %s", ErrDigestMismatch, size, got.digest(), s.digest())
	}
	return nil
}

// temp is the file of a Put until it is committed.
type temp struct {
	dir       *Dir
	file      *os.File
	hash      hash.Hash
	size      int64 // bytes written
	committed bool
}

func (d *Dir) newTemp(s *sum) (*temp, error) {
	var file *os.File
	err := d.withRoom(func() (err error) {
		file, err = d.spool.create()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &temp{dir: d, file: file, hash: s.newHash()}, nil
}

// fill writes what r gives. It reads at most one byte more than size, which
// may be negative when unknown.
func (t *temp) fill(ctx context.Context, size int64, r io.Reader) error {
	if size >= 0 {
		r = io.LimitReader(r, size+1)
	}
	buffer := t.dir.buffer()
	defer t.dir.buffers.Put(buffer)
	room := allocation{total: size}
	for {
		n, err := r.Read(*buffer)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if size >= 0 && t.size+int64(n) > size {
			return fmt.Errorf("%w: more than %d bytes", ErrSizeMismatch, size)
		}
		room.cover(t.file, t.size, n)
		written, writeErr := t.dir.append(t.file, (*buffer)[:n])
		t.hash.Write((*buffer)[:written]) // still in the processor's cache
		t.size += int64(written)
		if writeErr != nil {
			return writeErr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading content after %d bytes: %w", t.size, err)
		}
	}
	if size >= 0 && t.size != size {
		return fmt.Errorf("%w: %d bytes, want %d", ErrSizeMismatch, t.size, size)
	}
	return nil
}

// close closes the file, and removes it unless it was committed.
func (t *temp) close() {
	_ = t.file.Close() // synced, if it matters
	if !t.committed {
		_ = os.Remove(t.file.Name()) // the next open removes what is left
		t.dir.release(t.size)
	}
}

// append writes b to the end of a file in the spool, and accounts for it.
// Bytes that were written count, also with an error. Errors: ErrNoSpace.
func (d *Dir) append(file *os.File, b []byte) (int, error) {
	if err := d.reserve(int64(len(b))); err != nil {
		return 0, err
	}
	written := 0
	err := d.withRoom(func() error {
		n, err := file.Write(b[written:])
		written += n
		return err
	})
	d.release(int64(len(b) - written))
	return written, noSpace(err)
}

// commit moves a file of the spool, whose content was verified, to its place,
// and makes it known. When the blob is stored already, the file is removed
// instead. After an error, nothing is known under the digest. Errors: ErrNoSpace.
func (d *Dir) commit(s *sum, file *os.File, size int64) error {
	now := d.cfg.Now()
	if err := os.Chtimes(file.Name(), time.Time{}, now); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return noSpace(err)
	}
	if d.present(s) {
		return d.commitAgain(file, size)
	}
	// A full disk can lack the room for a directory.
	return noSpace(d.withRoom(func() error { return d.place(s, file, size, now) }))
}

// place ends commit. Making room would need the lock that it holds.
func (d *Dir) place(s *sum, file *os.File, size int64, now time.Time) error {
	name := d.name(string(s.bytes()))
	name.Lock()
	defer name.Unlock()
	if d.index.entry(s) != nil {
		return d.commitAgain(file, size)
	}
	if err := renameDurable(file.Name(), d.blobFile(s.digest())); err != nil {
		return err
	}
	d.index.add(s, size, now)
	d.spool.bytes.Add(-size) // now the bytes of a blob: d.used stays as it is
	return nil
}

// commitAgain ends a commit of what is stored already.
func (d *Dir) commitAgain(file *os.File, size int64) error {
	if err := os.Remove(file.Name()); err != nil {
		return err
	}
	d.release(size)
	return nil
}

// buffer is a buffer of copyBuffer bytes, to be put back into d.buffers.
func (d *Dir) buffer() *[]byte {
	if buffer, ok := d.buffers.Get().(*[]byte); ok {
		return buffer
	}
	buffer := make([]byte, copyBuffer)
	return &buffer
}
