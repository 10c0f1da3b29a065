package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// fillReader is one request's view of a fill. It implements registry.Content.
type fillReader struct {
	fill       *fill
	patient    bool // fetches no range beside the fill
	sent       bool // some bytes of this generation went to the client
	generation int
	file       *os.File
	direct     *direct
	closed     bool
}

// ready waits until the fill knows its size, as far as the source tells it.
func (r *fillReader) ready(ctx context.Context) (size int64, err error) {
	f := r.fill
	if err := f.await(ctx, func() bool { return f.known || f.err != nil || f.direct }); err != nil {
		return 0, err
	}
	f.mu.Lock()
	size, known, ferr, direct := f.size, f.known, f.err, f.direct
	f.mu.Unlock()
	switch {
	case known:
		return size, nil
	case direct:
		r.goDirect()
		return r.direct.ready(ctx)
	default:
		return 0, ferr
	}
}

// detail is what Cache-Status tells of where the fill's content comes from.
func (r *fillReader) detail() string {
	r.fill.mu.Lock()
	defer r.fill.mu.Unlock()
	if r.fill.from == peerLabel {
		return peerLabel
	}
	return ""
}

// open gives the reader its descriptor while the blob is surely there: once
// committed, it may be evicted at any time. Errors: blobstore.ErrNotExist when
// that has happened.
func (r *fillReader) open(ctx context.Context) error {
	if r.direct != nil {
		return nil
	}
	f := r.fill
	f.mu.Lock()
	if f.partial == nil { // it never had a spool
		f.mu.Unlock()
		r.goDirect()
		return nil
	}
	generation := f.generation
	file, err := f.partial.OpenReader()
	f.mu.Unlock()
	if err == nil {
		r.file, r.generation = file, generation
		return nil
	}
	if !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("opening the spool of %s: %w", f.goal, err)
	}
	// The fill is over; it says in a moment how.
	var direct bool
	var failed error
	if err := f.await(ctx, func() bool {
		direct, failed = f.direct, f.err
		return direct || failed != nil
	}); err != nil {
		return err
	}
	if direct {
		r.goDirect()
		return nil
	}
	return failed
}

// Ready reports whether length bytes from offset can be written without
// waiting for a source.
func (r *fillReader) Ready(offset, length int64) bool {
	r.fill.mu.Lock()
	defer r.fill.mu.Unlock()
	return length >= 0 && r.fill.released() >= offset+length
}

// WriteRange implements registry.Content.
func (r *fillReader) WriteRange(ctx context.Context, w io.Writer, offset, length int64) (int64, error) {
	if r.farAhead(offset, length) {
		return r.writeAhead(ctx, w, offset, length)
	}
	var written int64
	for length < 0 || written < length {
		n, err := r.writeSome(ctx, w, offset+written, length-written, length < 0)
		written += n
		r.sent = r.sent || n > 0
		if errors.Is(err, io.EOF) && length < 0 {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

const (
	// maxAhead bounds, in bytes, a range that is fetched by itself.
	maxAhead = 4 << 20
	// farAway is how far, in bytes, it must lie past what is there.
	farAway = 8 << 20
)

// farAhead reports a small range that the fill will not reach for a while.
// Clients that mount images without fetching them ask for such, and check what
// they get. Programs that download files in pieces ask for such too, and for all
// of them: their readers are patient.
func (r *fillReader) farAhead(offset, length int64) bool {
	if length <= 0 || length > maxAhead || r.direct != nil || r.patient {
		return false
	}
	r.fill.mu.Lock()
	defer r.fill.mu.Unlock()
	return r.fill.known && !r.fill.verified && r.fill.err == nil && offset > r.fill.spooled+farAway
}

// writeAhead fetches a range by itself, beside the fill.
func (r *fillReader) writeAhead(ctx context.Context, w io.Writer, offset, length int64) (int64, error) {
	f := r.fill
	f.mu.Lock()
	size := f.size
	f.mu.Unlock()
	d := &direct{goal: f.goal, in: feed{sources: f.currentSources, size: size, offset: offset, end: offset + length}}
	defer d.in.close()
	r.sent = true
	return d.WriteRange(ctx, w, offset, length)
}

// writeSome writes what is there from offset, at least a byte.
func (r *fillReader) writeSome(ctx context.Context, w io.Writer, offset, length int64, toEnd bool) (int64, error) {
	if r.direct != nil {
		return r.writeDirect(ctx, w, offset, length, toEnd)
	}
	f := r.fill
	var (
		limit      int64
		generation int
		direct     bool
		failed     error
	)
	err := f.await(ctx, func() bool {
		limit, generation, failed, direct = f.released(), f.generation, f.err, f.direct
		return limit > offset || generation != r.generation || failed != nil || direct || f.verified
	})
	switch {
	case err != nil:
		return 0, err
	case generation != r.generation:
		return 0, r.reopen(generation)
	case limit > offset:
	case direct:
		r.goDirect()
		return r.writeDirect(ctx, w, offset, length, toEnd)
	case failed != nil:
		return 0, failed
	default:
		return 0, io.EOF // verified, and nothing past offset
	}
	if r.file == nil {
		if err := r.open(ctx); err != nil || r.direct != nil || r.generation != generation {
			return 0, err
		}
	}
	if toEnd {
		length = limit - offset
	}
	if _, err := r.file.Seek(offset, io.SeekStart); err != nil {
		return 0, fmt.Errorf("reading the spool of %s: %w", f.goal, err)
	}
	n, err := io.CopyN(w, r.file, min(length, limit-offset))
	if err != nil {
		return n, fmt.Errorf("sending %s: %w", f.goal, err)
	}
	return n, nil
}

// reopen moves to a newer generation, which only a client that has nothing of
// the older one can.
func (r *fillReader) reopen(generation int) error {
	if r.sent {
		return errRestarted
	}
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
	r.generation = generation
	return nil
}

// goDirect lets the reader fetch for itself from where it stands.
func (r *fillReader) goDirect() {
	f := r.fill
	f.mu.Lock()
	size := f.size
	if !f.known {
		size = f.hint
	}
	f.mu.Unlock()
	r.direct = &direct{goal: f.goal, in: feed{sources: f.currentSources, size: size, answered: r.sent}, turn: f.set.slots.Acquire}
	if r.sent && r.file != nil { // which has what was sent, and what is before
		r.direct.prefix = r.file
	}
}

func (r *fillReader) writeDirect(ctx context.Context, w io.Writer, offset, length int64, toEnd bool) (int64, error) {
	if toEnd {
		length = -1
	}
	n, err := r.direct.WriteRange(ctx, w, offset, length)
	if err == nil && toEnd {
		err = io.EOF
	}
	return n, err
}

// Close leaves the fill.
func (r *fillReader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	if r.direct != nil {
		_ = r.direct.Close()
	}
	if r.file != nil {
		_ = r.file.Close()
	}
	r.fill.leave()
	return nil
}
