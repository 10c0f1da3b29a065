package ledger

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
)

// FollowerConfig says which log a [Follower] follows, and how.
type FollowerConfig struct {
	// Source is the log: of a node usually [OpenStorage] of an https URL.
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
	// Changed is told of new entries, in order and each once, when Lookup and
	// Revoked answer by them already. It is called by the goroutine that polls,
	// which waits for it. Entries that Copy held are not told: read State. Nil
	// tells nobody.
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

// FollowerStatus is how far a follower is.
type FollowerStatus struct {
	Checkpoint Checkpoint
	// Checked is when the log was last seen to be as it is here; zero when it
	// never was since the start.
	Checked time.Time
	// Err is why the last poll failed, or nil.
	Err error
}

// Follower keeps in step with a log that others write. It is safe for
// concurrent use.
type Follower struct{}

// NewFollower makes a follower with what its Copy holds; it makes no request.
// Errors: the copy's checkpoint cannot be read, or is not of the key.
func NewFollower(ctx context.Context, cfg FollowerConfig) (*Follower, error) {
	return nil, errors.New("following the ledger: not built yet")
}

// Run polls until ctx is over, and returns its error.
func (f *Follower) Run(ctx context.Context) error {
	return errors.New("following the ledger: not built yet")
}

// Poll asks once for what is new. On an error the last good state stays.
// Errors: ErrNotExist, ErrSignature, ErrRollback, ErrFork, ErrCorrupt.
func (f *Follower) Poll(ctx context.Context) error {
	return errors.New("following the ledger: not built yet")
}

// Lookup is [State.LookupFull] of the newest state, without allocating.
func (f *Follower) Lookup(fullName string) (Entry, bool) { return Entry{}, false }

// Revoked says whether no cache may serve a digest any more, and why.
func (f *Follower) Revoked(d digest.Digest) (reason string, revoked bool) { return "", false }

// State is the newest state.
func (f *Follower) State() *State { return nil }

// Status says how far the follower is.
func (f *Follower) Status() FollowerStatus { return FollowerStatus{} }
