package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"entrepot/blobstore"
	"entrepot/blobstore/pause"
	"entrepot/registry/admission"
)

const (
	// bufferSize is how much is read from a source at once, in bytes. One
	// buffer a fill: it bounds a node's memory under many fills.
	bufferSize = 256 << 10
	// patience is how long a feed that has already given something looks for a
	// source that goes on, counted from the last byte.
	patience = 30 * time.Second
	// maxPause bounds the pause between two rounds of asking all sources.
	maxPause = 5 * time.Second
)

// feed reads one blob from its sources as if from one that never breaks: where
// a source breaks, it goes on at that byte with whichever source can. It does
// not verify; it is used by one goroutine.
type feed struct {
	sources func() []source
	size    int64 // of the whole blob in bytes, negative until known
	offset  int64 // of the next byte
	end     int64 // where to stop, 0 at the end of the blob

	body      io.ReadCloser
	current   source
	answered  bool      // a source has answered, so the reader is committed to it
	givers    []source  // sources that gave bytes since the last restart
	progress  time.Time // of the last byte or answer
	fruitful  bool      // the current source has given a byte
	fruitless int       // answers in a row that broke before their first byte
	lastErr   error     // why the last source broke
	wrong     error     // why the bytes since before the last restart were wrong
}

// open makes sure that a source is giving bytes, or that none can: then the
// error is the one that says most.
func (f *feed) open(ctx context.Context) error {
	if f.body != nil || f.complete() {
		return nil
	}
	if f.progress.IsZero() {
		f.progress = time.Now()
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, maxPause) {
		if f.fruitless > 0 {
			if time.Since(f.progress) > patience {
				return f.lastErr
			}
			if pause.For(ctx, min(maxPause, wait<<min(f.fruitless-1, 6))) != nil {
				return ctx.Err()
			}
		}
		err := f.ask(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case f.wrong != nil:
			return f.wrong // what was sent is wrong, and nobody else has it
		case !f.answered, isFinal(err), time.Since(f.progress) > patience:
			return err
		}
		if pause.For(ctx, max(wait, min(retryAfter(err), maxPause))) != nil {
			return ctx.Err()
		}
	}
}

// ask tries each source once.
func (f *feed) ask(ctx context.Context) error {
	var worst error
	if f.answered { // its readers have begun
		ctx = admission.Patiently(ctx)
	}
	for _, s := range f.sources() {
		body, total, err := s.open(ctx, f.offset, f.end-f.offset, f.size)
		for err == nil && f.size >= 0 && total >= 0 && total != f.size {
			body.Close()
			wrong := fmt.Errorf("%s announces %d bytes where %d are right: %w", s.label(), total, f.size, errWrongSize)
			if worse(worst, wrong) {
				worst = wrong
			}
			s.disbelieve(wrong)
			body, total, err = s.open(ctx, f.offset, f.end-f.offset, f.size)
		}
		if err == nil {
			f.body, f.current, f.fruitful, f.wrong = body, s, false, nil
			if f.size < 0 {
				f.size = total
			}
			if !f.answered {
				f.answered, f.progress = true, time.Now()
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if worse(worst, err) {
			worst = err
		}
	}
	if worst == nil {
		return blobstore.ErrNotExist
	}
	return worst
}

// Read gives the next bytes. It returns io.EOF only where the blob ends, and
// any other error only when no source can go on.
func (f *feed) Read(ctx context.Context, p []byte) (int, error) {
	for {
		if f.complete() {
			f.close()
			return 0, io.EOF
		}
		if err := f.open(ctx); err != nil {
			return 0, err
		}
		if f.size >= 0 && int64(len(p)) > f.size-f.offset {
			p = p[:f.size-f.offset]
		}
		n, err := f.body.Read(p)
		if n > 0 {
			f.gave(n)
		}
		if errors.Is(err, io.EOF) && f.size < 0 && f.end == 0 {
			f.size = f.offset
		}
		if err != nil && !f.complete() {
			f.broke(err)
		}
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (f *feed) complete() bool {
	return f.size >= 0 && f.offset >= f.size || f.end > 0 && f.offset >= f.end
}

func (f *feed) gave(n int) {
	f.offset += int64(n)
	f.progress = time.Now()
	f.fruitful, f.fruitless = true, 0
	if len(f.givers) == 0 || f.givers[len(f.givers)-1] != f.current {
		f.givers = append(f.givers, f.current)
	}
}

// broke takes in that the current source ended too early. One that answered
// and then gave nothing is not the first to be asked next.
func (f *feed) broke(err error) {
	f.close()
	f.lastErr = fmt.Errorf("%s broke at byte %d: %w", f.current.label(), f.offset, err)
	if !f.fruitful {
		f.fruitless++
		f.current.falter(f.lastErr)
	}
}

// restart begins again at byte 0 after wrong bytes. The source that sent them
// is disbelieved when it must have been that one; after mixed bytes nobody is,
// and the next round tells.
func (f *feed) restart(wrong error, mixed bool) {
	f.close()
	if f.current != nil && len(f.givers) <= 1 && !mixed {
		f.current.disbelieve(wrong)
		f.wrong = wrong
	}
	f.offset, f.givers, f.fruitless = 0, nil, 0
	f.progress = time.Now()
}

func (f *feed) close() {
	if f.body != nil {
		f.body.Close()
		f.body = nil
	}
}

var errWrongSize = errors.New("wrong size")
