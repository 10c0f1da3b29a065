package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Config says how a log is read and written.
type Config struct {
	// Key checks the log's checkpoints, and signs them when it is private.
	Key Key
	// AnyKey accepts whoever signed, in place of Key: everything is checked
	// against the checkpoint, and the checkpoint is taken on trust.
	AnyKey bool
	// Now tells the time of entries. Nil means [time.Now].
	Now func() time.Time
	// Logger is told what no caller can be. Nil discards it.
	Logger *slog.Logger
}

// Log is a ledger that is open for reading and, with a private key, for
// appending. It is safe for concurrent use.
type Log struct {
	storage Storage
	cfg     Config

	mu      sync.Mutex // held by the one that reads or appends
	current atomic.Pointer[view]
}

// Open opens the log at a location: see [OpenStorage]. It reads all entries
// and checks them against the signed checkpoint. A log that is not there yet is
// one without entries; the first Append makes it.
// Errors: ErrSignature, ErrCorrupt.
func Open(ctx context.Context, location string, cfg Config) (*Log, error) {
	storage, err := OpenStorage(location)
	if err != nil {
		return nil, err
	}
	l, err := New(ctx, storage, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger at %s: %w", redact(location), err)
	}
	return l, nil
}

// New is [Open] of a log in a storage.
func New(ctx context.Context, storage Storage, cfg Config) (*Log, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{storage: storage, cfg: cfg}
	l.current.Store(emptyView())
	if err := l.Refresh(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// State is what the entries come to that were read last.
func (l *Log) State() *State { return l.current.Load().state }

// Checkpoint is the one that [Log.State] is checked against.
func (l *Log) Checkpoint() Checkpoint { return l.current.Load().checkpoint }

// Refresh reads what others have appended.
// Errors: ErrSignature, ErrRollback, ErrFork, ErrCorrupt.
func (l *Log) Refresh(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refresh(ctx)
}

func (l *Log) refresh(ctx context.Context) error {
	now := l.current.Load()
	checkpoint, version, err := l.cfg.readCheckpoint(ctx, l.storage, now.version)
	switch {
	case errors.Is(err, ErrNotModified):
		return nil
	case errors.Is(err, ErrNotExist) && now.checkpoint.Size == 0:
		return nil
	case errors.Is(err, ErrNotExist):
		return fmt.Errorf("%w: it is gone, and had %d entries", ErrRollback, now.checkpoint.Size)
	case err != nil:
		return err
	}
	next, err := now.advance(ctx, l.storage, checkpoint, Checkpoint{}, nil)
	if err != nil {
		return err
	}
	next.version = version
	l.current.Store(next)
	return nil
}
