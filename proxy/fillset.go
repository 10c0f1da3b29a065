package proxy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/loop"
	"entrepot/registry/admission"

	"github.com/opencontainers/go-digest"
)

// spoolPause is how long, after the local store failed to take bytes, requests
// stream through without trying it.
const spoolPause = 5 * time.Second

// errStored says that a fill is not needed: the blob is in the store.
var errStored = errors.New("the blob is in the store")

// fillSet is the fills in progress, at most one a digest. Those of files whose
// digest is not known yet are in no index: their names lead to them.
type fillSet struct {
	local   *blobstore.Dir
	log     *slog.Logger
	metrics *metrics
	slots   *admission.Queue // one is held by each running fill
	buffers sync.Pool        // of *[bufferSize]byte
	onStore func(d digest.Digest, from string)

	base    context.Context // of all fills
	endBase context.CancelCauseFunc
	running sync.WaitGroup

	mu      sync.Mutex
	fills   map[digest.Digest]*fill
	closed  bool
	noSpool time.Time // until when the local store is not tried
}

func newFillSet(local *blobstore.Dir, slots *admission.Queue, log *slog.Logger, m *metrics, onStore func(digest.Digest, string)) *fillSet {
	s := &fillSet{
		local:   local,
		log:     log,
		metrics: m,
		slots:   slots,
		buffers: sync.Pool{New: func() any { return new([bufferSize]byte) }},
		onStore: onStore,
		fills:   make(map[digest.Digest]*fill),
	}
	s.base, s.endBase = context.WithCancelCause(context.Background())
	return s
}

// join gives a reader of the digest's fill, started if there is none, for whom ctx
// counts. joined
// says that it was running. hint is the blob's size where a manifest named it,
// else negative. Errors: errStored, errClosing.
func (s *fillSet) join(ctx context.Context, d digest.Digest, hint int64, sources []source) (r *fillReader, joined bool, err error) {
	for {
		f, started, err := s.get(ctx, d, hint, sources)
		if err != nil {
			return nil, false, err
		}
		if started || f.join(ctx, sources) {
			return &fillReader{fill: f}, !started, nil
		}
		select {
		case <-f.finished:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// joinUpstream gives a reader of the digest's fill where there is one that waits
// for no peer; nil where there is none.
func (s *fillSet) joinUpstream(ctx context.Context, d digest.Digest) *fillReader {
	f := s.of(d)
	if f == nil || !f.fromUpstream() || !f.join(ctx, nil) {
		return nil
	}
	return &fillReader{fill: f}
}

// progress is how many bytes of a digest's fill can be read, 0 without one.
func (s *fillSet) progress(d digest.Digest) int64 {
	f := s.of(d)
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.released()
}

// get finds the digest's fill, or starts it with its first reader.
func (s *fillSet) get(ctx context.Context, d digest.Digest, hint int64, sources []source) (f *fill, started bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, errClosing
	}
	if f := s.fills[d]; f != nil {
		return f, false, nil
	}
	if _, err := s.local.Stat(ctx, d); err == nil {
		return nil, false, errStored
	}
	f = s.newFill(ctx, blobGoal(d), hint, sources)
	f.key = d
	if s.launch(ctx, f) {
		s.fills[d] = f
	}
	return f, true, nil
}

// of is the fill of a digest that is in progress, or nil.
func (s *fillSet) of(d digest.Digest) *fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fills[d]
}

// start gives the first reader of a fill that is reached through it only, and runs
// for whom ctx counts. Errors: errClosing.
func (s *fillSet) start(ctx context.Context, g goal, sources []source) (*fillReader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosing
	}
	f := s.newFill(ctx, g, -1, sources)
	s.launch(ctx, f)
	return &fillReader{fill: f}, nil
}

func (s *fillSet) newFill(ctx context.Context, g goal, hint int64, sources []source) *fill {
	return &fill{
		set: s, goal: g, party: admission.NewParty(ctx), sources: sources, hint: hint, size: -1, readers: 1,
		finished: make(chan struct{}),
	}
}

// launch has a fill run on behalf of ctx, unless the local store failed lately: then its readers
// are sent to the sources. Call with mu held.
func (s *fillSet) launch(ctx context.Context, f *fill) bool {
	if time.Now().Before(s.noSpool) {
		f.direct = true
		f.cancel = func(error) {}
		close(f.finished)
		return false
	}
	run, cancel := context.WithCancelCause(s.base)
	f.cancel = cancel
	s.running.Go(func() {
		defer cancel(nil)
		f.run(loop.Carry(f.party.Context(run), ctx))
	})
	return true
}

func (s *fillSet) remove(f *fill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fills[f.key] == f {
		delete(s.fills, f.key)
	}
}

func (s *fillSet) stored(d digest.Digest, from string) { s.onStore(d, from) }

func (s *fillSet) spoolFailed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noSpool = time.Now().Add(spoolPause)
}

// close stops all fills, keeps their spools for a resume, and waits for them
// as long as ctx allows.
func (s *fillSet) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.endBase(errClosing)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
