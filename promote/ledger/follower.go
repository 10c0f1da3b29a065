package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"entrepot/blobstore/pause"

	"github.com/opencontainers/go-digest"
)

// FollowerConfig says which log a [Follower] follows, and how.
type FollowerConfig struct {
	// Source is the log: of a node usually [NewHTTP].
	Source Reader
	// Key is the log's public key.
	Key Key
	// Copy keeps what was read, as a log that can be served and verified in its
	// turn. With it a node that restarts knows all names at once, and refuses
	// what was rolled back meanwhile. Nil keeps nothing.
	Copy Storage
	// Interval is the pause between two polls, a tenth more or less. Zero means
	// one second.
	Interval time.Duration
	// Timeout bounds each request. Zero means ten seconds.
	Timeout time.Duration
	// Changed is told of new entries, in order, when Lookup and Revoked answer
	// by them already. It is called by the goroutine that polls, which waits for
	// it. Entries that Copy held are not told: see State. They are kept in Copy
	// only after Changed has returned, so that a crash in between has them told
	// again. Nil tells nobody.
	Changed func(ctx context.Context, entries []Entry)
	// Polled is told of each poll, for metrics. Nil tells nobody.
	Polled func(PollResult)
	// Logger is told of refusals. Nil discards them.
	Logger *slog.Logger
}

// PollResult is what came of one poll.
type PollResult struct {
	Size     uint64 // entries that are followed now
	New      int    // of them, how many are new
	Duration time.Duration
	// Err is nil, or why the last good state goes on: an error of the network,
	// or ErrSignature, ErrRollback, ErrFork or ErrCorrupt.
	Err error
}

// Refused says whether the log is not what it should be, as opposed to one that
// cannot be reached.
func (r PollResult) Refused() bool { return refusal(r.Err) != nil }

// FollowerStatus is how far a follower is.
type FollowerStatus struct {
	Checkpoint Checkpoint
	// Checked is when the log was last seen to be as it is here; zero when it
	// never was since the start.
	Checked time.Time
	// Err is why the last poll failed, or nil.
	Err error
}

const (
	defaultInterval = time.Second
	defaultTimeout  = 10 * time.Second
	// complainAgain is how often a refusal that lasts is logged.
	complainAgain = time.Minute
)

// Follower keeps in step with a log that others write. It is safe for
// concurrent use.
type Follower struct {
	cfg    FollowerConfig
	verify Config
	source Reader

	current atomic.Pointer[view]
	status  atomic.Pointer[FollowerStatus]

	mu sync.Mutex // held by the one that polls; below is its
	// pin is the copy's checkpoint while its entries could not be read: whatever
	// comes must contain it.
	pin        Checkpoint
	copied     *view // what the copy holds; nil without a copy, or with one that is damaged
	complained time.Time
	complaint  error
	copyFailed bool
}

// NewFollower makes a follower with what its Copy holds; it makes no request to
// the source. Errors: the copy's checkpoint cannot be read, or is not of the
// key. A copy that is damaged otherwise is told to the logger, and read anew
// from the source.
func NewFollower(ctx context.Context, cfg FollowerConfig) (*Follower, error) {
	cfg.Interval = cmp.Or(cfg.Interval, defaultInterval)
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Follower{cfg: cfg, verify: Config{Key: cfg.Key}, source: boundedReader{cfg.Source, cfg.Timeout}}
	if err := f.verify.check(); err != nil {
		return nil, fmt.Errorf("following the ledger: %w", err)
	}
	f.current.Store(emptyView())
	if cfg.Copy != nil {
		if err := f.readCopy(ctx); err != nil {
			return nil, fmt.Errorf("following the ledger: reading the copy of it: %w", err)
		}
	}
	f.status.Store(&FollowerStatus{Checkpoint: f.current.Load().checkpoint})
	return f, nil
}

func (f *Follower) readCopy(ctx context.Context) error {
	checkpoint, version, err := f.verify.readCheckpoint(ctx, f.cfg.Copy, "")
	if errors.Is(err, ErrNotExist) {
		f.copied = emptyView()
		return nil
	}
	if err != nil {
		return err
	}
	v, err := emptyView().advance(ctx, f.cfg.Copy, checkpoint, Checkpoint{}, nil)
	if errors.Is(err, ErrCorrupt) {
		f.cfg.Logger.Error("the copy of the ledger is damaged: remove it, for it to be made anew", slog.Any("error", err))
		f.pin = checkpoint
		return nil
	}
	if err != nil {
		return err
	}
	// The version is the copy's, and tells nothing about the source.
	f.current.Store(v)
	kept := *v
	kept.version = version
	f.copied = &kept
	return nil
}

// boundedReader gives each read a deadline.
type boundedReader struct {
	r       Reader
	timeout time.Duration
}

func (b boundedReader) Read(ctx context.Context, path string, known Version) ([]byte, Version, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	return b.r.Read(ctx, path, known)
}

// Run polls until ctx is over, and returns its error.
func (f *Follower) Run(ctx context.Context) error {
	for {
		_ = f.Poll(ctx)                                          // told to Polled, Status and the logger
		jitter := rand.N(f.cfg.Interval/5+1) - f.cfg.Interval/10 //nolint:gosec // no secret
		if err := pause.For(ctx, f.cfg.Interval+jitter); err != nil {
			return err
		}
	}
}

// Poll asks once for what is new. On an error the last good state stays.
// Errors: ErrNotExist, ErrSignature, ErrRollback, ErrFork, ErrCorrupt.
func (f *Follower) Poll(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	start := time.Now()
	before := f.current.Load()
	now, err := f.poll(ctx, before)
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // stopped, which says nothing about the log
	}
	status := *f.status.Load()
	status.Err = err
	if err == nil {
		status.Checked = start
		status.Checkpoint = now.checkpoint
		f.current.Store(now)
	}
	f.status.Store(&status)
	f.complain(err)
	f.tell(ctx, before, now, time.Since(start), err)
	if err == nil {
		f.keep(ctx, now)
		return nil
	}
	return fmt.Errorf("following the ledger: %w", err)
}

// poll returns the view as it is now, or before with an error.
func (f *Follower) poll(ctx context.Context, before *view) (*view, error) {
	checkpoint, version, err := f.verify.readCheckpoint(ctx, f.source, before.version)
	if errors.Is(err, ErrNotModified) {
		return before, nil
	}
	if errors.Is(err, ErrNotExist) && max(before.checkpoint.Size, f.pin.Size) > 0 {
		return before, fmt.Errorf("%w: it is gone: %w", ErrRollback, err)
	}
	if err != nil {
		return before, err
	}
	now, err := before.advance(ctx, f.source, checkpoint, f.pin, nil)
	if err != nil {
		return before, err
	}
	now.version = version
	f.pin = Checkpoint{}
	return now, nil
}

// complain logs why the log is refused: when that is another reason than
// before, and now and then while it lasts.
func (f *Follower) complain(err error) {
	if err == nil {
		if f.complaint != nil {
			f.cfg.Logger.Info("the ledger is followed again")
		}
		f.complaint = nil
		return
	}
	same := f.complaint != nil && errors.Is(refusal(f.complaint), refusal(err))
	if same && time.Since(f.complained) < complainAgain {
		return
	}
	f.complaint, f.complained = err, time.Now()
	if refusal(err) == nil {
		f.cfg.Logger.Warn("the ledger cannot be read; names stay as they were", slog.Any("error", err))
		return
	}
	f.cfg.Logger.Error("THE LEDGER IS REFUSED; names stay as they were", slog.Any("error", err),
		slog.Uint64("last_good_size", f.current.Load().checkpoint.Size))
}

// refusal is the sentinel of an error that says that the log is not what it
// should be; nil of others.
func refusal(err error) error {
	for _, sentinel := range []error{ErrFork, ErrRollback, ErrSignature, ErrCorrupt} {
		if errors.Is(err, sentinel) {
			return sentinel
		}
	}
	return nil
}

func (f *Follower) tell(ctx context.Context, before, now *view, took time.Duration, err error) {
	fresh := now.state.entries[before.state.Len():]
	if f.cfg.Polled != nil {
		f.cfg.Polled(PollResult{Size: now.state.Len(), New: len(fresh), Duration: took, Err: err})
	}
	if len(fresh) > 0 && f.cfg.Changed != nil {
		f.cfg.Changed(ctx, fresh)
	}
}

// keep brings the copy to a view. When that fails the follower goes on without,
// and tries again with the next poll.
func (f *Follower) keep(ctx context.Context, now *view) {
	if f.copied == nil || f.copied.checkpoint.Size == now.checkpoint.Size {
		return
	}
	err := f.write(ctx, now)
	if err != nil && ctx.Err() == nil && !f.copyFailed {
		f.cfg.Logger.Error("the copy of the ledger cannot be written; following it goes on without", slog.Any("error", err))
	}
	f.copyFailed = err != nil
}

func (f *Follower) write(ctx context.Context, now *view) error {
	// The entries come from memory: what they are written as is canonical.
	var objects []object
	emit := func(o object) { objects = append(objects, o) }
	tree := f.copied.tree.clone()
	for tree.size < now.tree.size {
		tree.add(now.state.leaf(tree.size), emit)
	}
	tree.emitPartial(f.copied.tree.size, emit)
	if err := writeObjects(ctx, f.cfg.Copy, objects); err != nil {
		return err
	}
	if err := f.cfg.Copy.Swap(ctx, checkpointPath, f.copied.version, now.checkpoint.Signed); err != nil {
		return err
	}
	_, version, err := f.cfg.Copy.Read(ctx, checkpointPath, "")
	if err != nil {
		return err
	}
	f.copied = &view{checkpoint: now.checkpoint, version: version, state: now.state, tree: now.tree}
	return nil
}

// Lookup is [State.LookupFull] of the newest state, without allocating.
func (f *Follower) Lookup(fullName string) (Entry, bool) {
	return f.current.Load().state.LookupFull(fullName)
}

// Revoked says whether no cache may serve a digest any more, and why.
func (f *Follower) Revoked(d digest.Digest) (reason string, revoked bool) {
	e, revoked := f.current.Load().state.Revoked(d)
	return e.Reason, revoked
}

// State is the newest state.
func (f *Follower) State() *State { return f.current.Load().state }

// Status says how far the follower is.
func (f *Follower) Status() FollowerStatus { return *f.status.Load() }
