package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// body is what a caller reads: the bytes asked for, at the upstream's
// bandwidth. It tells the endpoint how the exchange ended.
type body struct {
	src      io.ReadCloser
	ctx      context.Context //nolint:containedctx // bounds the wait for bandwidth
	limiter  *rate.Limiter   // nil without a limit
	endpoint *Endpoint
	skip     int64 // bytes to discard first
	length   int64 // bytes still to give, -1 to the end of src
	given    int64 // bytes read from src
	sticky   error // what Read returns from now on
	reported bool  // the endpoint knows how it ended
	closed   atomic.Bool
	release  func()
}

// discard drops the bytes before the ones wanted.
func (b *body) discard() error {
	buf := make([]byte, min(b.skip, 256<<10))
	for b.skip > 0 {
		n, err := b.read(buf[:min(int64(len(buf)), b.skip)])
		b.skip -= int64(n)
		if b.skip == 0 {
			return nil // src says again what else it has to say
		}
		if errors.Is(err, io.EOF) {
			return b.broke(io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Read implements [io.Reader]. It gives io.EOF only where the bytes that were
// announced end.
func (b *body) Read(p []byte) (int, error) {
	if b.sticky != nil {
		return 0, b.sticky
	}
	if b.length == 0 {
		b.report(nil)
		return 0, io.EOF
	}
	if b.length > 0 {
		p = p[:min(int64(len(p)), b.length)]
	}
	n, err := b.read(p)
	if b.length > 0 {
		b.length -= int64(n)
	}
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		b.sticky = err
	case b.length > 0:
		b.sticky = b.broke(io.ErrUnexpectedEOF)
	default:
		b.report(nil)
		b.sticky = io.EOF
	}
	return n, b.sticky
}

// read reads from src and waits until the bandwidth limit allows the bytes.
func (b *body) read(p []byte) (int, error) {
	if b.limiter != nil {
		p = p[:min(len(p), b.limiter.Burst())]
	}
	n, err := b.src.Read(p)
	b.given += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.broke(err)
	}
	if b.limiter == nil || n == 0 {
		return n, err
	}
	if werr := b.limiter.WaitN(b.ctx, n); werr != nil {
		// Its own words are about tokens and deadlines.
		if werr = context.Cause(b.ctx); werr == nil {
			werr = context.DeadlineExceeded
		}
		return n, fmt.Errorf("waiting for bandwidth: %w", werr)
	}
	return n, err
}

// broke reports a body that ended too early and says whose it was.
func (b *body) broke(err error) error {
	b.report(err)
	return fmt.Errorf("reading from %s: %w", b.endpoint, clean(err))
}

// report tells the endpoint, once, how the exchange ended. A stall counts as a
// failure, and so does a body that breaks before its first byte. One that
// breaks later is gone on with from there, and a caller who has gone away says
// nothing about upstream.
func (b *body) report(err error) {
	switch {
	case b.reported:
		return
	case err == nil:
		b.endpoint.well()
	case b.ctx.Err() != nil:
	case errors.Is(err, errStalled), b.given == 0:
		b.endpoint.failed(sendError(err), time.Now())
	}
	b.reported = true
}

// Close implements [io.Closer].
func (b *body) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	err := b.src.Close()
	b.release()
	return err
}
