package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Report is what [Verify] has checked.
type Report struct {
	Checkpoint Checkpoint
	Objects    int // tiles and bundles read
	State      *State
}

// maxFindings is how many wrong objects Verify names.
const maxFindings = 20

// Verify audits a log: that the key signed its checkpoint, that every tile and
// bundle is there and as the checkpoint says, that every entry is well-formed,
// and that sequence and time never go back. It needs nothing but the storage,
// which may be a copy. Errors: ErrNotExist, ErrSignature, ErrCorrupt; several
// wrong objects are all named.
func Verify(ctx context.Context, r Reader, cfg Config) (Report, error) {
	report, err := verify(ctx, r, cfg)
	if err != nil {
		return report, fmt.Errorf("verifying the ledger: %w", err)
	}
	return report, nil
}

func verify(ctx context.Context, r Reader, cfg Config) (Report, error) {
	if err := cfg.check(); err != nil {
		return Report{}, err
	}
	checkpoint, _, err := cfg.readCheckpoint(ctx, r, "")
	if err != nil {
		return Report{}, err
	}
	report := Report{Checkpoint: checkpoint}
	var tiles []object // as they have to be; bundles are read anyway
	emit := func(o object) {
		report.Objects++
		if t, ok := parseTilePath(o.path); ok && t.L != entriesLevel {
			tiles = append(tiles, o)
		}
	}
	v, err := emptyView().advance(ctx, r, checkpoint, Checkpoint{}, emit)
	if err != nil {
		return report, err
	}
	v.tree.emitPartial(0, emit)
	report.State = v.state
	return report, compareTiles(ctx, r, tiles)
}

// compareTiles reads tiles and says which are not as they have to be.
func compareTiles(ctx context.Context, r Reader, tiles []object) error {
	var (
		mu       sync.Mutex
		findings []error
	)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fetchParallel)
	for _, tile := range tiles {
		group.Go(func() error {
			err := compareTile(ctx, r, tile)
			if err != nil && !errors.Is(err, ErrCorrupt) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				findings = append(findings, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if more := len(findings) - maxFindings; more > 0 {
		findings = append(findings[:maxFindings], fmt.Errorf("%w: and %d more objects", ErrCorrupt, more))
	}
	return errors.Join(findings...)
}

func compareTile(ctx context.Context, r Reader, want object) error {
	t, _ := parseTilePath(want.path)
	data, err := readTile(ctx, r, t.L, uint64(t.N), t.W)
	if err != nil {
		return err
	}
	// In place of a partial tile there may be the full one, of which no
	// checkpoint that was read says anything.
	if !bytes.HasPrefix(data, want.data) || t.W == tileWidth && len(data) != len(want.data) {
		return fmt.Errorf("%w: %s does not have the hashes of the entries", ErrCorrupt, want.path)
	}
	return nil
}
