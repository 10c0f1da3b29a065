package transfer

import (
	"errors"
	"io"
	"sync"
)

// lent is a reader that an HTTP transport may still be reading when its request
// is over. takeBack makes it free for other use.
type lent struct {
	mu   sync.Mutex
	r    io.Reader // nil once taken back
	used bool
}

func newLent(r io.Reader) *lent { return &lent{r: r} }

var (
	errTakenBack = errors.New("the request is over")
	errOnce      = errors.New("the content can be sent once only")
)

// Read implements [io.Reader].
func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r == nil {
		return 0, errTakenBack
	}
	return l.r.Read(p)
}

// Close implements [io.Closer].
func (l *lent) Close() error { return nil }

// once is the body of a request that is made once. A second attempt, such as
// after a challenge, is made by who has the content from its start.
func (l *lent) once() (io.ReadCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used {
		return nil, failf(ErrUnavailable, "%w", errOnce)
	}
	l.used = true
	return l, nil
}

func (l *lent) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r = nil
}
