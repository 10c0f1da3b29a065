package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/registry/admission"

	"github.com/opencontainers/go-digest"
)

const (
	// tailSize is how many of the last bytes of a blob are held back until it
	// is verified.
	tailSize = 64 << 10
	// linger is how long a fill that nobody reads any more waits for a reader
	// before it stops. Clients that read by ranges leave and come back.
	linger = time.Second
	// maxRestarts bounds how often a fill starts over after wrong bytes.
	maxRestarts = 8
)

// Errors of a fill's readers.
var (
	errAbandoned = errors.New("nobody reads the fill any more")
	errRestarted = errors.New("upstream sent wrong bytes, some of which were passed on")
	errClosing   = errors.New("the node is shutting down")
	errTooBig    = errors.New("the blob is larger than the whole store")
)

// fill is one download in progress into the store, shared by every request
// that wants the same. One goroutine (run) writes; readers follow.
type fill struct {
	set      *fillSet
	goal     goal
	party    *admission.Party // whose turn it waits for
	key      digest.Digest    // in the set; "" for one that is reached otherwise
	cancel   context.CancelCauseFunc
	finished chan struct{} // closed when run has ended and the fill is out of the set

	mu         sync.Mutex
	wake       chan struct{} // closed when something below changes; nil while nobody waits
	sources    []source
	hint       int64  // size the manifest named, negative when unknown
	size       int64  // as a source announced it, negative when it did not
	known      bool   // a source has answered: response headers can go out
	from       string // the label of that source
	partial    *blobstore.Partial
	spooled    int64         // bytes in the spool
	generation int           // counts starts from byte 0: readers of an older one hold wrong bytes
	verified   bool          // the spool is whole and right
	sum        digest.Digest // what the bytes have, once they are verified
	direct     bool          // the spool failed: readers fetch for themselves
	err        error         // the fill failed
	readers    int
	lingering  *time.Timer
	abandoned  bool
}

// released is how many bytes readers may have. Call with mu held.
func (f *fill) released() int64 {
	switch {
	case f.verified, !f.goal.withheld():
		return f.spooled
	case f.size >= 0:
		return max(0, min(f.spooled, f.size-tailSize))
	default:
		return max(0, f.spooled-tailSize)
	}
}

// change applies a change and wakes whoever waits for one.
func (f *fill) change(apply func()) {
	f.mu.Lock()
	apply()
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
	f.mu.Unlock()
}

// await blocks until done reports true; done is called with mu held.
func (f *fill) await(ctx context.Context, done func() bool) error {
	f.mu.Lock()
	for !done() {
		if f.wake == nil {
			f.wake = make(chan struct{})
		}
		wake := f.wake
		f.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.mu.Lock()
	}
	f.mu.Unlock()
	return nil
}

// run owns the fill from its first request to the commit.
func (f *fill) run(ctx context.Context) {
	release, err := f.set.slots.Acquire(ctx)
	if err == nil {
		f.set.metrics.fills.Inc()
		err = f.transfer(ctx)
		f.set.metrics.fills.Dec()
		release()
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	f.change(func() {
		if f.lingering != nil {
			f.lingering.Stop()
		}
		if f.err = err; err == nil && !f.verified && !f.direct {
			f.err = errAbandoned
		}
	})
	f.set.remove(f)
	close(f.finished)
	_, told := isTold(err)
	if err != nil && !told && !isBusy(err) && !errors.Is(err, errAbandoned) && !errors.Is(err, errClosing) {
		f.set.log.Warn("fill failed", "content", f.goal.String(), "error", err)
	}
}

// transfer fills the spool, verifies it and commits it. When the spool cannot
// be used it says so to the readers and returns nil.
func (f *fill) transfer(ctx context.Context) error {
	in := &feed{sources: f.currentSources, size: f.hint}
	defer in.close()
	partial, err := f.goal.spool(ctx, f.set.local, in)
	var spoolErr *spoolError
	if errors.As(err, &spoolErr) {
		f.giveUpSpool(err)
		return nil
	}
	if err != nil {
		return err
	}
	f.change(func() { f.partial, f.spooled = partial, partial.Size() })

	err = f.fetch(ctx, in, partial)
	switch {
	case errors.Is(err, errTooBig):
		f.set.log.Info("streaming without storing", "content", f.goal.String(), "reason", err)
		f.change(func() { f.direct = true })
		_ = partial.Discard()
		return nil
	case errors.As(err, &spoolErr):
		f.giveUpSpool(err)
		_ = partial.Discard() // its bytes take room that is missing
		return nil
	case errors.Is(err, blobstore.ErrDigestMismatch), err != nil && !f.goal.seekable():
		_ = partial.Discard()
		return err
	case err != nil:
		return errors.Join(err, partial.Close())
	}
	sum, err := partial.Digest()
	if err != nil {
		f.giveUpSpool(err)
		_ = partial.Discard()
		return nil
	}

	f.change(func() { f.verified, f.sum, f.known, f.size = true, sum, true, f.spooled })
	if err := partial.Commit(context.WithoutCancel(ctx)); err != nil {
		f.giveUpSpool(err)
		_ = partial.Discard()
		return nil
	}
	f.set.stored(sum, in.label())
	return nil
}

// fetch brings the spool to its end and verifies it, starting over with the
// next source when the bytes were wrong.
func (f *fill) fetch(ctx context.Context, in *feed, partial *blobstore.Partial) error {
	resumed := partial.Size() > 0
	if resumed && f.goal.whole(partial) {
		return nil // only the commit was missing
	}
	for restarts := 0; ; restarts++ {
		err := f.pump(ctx, in, partial)
		if err != nil && !(resumed && isInvalid(err)) { // a spool of an earlier run may be longer than the blob
			return err
		}
		if err == nil {
			if err = f.goal.verify(partial); err == nil {
				return nil
			}
		}
		if restarts == maxRestarts {
			return err
		}
		wrong := fmt.Errorf("%s sent wrong bytes for %s: %w", in.label(), f.goal, blobstore.ErrDigestMismatch)
		in.restart(wrong, resumed)
		resumed = false
		f.change(func() {
			if err = partial.Reset(); err == nil {
				f.generation++
				f.spooled = 0
			}
		})
		if err != nil {
			return &spoolError{err}
		}
	}
}

// pump moves bytes from the feed to the spool until the blob ends.
func (f *fill) pump(ctx context.Context, in *feed, partial *blobstore.Partial) error {
	if err := in.open(ctx); err != nil {
		return err
	}
	if limit := f.set.local.Limit(); limit > 0 && in.size > limit {
		return fmt.Errorf("%d bytes, and max_size is %d: %w", in.size, limit, errTooBig)
	}
	partial.Expect(in.size)
	f.change(func() { f.known, f.size, f.from = true, in.size, in.label() })
	buf := f.set.buffers.Get().(*[bufferSize]byte)
	defer f.set.buffers.Put(buf)
	for {
		n, err := in.Read(ctx, buf[:])
		if n > 0 {
			if _, err := partial.Write(buf[:n]); err != nil {
				return &spoolError{err}
			}
			f.set.metrics.fillBytes(in.label(), n)
			f.change(func() { f.spooled += int64(n); f.size = in.size })
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (f *feed) label() string {
	if f.current == nil {
		return ""
	}
	return f.current.label()
}

func (f *fill) giveUpSpool(err error) {
	f.set.log.Error("streaming without storing", "content", f.goal.String(), "error", err)
	f.set.spoolFailed()
	f.change(func() { f.direct = true })
}

func (f *fill) currentSources() []source {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clip(f.sources)
}

// fromUpstream reports that the fill brings content from upstream, or from the
// shared store after it, and waits for no peer.
func (f *fill) fromUpstream() bool {
	for _, s := range f.currentSources() {
		if slow, ok := s.(*pacedSource); ok {
			s = slow.source
		}
		if p, ok := s.(*peerSource); ok {
			return p.fromUpstream()
		}
	}
	return true
}

// join adds a reader for whom ctx counts, unless the fill is being given up.
func (f *fill) join(ctx context.Context, sources []source) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.abandoned || f.err != nil {
		return false
	}
	f.readers++
	f.party.Join(ctx)
	if f.lingering != nil {
		f.lingering.Stop()
	}
	hurry(f.sources, sources)
	for _, s := range sources {
		known := false
		for _, have := range f.sources {
			known = known || have.same(s)
		}
		if !known {
			f.sources = append(f.sources, s)
		}
	}
	return true
}

// leave takes a reader away. The last one stops the fill after a moment,
// unless most of the blob is there.
func (f *fill) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers--
	if f.readers > 0 || f.verified || f.err != nil || f.direct || f.mostlyThere() {
		return
	}
	f.lingering = time.AfterFunc(linger, f.abandon)
}

func (f *fill) abandon() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers > 0 || f.mostlyThere() {
		return
	}
	f.abandoned = true
	f.cancel(errAbandoned)
}

func (f *fill) mostlyThere() bool { return f.size > 0 && 2*f.spooled >= f.size }

// spoolError is a failure of the local store, not of a source.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return "writing the spool: " + e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }
