package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

var (
	errNoAnswer = errors.New("no answer in time")
	errStalled  = errors.New("stalled")
)

// deadlines bounds every exchange of the transport below: the wait for response
// headers, and each wait for a byte of the body. Its errors are
// [*networkError].
type deadlines struct {
	next    http.RoundTripper
	headers time.Duration // from the request to the headers, connecting included
	stall   time.Duration
}

// RoundTrip implements [http.RoundTripper].
func (d *deadlines) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(d.headers, func() { cancel(errNoAnswer) })
	resp, err := d.next.RoundTrip(req.WithContext(ctx))
	timer.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, &networkError{err}
	}
	b := &watchedBody{src: resp.Body, ctx: ctx, cancel: cancel, stall: d.stall}
	b.timer = time.AfterFunc(d.stall, func() { cancel(errStalled) })
	b.timer.Stop()
	resp.Body = b
	return resp, nil
}

// watchedBody breaks off when a Read waits too long for a byte. Time between
// reads does not count: a slow reader is no stall.
type watchedBody struct {
	src    io.ReadCloser
	ctx    context.Context //nolint:containedctx // of the request, to ask why it ended
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer
}

// Read implements [io.Reader].
func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.src.Read(p)
	b.timer.Stop()
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	switch cause := context.Cause(b.ctx); {
	case errors.Is(cause, errStalled):
		err = fmt.Errorf("%w: no byte for %v", errStalled, b.stall)
	case cause != nil:
		err = cause
	}
	return n, &networkError{err}
}

// Close implements [io.Closer].
func (b *watchedBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.src.Close()
}
