package mirror

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/blobstore/pause"
	"entrepot/promote/ledger"
	"entrepot/proxy"

	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"
)

// Ledger is a ledger that is followed: a [ledger.Follower] is one.
type Ledger interface {
	// State is all that the ledger has.
	State() *ledger.State
	// Status says how far it is followed.
	Status() ledger.FollowerStatus
	// Poll asks once for what is new.
	Poll(ctx context.Context) error
}

// Config says what a [Mirror] holds, and how.
type Config struct {
	// Node brings content and serves it, and Store is where it keeps it.
	Node  *proxy.Node
	Store *blobstore.Dir
	// Bucket is the node's, behind the store, which then holds nothing but what is
	// served often, and the mirror's records. Nil is none. It has one mirror.
	Bucket *blobstore.S3
	// Upstreams are those whose names are held; two of one ledger have the same
	// follower.
	Upstreams []Upstream
	// Rules select names; none select all.
	Rules []Rule
	// Bandwidth bounds what is fetched, in bytes a second; 0 is no bound.
	Bandwidth int64
	// Windows are when it may fetch.
	Windows Windows
	// Every is how soon Run tries again what failed; 0 means a minute. What a ledger
	// has new it sees within a second.
	Every time.Duration
	// Recheck is how often all of it is looked at, whatever the ledger says: whether
	// it is still in the store, and what was attached to images since. 0 means a day.
	Recheck time.Duration
	// Parallel is how many names are fetched at once; 0 means 8.
	Parallel int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger is told what Run does; nil discards.
	Logger *slog.Logger
}

const (
	defaultEvery    = time.Minute
	defaultRecheck  = 24 * time.Hour
	defaultParallel = 8

	// watch is how often Run looks whether a ledger has changed.
	watch = time.Second

	// minBurst is the smallest read, in bytes, that the bandwidth limit makes.
	minBurst = 16 << 10
)

// Mirror holds a selection of what its ledgers have. It is safe for concurrent use.
type Mirror struct {
	cfg  Config
	log  *slog.Logger
	pace *rate.Limiter // nil without a bound

	contents contents

	syncing chan struct{} // holds an element while a sync runs

	mu      sync.Mutex // guards what follows
	kept    kept
	running *Progress // of the sync that runs
}

// New makes a mirror that goes on where one before it stopped.
func New(ctx context.Context, cfg Config) *Mirror {
	cfg.Every = cmp.Or(cfg.Every, defaultEvery)
	cfg.Recheck = cmp.Or(cfg.Recheck, defaultRecheck)
	cfg.Parallel = cmp.Or(cfg.Parallel, defaultParallel)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mirror{cfg: cfg, log: cfg.Logger, syncing: make(chan struct{}, 1)}
	if m.contents = (directory{cfg.Store, cfg.Node}); cfg.Bucket != nil {
		m.contents = &bucket{S3: cfg.Bucket, node: cfg.Node, marked: map[digest.Digest]bool{}, there: map[digest.Digest]blobstore.Info{}}
	}
	if cfg.Bandwidth > 0 {
		burst := min(max(cfg.Bandwidth/50, minBurst), 1<<20)
		m.pace = rate.NewLimiter(rate.Limit(cfg.Bandwidth), int(burst))
	}
	m.kept = m.readKept(ctx)
	return m
}

// Run keeps the mirror in step with its ledgers until ctx ends.
func (m *Mirror) Run(ctx context.Context) {
	for {
		wait := watch
		if m.due() && !m.runOnce(ctx) {
			wait = m.cfg.Every
		}
		if pause.For(ctx, wait) != nil {
			return
		}
	}
}

// runOnce syncs within the window that is open, if one is, and says whether all is done.
func (m *Mirror) runOnce(ctx context.Context) bool {
	if open, _ := m.cfg.Windows.At(m.cfg.Now()); !open {
		return false
	}
	done, err := m.Sync(ctx, SyncConfig{})
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, ErrWindow):
		m.log.Info("the mirror stops for now; its time is over", "fetched", done.Fetched, "of", done.Wanted)
	case err != nil:
		m.log.Error("the mirror is not complete; it is tried again", "failed", done.Failed, "error", err, "again", m.cfg.Every.String())
	case done.Fetched+done.Removed > 0:
		m.log.Info("the mirror is complete", "names", done.Names, "fetched", done.Fetched, "removed", done.Removed, "bytes", done.Bytes)
	}
	return err == nil
}

// due says whether there may be something to do.
func (m *Mirror) due() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept.Finished.IsZero() || m.kept.Failed > 0 || m.cfg.Now().Sub(m.kept.Rechecked) >= m.cfg.Recheck {
		return true
	}
	for _, u := range m.cfg.Upstreams {
		if u.Ledger.State().Len() != m.kept.Entries[u.Name] {
			return true
		}
	}
	return m.kept.Rules != rulesID(m.cfg.Rules)
}
