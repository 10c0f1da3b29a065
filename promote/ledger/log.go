package ledger

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/tlog"
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

// Checkpoint is a signed statement of what a log holds.
type Checkpoint struct {
	Origin string // the log's name, that of its key
	Size   uint64 // number of entries
	Hash   tlog.Hash
	Signed []byte // the signed note; nil of a log without entries
}

// Log is a ledger that is open for reading and, with a private key, for
// appending. It is safe for concurrent use.
type Log struct{ state *State }

// Open opens the log at a location: see [OpenStorage]. It reads all entries
// and checks them against the signed checkpoint. A log that is not there yet is
// one without entries; the first Append makes it.
// Errors: ErrSignature, ErrCorrupt.
func Open(ctx context.Context, location string, cfg Config) (*Log, error) {
	return nil, errors.New("opening the ledger: not built yet")
}

// New is [Open] of a log in a storage.
func New(ctx context.Context, storage Storage, cfg Config) (*Log, error) {
	return nil, errors.New("opening the ledger: not built yet")
}

// State is what the entries come to that were read last.
func (l *Log) State() *State { return l.state }

// Checkpoint is the one that [Log.State] is checked against.
func (l *Log) Checkpoint() Checkpoint { return Checkpoint{} }

// Refresh reads what others have appended.
// Errors: ErrSignature, ErrRollback, ErrFork, ErrCorrupt.
func (l *Log) Refresh(ctx context.Context) error {
	return errors.New("refreshing the ledger: not built yet")
}

// Append adds the entries that decide returns, all of them or none, and
// returns them with Sequence, Time and shared Destinations filled in.
//
// decide is given the newest state, and again each time that somebody else
// appended first, because what was right to append may not be any more. With no
// entries nothing is appended; its error ends Append and is returned as it is.
// Many entries at once cost little more than one.
// Errors: ErrReadOnly, ErrSignature, ErrRollback, ErrFork, ErrCorrupt.
func (l *Log) Append(ctx context.Context, decide func(*State) ([]Entry, error)) ([]Entry, error) {
	return nil, errors.New("appending to the ledger: not built yet")
}

// Report is what [Verify] has checked.
type Report struct {
	Checkpoint Checkpoint
	Objects    int // tiles and bundles read
	State      *State
}

// Verify audits a log: that the key signed its checkpoint, that every tile and
// bundle is there and as the checkpoint says, that every entry is well-formed,
// and that sequence and time never go back. It needs nothing but the storage,
// which may be a copy. Errors: ErrNotExist, ErrSignature, ErrCorrupt; several
// wrong objects are all named.
func Verify(ctx context.Context, r Reader, cfg Config) (Report, error) {
	return Report{}, errors.New("verifying the ledger: not built yet")
}
