package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// errStalled is the cause of a body that gave nothing for too long.
var errStalled = errors.New("no byte came in time")

// body is a response's body that breaks when it stalls while somebody reads
// it, keeps to the bandwidth limit, and gives its slot back when closed. It is
// used by one goroutine.
type body struct {
	io.ReadCloser
	ctx     context.Context // of the request; ended by the stall timer
	cancel  context.CancelCauseFunc
	stall   time.Duration
	timer   *time.Timer
	limiter *rate.Limiter // nil without a limit
	skip    int64         // bytes to drop first: the answer to a range was the whole
	done    func()
	once    sync.Once
}

// watch starts the clock for one wait of the reader.
func (b *body) watch() {
	if b.timer == nil {
		b.timer = time.AfterFunc(b.stall, func() { b.cancel(errStalled) })
		return
	}
	b.timer.Reset(b.stall)
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for b.skip > 0 {
		n, err := b.read(p[:min(int64(len(p)), b.skip)])
		b.skip -= int64(n)
		if err != nil {
			return 0, noEOF(err)
		}
	}
	return b.read(p)
}

func (b *body) read(p []byte) (int, error) {
	if b.limiter != nil {
		p = p[:min(len(p), b.limiter.Burst())]
	}
	b.watch()
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); errors.Is(cause, errStalled) {
			err = fmt.Errorf("%w (%v)", errStalled, b.stall)
		}
	}
	if b.limiter != nil && n > 0 {
		if werr := b.limiter.WaitN(b.ctx, n); werr != nil && err == nil {
			err = werr
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() {
		if b.timer != nil {
			b.timer.Stop()
		}
		b.cancel(nil)
		b.done()
	})
	return err
}

// noEOF makes an end that comes too early an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
