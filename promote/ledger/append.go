package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"entrepot/blobstore/pause"

	"golang.org/x/sync/errgroup"
)

const (
	// finishTimeout bounds the writing of what is committed, which goes on when
	// the caller's context is over.
	finishTimeout = time.Minute
	// conflictPause is the longest pause after somebody else was first.
	conflictPause = 20 * time.Millisecond
	writeParallel = 8
)

// Append adds the entries that decide returns, all of them or none, and
// returns them with Sequence, Time and shared Destinations filled in.
//
// decide is given the newest state, and again each time that somebody else
// appended first, because what was right to append may not be any more. With no
// entries nothing is appended; its error ends Append and is returned as it is.
// It must not append to the same Log, nor refresh it.
// Many entries at once cost little more than one.
//
// After an error of the storage the entries may have been committed all the
// same: then the next Append, of anyone, finishes them.
// Errors: ErrReadOnly, ErrSignature, ErrRollback, ErrFork, ErrCorrupt.
func (l *Log) Append(ctx context.Context, decide func(*State) ([]Entry, error)) ([]Entry, error) {
	if l.cfg.Key.Signer == nil {
		return nil, fmt.Errorf("appending to the ledger: %w: there is no private key", ErrReadOnly)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		headVersion, err := l.settle(ctx)
		if err != nil {
			return nil, fmt.Errorf("appending to the ledger: %w", err)
		}
		now := l.current.Load()
		entries, err := decide(now.state)
		if err != nil || len(entries) == 0 {
			return nil, err
		}
		next, objects, err := l.commit(ctx, now, headVersion, entries)
		if errors.Is(err, ErrConflict) {
			if err := pause.For(ctx, rand.N(conflictPause)); err != nil { //nolint:gosec // no secret
				return nil, fmt.Errorf("appending to the ledger: %w", err)
			}
			continue
		}
		if err == nil {
			err = l.publish(ctx, now, next, objects)
		}
		if err != nil {
			return nil, fmt.Errorf("appending to the ledger: %w", err)
		}
		return slices.Clone(next.state.entries[now.state.Len():]), nil
	}
}

// settle brings the log to what was committed last, finishing what others did
// not. It returns the version of the head, which the next commit replaces.
func (l *Log) settle(ctx context.Context) (Version, error) {
	for {
		// The head first: the checkpoint is never ahead of the head that was
		// there when it was read.
		h, version, err := l.readHead(ctx)
		if err != nil {
			return "", err
		}
		if err := l.refresh(ctx); err != nil {
			return "", err
		}
		now := l.current.Load()
		switch {
		case h == nil && now.tree.size == 0:
			return "", nil
		case h == nil:
			// A copy, which is without. To go on with it is the key owner's
			// decision.
			return "", nil
		case h.size < now.tree.size:
			// Somebody else has gone on meanwhile.
			again, err := l.headMoved(ctx, version)
			if err != nil {
				return "", err
			}
			if !again {
				return "", fmt.Errorf("%w: the checkpoint has %d entries, and only %d are committed", ErrCorrupt, now.tree.size, h.size)
			}
			continue
		case h.start > now.tree.size:
			return "", fmt.Errorf("%w: the checkpoint has %d entries, and %d were committed and published", ErrRollback, now.tree.size, h.start)
		}
		next, objects, err := now.finish(h)
		if err != nil {
			return "", err
		}
		if h.size == now.tree.size {
			return version, nil
		}
		l.cfg.Logger.Info("finishing an append to the ledger that was committed and not published",
			slog.Uint64("entries", h.size-now.tree.size), slog.Uint64("size", h.size))
		return version, l.publish(ctx, now, next, objects)
	}
}

// headMoved says whether the head is not of a version any more.
func (l *Log) headMoved(ctx context.Context, version Version) (bool, error) {
	_, _, err := l.storage.Read(ctx, headPath, version)
	if errors.Is(err, ErrNotModified) {
		return false, nil
	}
	return true, err
}

// commit decides that the entries are the next of the log. Errors: ErrConflict
// when somebody else was first; what is wrong with an entry.
func (l *Log) commit(ctx context.Context, now *view, headVersion Version, entries []Entry) (*view, []object, error) {
	next := &view{tree: now.tree.clone()}
	builder := now.state.extend()
	h := &head{start: now.tree.size}
	var objects []object
	emit := func(o object) { objects = append(objects, o) }
	at := l.cfg.Now()
	for _, e := range entries {
		leaf, err := builder.addEntry(e, at)
		if err != nil {
			return nil, nil, err
		}
		next.tree.add(leaf, emit)
		h.leaves = appendToBundle(h.leaves, leaf)
	}
	next.tree.emitPartial(now.tree.size, emit)
	next.state = builder.state
	h.size, h.hash = next.tree.size, next.tree.root()

	data, err := h.sign(l.cfg.Key.Signer)
	if err != nil {
		return nil, nil, err
	}
	if err := l.storage.Swap(ctx, headPath, headVersion, data); err != nil {
		// The answer to a request that succeeded may be lost, and the request
		// sent again then conflicts with itself.
		ours, readErr := l.isHead(ctx, data)
		if readErr != nil {
			return nil, nil, errors.Join(err, readErr)
		}
		if !ours {
			return nil, nil, err
		}
	}
	return next, objects, nil
}

// publish writes the objects of a tree that is committed, and then the
// checkpoint that says so. It goes on when ctx is over: what is committed had
// better be visible.
func (l *Log) publish(ctx context.Context, now, next *view, objects []object) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if err := writeObjects(ctx, l.storage, objects); err != nil {
		return fmt.Errorf("publishing what is committed: %w", err)
	}
	checkpoint, err := signCheckpoint(l.cfg.Key.Signer, next.tree.size, next.tree.root())
	if err != nil {
		return err
	}
	if err := l.replaceCheckpoint(ctx, now.version, checkpoint); err != nil {
		return fmt.Errorf("publishing what is committed: %w", err)
	}
	next.checkpoint = checkpoint
	l.current.Store(next)
	return nil
}

// replaceCheckpoint replaces the checkpoint of a version, but never by one that
// has fewer entries: another applier may have finished this one's work, and
// gone on.
func (l *Log) replaceCheckpoint(ctx context.Context, version Version, checkpoint Checkpoint) error {
	for {
		err := l.storage.Swap(ctx, checkpointPath, version, checkpoint.Signed)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		var there Checkpoint
		there, version, err = l.cfg.readCheckpoint(ctx, l.storage, "")
		switch {
		case errors.Is(err, ErrNotExist): // it is being written
			version = ""
		case err != nil:
			return err
		case there.Size >= checkpoint.Size:
			return nil
		}
		if err := pause.For(ctx, rand.N(conflictPause)); err != nil { //nolint:gosec // no secret
			return err
		}
	}
}

// writeObjects writes tiles and bundles, several at once.
func writeObjects(ctx context.Context, s Storage, objects []object) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writeParallel)
	for _, o := range objects {
		group.Go(func() error { return s.Create(ctx, o.path, o.data) })
	}
	return group.Wait()
}
