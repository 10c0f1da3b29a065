package ledger

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"
)

// view is all that is known of a log as of one checkpoint, whose hash the
// entries have been checked against. It does not change.
type view struct {
	checkpoint Checkpoint
	// version is that of the checkpoint's object in the storage; empty when it
	// is not known.
	version Version
	state   *State
	tree    *tree
}

func emptyView() *view {
	t := new(tree)
	return &view{checkpoint: Checkpoint{Hash: t.root()}, state: new(State), tree: t}
}

const (
	// fetchWindow is how many bundles are in memory at once while a log is
	// read: of a hostile source, 16 MiB each. fetchParallel is how many requests
	// are made at once.
	fetchWindow   = 8
	fetchParallel = 8
)

// readCheckpoint reads the checkpoint, unless it is of the known version.
// Errors: ErrNotExist, ErrNotModified, ErrSignature, ErrCorrupt.
func (c *Config) readCheckpoint(ctx context.Context, r Reader, known Version) (Checkpoint, Version, error) {
	signed, version, err := r.Read(ctx, checkpointPath, known)
	if err != nil {
		return Checkpoint{}, "", err
	}
	checkpoint, err := c.openCheckpoint(signed)
	return checkpoint, version, err
}

// follows says whether a checkpoint can be of the same log, later or equal.
// Errors: ErrRollback, ErrFork.
func (c Checkpoint) follows(older Checkpoint) error {
	if c.Size < older.Size {
		return fmt.Errorf("%w: it has %d entries, and had %d", ErrRollback, c.Size, older.Size)
	}
	if c.Size == older.Size && c.Hash != older.Hash {
		return fmt.Errorf("%w: another %d entries than before", ErrFork, c.Size)
	}
	return nil
}

// advance reads the entries from a view to a later checkpoint, and checks them
// against its hash: what comes out has the older view's entries as its first
// ones, by construction. pin is a checkpoint in between, or the zero one, whose
// hash the entries must come to as well. emit, unless nil, is given the full
// tiles and bundles on the way.
// Errors: ErrRollback, ErrFork, ErrCorrupt.
func (v *view) advance(ctx context.Context, r Reader, to, pin Checkpoint, emit func(object)) (*view, error) {
	if err := to.follows(v.checkpoint); err != nil {
		return nil, err
	}
	if err := to.follows(pin); err != nil {
		return nil, err
	}
	next := &view{checkpoint: to, tree: v.tree.clone()}
	builder := v.state.extend()
	builder.grow(to.Size - v.tree.size)
	err := readLeaves(ctx, r, v.tree.size, to.Size, func(leaf []byte) error {
		next.tree.add(leaf, emit)
		if next.tree.size == pin.Size && next.tree.root() != pin.Hash {
			return fmt.Errorf("%w: other entries than the %d before", ErrFork, pin.Size)
		}
		return builder.readLeaf(leaf)
	})
	if err == nil && next.tree.root() != to.Hash {
		err = fmt.Errorf("%w: the entries do not come to the checkpoint's hash", ErrCorrupt)
	}
	if err != nil && errors.Is(err, ErrCorrupt) {
		err = accuse(ctx, r, v.checkpoint, to, err)
	}
	if err != nil {
		return nil, err
	}
	next.state = builder.state
	return next, nil
}

// accuse finds out whether entries that are not what was expected are so
// because the log was forked, which its own signed tiles then prove, or because
// of damage, which err tells.
func accuse(ctx context.Context, r Reader, older, to Checkpoint, err error) error {
	if older.Size == 0 || older.Size == to.Size {
		return err
	}
	proof, proofErr := proveExtension(ctx, r, older, to)
	if proofErr != nil {
		return err
	}
	if tlog.CheckTree(proof, int64(to.Size), to.Hash, int64(older.Size), older.Hash) != nil {
		return fmt.Errorf("%w: it does not begin with the %d entries it had (%w)", ErrFork, older.Size, err)
	}
	return err
}

// readLeaves calls each with the leaves from a sequence up to but not including
// another, in order. Errors: ErrCorrupt, those of the reader and of each.
func readLeaves(ctx context.Context, r Reader, from, to uint64, each func(leaf []byte) error) error {
	first, end := from/tileWidth, (to+tileWidth-1)/tileWidth
	for from < to && first < end {
		window := make([][]byte, min(fetchWindow, end-first))
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(fetchParallel)
		for i := range window {
			group.Go(func() (err error) {
				n := first + uint64(i)
				window[i], err = readTile(groupCtx, r, entriesLevel, n, int(min(tileWidth, to-n*tileWidth)))
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for i, bundle := range window {
			start := (first + uint64(i)) * tileWidth
			width := int(min(tileWidth, to-start))
			err := splitBundle(bundle, width, false, func(j int, leaf []byte) error {
				if start+uint64(j) < from {
					return nil
				}
				return each(leaf)
			})
			if err != nil {
				return fmt.Errorf("reading %s: %w", tilePath(entriesLevel, start/tileWidth, width), err)
			}
		}
		first += uint64(len(window))
	}
	return nil
}

// readTile reads the n-th tile of a level, or bundle: where it is partial, and
// gone, the full one in its place. One that is missing is damage: a checkpoint
// says that it is there. Errors: ErrCorrupt.
func readTile(ctx context.Context, r Reader, level int, n uint64, width int) ([]byte, error) {
	path := tilePath(level, n, width)
	data, _, err := r.Read(ctx, path, "")
	if errors.Is(err, ErrNotExist) && width < tileWidth {
		// C2SP lets a log delete partial tiles once there is the full one.
		data, _, err = r.Read(ctx, tilePath(level, n, tileWidth), "")
	}
	if errors.Is(err, ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", ErrCorrupt, path)
	}
	return data, err
}
