package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/promote/ledger"
	"entrepot/proxy"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// ErrWindow says that a sync stopped because its time was over.
var ErrWindow = errors.New("the time for fetching is over")

// SyncConfig says how [Mirror.Sync] works.
type SyncConfig struct {
	// DryRun has it say what it would do, and do nothing.
	DryRun bool
	// AnyTime has it not wait for a window.
	AnyTime bool
	// Recheck has it look at everything, also at what was complete.
	Recheck bool
	// Report is told how it goes on, by one goroutine at a time: of each root that was
	// fetched or failed. Nil tells nobody.
	Report func(Progress, *Item)
}

// Progress is how far a sync is.
type Progress struct {
	Names        int       `json:"names"`         // selected
	Held         int       `json:"held"`          // of them, those of which everything is there
	Wanted       int       `json:"wanted"`        // images and files that have to be fetched or looked at
	Fetched      int       `json:"fetched"`       // of them, done
	Failed       int       `json:"failed"`        // of them, failed
	Bytes        int64     `json:"bytes"`         // fetched
	Leaving      int       `json:"leaving"`       // blobs that nothing selected needs
	LeavingBytes int64     `json:"leaving_bytes"` // of them
	Removed      int       `json:"removed"`       // of them, removed
	Started      time.Time `json:"started"`
	// Waiting is until when it waits for a window; zero when it does not.
	Waiting time.Time `json:"waiting_until,omitzero"`
}

// Item is an image or a file, by one of its names, and what became of it.
type Item struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Err    error         `json:"-"`
}

// syncing is one run.
type syncing struct {
	*Mirror

	opts  SyncConfig
	roots map[root]*wanted
	tags  tagLists
	full  bool // everything is looked at
	now   time.Time

	entries map[string]uint64 // of the ledgers, by upstream

	report   sync.Mutex // held while Report runs, and for what follows
	progress Progress
	failures []error
}

// wanted is a root that is selected.
type wanted struct {
	Name     // one of those that lead to it
	names    int
	complete bool
}

// maxFailures is how many failures an error names.
const maxFailures = 10

// Sync fetches what is selected and not held, and removes what is held and not
// selected any more. One runs at a time; others wait for it. What fails does not stop
// the rest. Errors: ErrWindow, the context's, that of the ledger, and the first of what
// failed.
func (m *Mirror) Sync(ctx context.Context, cfg SyncConfig) (Progress, error) {
	select {
	case m.syncing <- struct{}{}:
	case <-ctx.Done():
		return Progress{}, ctx.Err()
	}
	defer func() { <-m.syncing }()
	s := &syncing{Mirror: m, opts: cfg, now: m.cfg.Now(), tags: tagLists{lists: map[string][]string{}}}
	s.progress.Started = s.now
	if err := s.plan(ctx); err != nil {
		return s.progress, err
	}
	if cfg.DryRun {
		return s.progress, s.leave(ctx)
	}
	m.show(&s.progress)
	defer m.show(nil)
	err := s.run(ctx)
	s.finish(context.WithoutCancel(ctx), err)
	return s.progress, err
}

// show sets what Status tells of the sync that runs.
func (m *Mirror) show(p *Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running = nil; p != nil {
		copied := *p
		m.running = &copied
	}
}

// plan reads the ledgers and finds out what is to be done.
func (s *syncing) plan(ctx context.Context) error {
	names, entries, err := s.selected(ctx)
	if err != nil {
		return err
	}
	s.entries, s.progress.Names = entries, len(names)
	s.roots = make(map[root]*wanted, len(names))
	for i := range names {
		r := rootOf(&names[i])
		if s.roots[r] == nil {
			s.roots[r] = &wanted{Name: names[i]}
		}
		s.roots[r].names++
	}
	s.mu.Lock()
	before := s.kept
	s.mu.Unlock()
	s.full = s.opts.Recheck || s.now.Sub(before.Rechecked) >= s.cfg.Recheck
	if err := s.contents.look(ctx, s.full); err != nil {
		return err
	}
	for r, w := range s.roots {
		if w.complete = !s.full && s.complete(ctx, &r); w.complete {
			s.progress.Held += w.names
		} else {
			s.progress.Wanted++
		}
	}
	return ctx.Err()
}

// selected reads the ledgers, as far as they can be read, and returns the names that
// are to be held.
func (m *Mirror) selected(ctx context.Context) ([]Name, map[string]uint64, error) {
	m.mu.Lock()
	before := m.kept.Entries
	m.mu.Unlock()
	var all []Name
	entries := map[string]uint64{}
	states := map[Ledger]*ledger.State{}
	for i := range m.cfg.Upstreams {
		u := &m.cfg.Upstreams[i]
		state := states[u.Ledger]
		if state == nil {
			err := u.Ledger.Poll(ctx)
			if state = u.Ledger.State(); state.Len() == 0 || ctx.Err() != nil {
				return nil, nil, errors.Join(fmt.Errorf("nothing is known of the ledger of %s", u.Name), err)
			}
			states[u.Ledger] = state
		}
		if state.Len() < before[u.Name] {
			// Its copy was lost, and it cannot be read: that is no reason to remove anything.
			return nil, nil, fmt.Errorf("the ledger of %s is known up to entry %d only, and was held up to %d", u.Name, state.Len(), before[u.Name])
		}
		entries[u.Name] = state.Len()
		all = append(all, u.All(state)...)
	}
	return choose(m.cfg.Rules, all), entries, nil
}

// complete says whether a root was found to be held with everything below it.
func (m *Mirror) complete(ctx context.Context, r *root) bool {
	if r.kind == ledger.File {
		return !m.isNew(ctx, r.digest)
	}
	var held image
	return m.readRecord(ctx, r.key(), &held) == nil && held.Complete
}

// run fetches within the window, then removes.
func (s *syncing) run(ctx context.Context) error {
	open, until := s.cfg.Windows.At(s.cfg.Now())
	for !open && !s.opts.AnyTime {
		s.progress.Waiting = until
		s.tell(nil)
		if err := pause.For(ctx, max(until.Sub(s.cfg.Now()), time.Second)); err != nil {
			return err
		}
		open, until = s.cfg.Windows.At(s.cfg.Now())
	}
	s.progress.Waiting = time.Time{}
	fetching := ctx
	if !s.opts.AnyTime && !until.IsZero() {
		var end context.CancelFunc
		fetching, end = context.WithTimeoutCause(ctx, until.Sub(s.cfg.Now()), ErrWindow)
		defer end()
	}
	if s.pace != nil {
		fetching = proxy.WithPace(fetching, s.pace)
	}
	s.tell(nil)
	var group errgroup.Group
	group.SetLimit(s.cfg.Parallel)
	for _, w := range s.roots {
		if fetching.Err() != nil {
			break
		}
		if !w.complete {
			group.Go(func() error { s.fetch(fetching, w); return nil })
		}
	}
	_ = group.Wait() // what failed is in s
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := s.leave(ctx)
	if fetching.Err() != nil {
		err = errors.Join(ErrWindow, err)
	}
	return errors.Join(err, s.failure())
}

func (s *syncing) fetch(ctx context.Context, w *wanted) {
	err := s.fetchRoot(ctx, &w.Name, &s.tags, s.fetched)
	if ctx.Err() != nil && err != nil {
		return // it was stopped, and did not fail
	}
	s.report.Lock()
	if err == nil {
		w.complete = true
		s.progress.Fetched++
		s.progress.Held += w.names
	} else {
		s.progress.Failed++
		if len(s.failures) < maxFailures {
			s.failures = append(s.failures, fmt.Errorf("%s: %w", w.String(), err))
		}
	}
	s.report.Unlock()
	s.tell(&Item{Name: w.String(), Digest: w.Digest, Err: err})
}

// Fetch brings names and holds what they lead to, whatever is selected. It is how what was
// carried here is taken in. each is told of every name. What fails does not stop the rest.
// Errors: the context's, and those of names.
func (m *Mirror) Fetch(ctx context.Context, names []Name, each func(*Name, error)) error {
	tags := tagLists{lists: map[string][]string{}}
	var failed []error
	for i := range names {
		n := &names[i]
		err := m.fetchRoot(ctx, n, &tags, func(int64) {})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		each(n, err)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", n, err))
		}
	}
	return errors.Join(failed...)
}

// fetchRoot brings what a name leads to.
func (m *Mirror) fetchRoot(ctx context.Context, n *Name, tags *tagLists, bytes func(int64)) error {
	if n.Kind == ledger.Image {
		if _, tag, tagged := strings.Cut(n.Path, ":"); tagged && !strings.Contains(n.Path, "@") {
			// So that the node knows the tag, also where no ledger tells.
			got, err := m.cfg.Node.PullManifest(ctx, n.Upstream, n.repository(), tag)
			if err != nil {
				return err
			}
			if got.Digest != n.Digest {
				return fmt.Errorf("it is %s at the source, not %s", got.Digest, n.Digest)
			}
		}
		return m.fetchImage(ctx, rootOf(n), tags, bytes)
	}
	isNew := m.isNew(ctx, n.Digest)
	if err := m.cfg.Node.PullFile(ctx, n.Upstream, n.Path, n.Digest); err != nil {
		return err
	}
	if err := m.contents.hold(ctx, n.Digest); err != nil {
		return fmt.Errorf("holding %s, which was just fetched: %w", n.Digest, err)
	}
	if info, err := m.cfg.Store.Stat(ctx, n.Digest); err == nil && isNew {
		bytes(info.Size)
	}
	return nil
}

func (s *syncing) fetched(n int64) {
	s.report.Lock()
	defer s.report.Unlock()
	s.progress.Bytes += n
}

// tell says how it goes on.
func (s *syncing) tell(item *Item) {
	s.report.Lock()
	defer s.report.Unlock()
	s.show(&s.progress)
	if s.opts.Report != nil {
		s.opts.Report(s.progress, item)
	}
}

func (s *syncing) failure() error {
	s.report.Lock()
	defer s.report.Unlock()
	err := errors.Join(s.failures...)
	if more := s.progress.Failed - len(s.failures); more > 0 {
		err = errors.Join(err, fmt.Errorf("and %d more", more))
	}
	return err
}

// finish keeps how far it came.
func (s *syncing) finish(ctx context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept
	k.Blobs, k.Bytes = s.contents.usage()
	k.Started, k.Failed, k.Names, k.Held = s.now, s.progress.Failed, s.progress.Names, s.progress.Held
	if err == nil || s.progress.Failed > 0 && !errors.Is(err, ErrWindow) && ctx.Err() == nil {
		k.Entries, k.Rules, k.Finished = s.entries, rulesID(s.cfg.Rules), s.cfg.Now()
	}
	if err == nil && s.full {
		k.Rechecked = s.now
	}
	s.kept = k
	if err := s.writeRecord(ctx, keptRecord, k); err != nil {
		s.log.Error("writing down how far the mirror is", "error", err)
	}
}
