package blobstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"entrepot/blobstore/pause"
)

// Defaults of ScrubConfig.
const (
	defaultScrubRate  = 8 << 20
	defaultScrubEvery = 7 * 24 * time.Hour
)

const (
	// scrubSave is how often it is written down how far a pass has come.
	scrubSave = time.Minute
	// scrubRetry is when a pass is gone on with that the disk, or the room on
	// it, ended.
	scrubRetry = time.Hour
	// maxUnreadable is how many blobs in a row may fail to be read before it
	// is taken for the disk and not for them.
	maxUnreadable = 8
)

// ScrubConfig says how a [Scrubber] works.
type ScrubConfig struct {
	// Dir is the store; it is open while Run runs.
	Dir *Dir
	// Rate bounds the bytes read in a second, where opening a blob counts as
	// 64 KiB; 0 means 8 MiB.
	Rate int64
	// Every is the time from the beginning of one pass to that of the next; 0
	// means 7 days. A pass that takes longer is followed by the next at once.
	Every time.Duration
	// Logger is told of passes; nil means the silence. What is found is told to
	// the logger of Dir.
	Logger *slog.Logger
}

// Scrubber reads every blob of a [Dir] now and then, and puts those aside whose
// bytes are not what they were when they were stored. It goes through them in
// the order of their digests, and after a restart goes on where it was. Reading
// does not count as a use of a blob, nor does it keep one from being evicted.
type Scrubber struct {
	dir   *Dir
	rate  int64
	every time.Duration
	log   *slog.Logger
	state scrubState // of the pass; whoever runs it uses it alone

	mu     sync.Mutex // guards status
	status ScrubStatus
}

// ScrubStatus is what a [Scrubber] did, for metrics.
type ScrubStatus struct {
	Running     bool  // a pass is under way
	Blobs       int64 // found to be right, since the scrubber was made
	Bytes       int64 // read since then
	Rotten      int64 // found to be wrong, since then
	Unreadable  int64 // could not be read, since then
	PassBytes   int64 // of the blobs that this pass, or the last one, is done with
	PassTotal   int64 // of all blobs when it began or went on
	PassRotten  int64 // of this pass: found to be wrong or unreadable
	LastStarted time.Time
	// LastFinished is when a pass came to its end; zero when none ever did.
	LastFinished time.Time
}

// NewScrubber makes a scrubber that goes on where one before it stopped.
func NewScrubber(cfg ScrubConfig) (*Scrubber, error) {
	if cfg.Rate < 0 || cfg.Every < 0 {
		return nil, fmt.Errorf("scrubbing %d bytes a second every %v: want 0 for the default, or more", cfg.Rate, cfg.Every)
	}
	s := &Scrubber{
		dir: cfg.Dir, rate: cmp.Or(cfg.Rate, defaultScrubRate), every: cmp.Or(cfg.Every, defaultScrubEvery), log: cfg.Logger,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	text, err := os.ReadFile(s.stateFile())
	if err == nil {
		s.state, err = parseScrubState(text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// All that is lost is how far it was.
		s.log.Warn("scrubbing begins anew", "path", s.stateFile(), "err", err)
	}
	s.status.LastStarted, s.status.LastFinished = s.state.Started, s.state.Finished
	return s, nil
}

// Status tells what was done up to now.
func (s *Scrubber) Status() ScrubStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// change changes the status.
func (s *Scrubber) change(change func(*ScrubStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// Run scrubs until ctx ends.
func (s *Scrubber) Run(ctx context.Context) {
	for {
		wait := time.Duration(0)
		if !s.state.Running {
			// A clock that was wrong does not put it off for longer.
			wait = min(s.every, time.Until(s.state.Started.Add(s.every)))
		}
		if pause.For(ctx, wait) != nil {
			return
		}
		if err := s.Pass(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("scrubbing stopped; it will go on", "after", scrubRetry.String(), "err", err)
			if pause.For(ctx, scrubRetry) != nil {
				return
			}
		}
	}
}

// Pass reads every blob once, from where the last pass was stopped on. It
// returns why it could not come to its end: the context's error, or the disk's.
func (s *Scrubber) Pass(ctx context.Context) (err error) {
	reader, err := newScrubReader(s.rate, func(n int) { s.change(func(st *ScrubStatus) { st.Bytes += int64(n) }) })
	if err != nil {
		return err
	}
	defer reader.close()
	if !s.state.Running {
		s.state = scrubState{Started: time.Now(), Running: true, Finished: s.state.Finished}
	}
	blobs, total, done := s.rest()
	s.change(func(st *ScrubStatus) {
		st.Running, st.LastStarted = true, s.state.Started
		st.PassBytes, st.PassTotal, st.PassRotten = done, total, s.state.Rotten
	})
	defer s.change(func(st *ScrubStatus) { st.Running = false })
	defer func() { err = errors.Join(err, s.save()) }()
	if err := s.check(ctx, reader.verify, blobs); err != nil {
		return err
	}
	s.state.Finished, s.state.After, s.state.Running = time.Now(), "", false
	s.change(func(st *ScrubStatus) { st.LastFinished, st.PassBytes = s.state.Finished, st.PassTotal })
	s.log.Info("scrubbed the store", "blobs", len(blobs), "bytes", total, "rotten", s.state.Rotten,
		"took", s.state.Finished.Sub(s.state.Started).Round(time.Second).String())
	return nil
}

// rest is the blobs that the pass has still to read, in order, and the bytes of
// all blobs and of those it is done with.
func (s *Scrubber) rest() (rest []*entry, total, done int64) {
	all := s.dir.index.snapshot()
	slices.SortFunc(all, func(a, b *entry) int { return compareSums(a.sum, b.sum) })
	first, _ := slices.BinarySearchFunc(all, s.state.raw(), func(e *entry, after string) int {
		if compareSums(e.sum, after) <= 0 {
			return -1
		}
		return 1
	})
	for i, e := range all {
		total += e.size
		if i < first {
			done += e.size
		}
	}
	return all[first:], total, done
}

// verifyFunc is [scrubReader.verify].
type verifyFunc func(ctx context.Context, s *sum, path string, size int64) error

// check reads blobs. Those that cannot be read are put aside once another can
// be: then it is them, and not the disk.
func (s *Scrubber) check(ctx context.Context, verify verifyFunc, blobs []*entry) error {
	var unreadable []unreadableBlob
	saved := time.Now()
	for _, e := range blobs {
		if time.Since(saved) >= scrubSave {
			if err := s.save(); err != nil {
				s.log.Warn("writing down how far scrubbing is", "err", err)
			}
			saved = time.Now()
		}
		err := s.checkOne(ctx, verify, e)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			unreadable = append(unreadable, unreadableBlob{e, err})
			s.change(func(st *ScrubStatus) { st.Unreadable++ })
			if len(unreadable) == maxUnreadable {
				return fmt.Errorf("the last %d blobs could not be read; is the disk broken? %w", maxUnreadable, err)
			}
			continue
		}
		s.putAside(unreadable)
		unreadable = nil
		s.state.After = rawDigest(e.sum)
		s.change(func(st *ScrubStatus) { st.PassBytes += e.size })
	}
	s.putAside(unreadable)
	return nil
}

// unreadableBlob is a blob of which the disk does not give the bytes.
type unreadableBlob struct {
	*entry
	err error
}

func (s *Scrubber) putAside(blobs []unreadableBlob) {
	for _, b := range blobs {
		s.change(func(st *ScrubStatus) { st.PassBytes += b.size })
		if s.dir.quarantine(b.entry, b.err) {
			s.foundWrong()
		}
	}
}

// checkOne reads a blob, and puts it aside when it is wrong. The error is of
// reading it.
func (s *Scrubber) checkOne(ctx context.Context, verify verifyFunc, e *entry) error {
	if !s.dir.index.holds(e) {
		return nil // evicted or deleted meanwhile
	}
	sum, err := parseDigest(rawDigest(e.sum))
	if err != nil {
		return err
	}
	path := s.dir.blobFile(sum.digest())
	err = verify(ctx, &sum, path, e.size)
	switch {
	case err == nil:
		s.change(func(st *ScrubStatus) { st.Blobs++ })
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrDigestMismatch):
		if s.dir.quarantine(e, errRotten(path, err)) {
			s.foundWrong()
		}
	case errors.Is(err, errGone):
		if s.dir.drop(e, err) { // and not evicted since we looked
			s.foundWrong()
		}
	default:
		return err
	}
	return nil
}

func (s *Scrubber) foundWrong() {
	s.state.Rotten++
	s.change(func(st *ScrubStatus) { st.Rotten, st.PassRotten = st.Rotten+1, st.PassRotten+1 })
}

// save writes down how far the pass is.
func (s *Scrubber) save() error {
	text, err := s.state.text()
	if err == nil && s.dir.writable() == nil {
		err = s.dir.writeRecord(s.stateFile(), text)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", s.stateFile(), err)
	}
	return nil
}

func (s *Scrubber) stateFile() string { return scrubFile(s.dir.path) }

func scrubFile(path string) string { return filepath.Join(path, "scrub") }
