package ledger

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// tileReader lets tlog read tiles, which it checks against the tree.
type tileReader struct {
	ctx context.Context //nolint:containedctx // tlog's interface has none to pass
	r   Reader
}

// Height is tlog's.
func (t tileReader) Height() int { return tileHeight }

// ReadTiles is tlog's.
func (t tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		d, err := readTile(t.ctx, t.r, tile.L, uint64(tile.N), tile.W)
		if err != nil {
			return nil, err
		}
		if len(d) < tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%w: %s is cut short: %d of %d bytes", ErrCorrupt,
				tilePath(tile.L, uint64(tile.N), tile.W), len(d), tile.W*tlog.HashSize)
		}
		data[i] = d[:tile.W*tlog.HashSize]
	}
	return data, nil
}

// SaveTiles is tlog's: nothing is kept.
func (t tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func hashReader(ctx context.Context, r Reader, c Checkpoint) tlog.HashReader {
	return tlog.TileHashReader(c.tree(), tileReader{ctx, r})
}

// proveExtension makes the proof that the log of one checkpoint begins with
// that of an older one, from tiles that are checked against the newer one only:
// whether it proves that is for tlog.CheckTree to say.
func proveExtension(ctx context.Context, r Reader, older, newer Checkpoint) (tlog.TreeProof, error) {
	if older.Size == 0 {
		return nil, nil // every log begins with nothing
	}
	proof, err := tlog.ProveTree(int64(newer.Size), int64(older.Size), hashReader(ctx, r, newer))
	if err != nil {
		return nil, fmt.Errorf("proving that the log of %d entries begins with the first %d: %w", newer.Size, older.Size, err)
	}
	return proof, nil
}

// Proof shows, to whoever has the log's public key and nothing else, that an
// entry is in the log. It marshals to JSON.
type Proof struct {
	Checkpoint string           `json:"checkpoint"` // the signed note
	Leaf       string           `json:"leaf"`
	Path       tlog.RecordProof `json:"path"`
	// Set and SetPath are the leaf that spells out the destinations, and its
	// proof, when the entry's own leaf refers to it.
	Set     string           `json:"set,omitempty"`
	SetPath tlog.RecordProof `json:"setPath,omitempty"`
}

// Prove makes the proof that the entry of a sequence is in the log as it was
// read last. Errors: ErrNotExist, ErrCorrupt.
func (l *Log) Prove(ctx context.Context, sequence uint64) (Proof, error) {
	v := l.current.Load()
	if sequence >= v.state.Len() {
		return Proof{}, fmt.Errorf("proving entry %d: %w: the ledger has %d entries", sequence, ErrNotExist, v.state.Len())
	}
	hashes := hashReader(ctx, l.storage, v.checkpoint)
	size := int64(v.checkpoint.Size)
	path, err := tlog.ProveRecord(size, int64(sequence), hashes)
	if err != nil {
		return Proof{}, fmt.Errorf("proving entry %d: %w", sequence, err)
	}
	p := Proof{Checkpoint: string(v.checkpoint.Signed), Leaf: string(v.state.leaf(sequence)), Path: path}
	if set := v.state.leafSet(&v.state.entries[sequence]); set.refers {
		p.Set = string(v.state.leaf(set.leaf))
		if p.SetPath, err = tlog.ProveRecord(size, int64(set.leaf), hashes); err != nil {
			return Proof{}, fmt.Errorf("proving entry %d: %w", set.leaf, err)
		}
	}
	return p, nil
}

// Verify checks a proof and returns the entry that it proves.
// Errors: ErrSignature, ErrCorrupt.
func (p *Proof) Verify(cfg Config) (Entry, error) {
	e, err := p.verify(cfg)
	if err != nil {
		return Entry{}, fmt.Errorf("verifying the proof of an entry: %w", err)
	}
	return e, nil
}

func (p *Proof) verify(cfg Config) (Entry, error) {
	if err := cfg.check(); err != nil {
		return Entry{}, err
	}
	checkpoint, err := cfg.openCheckpoint([]byte(p.Checkpoint))
	if err != nil {
		return Entry{}, err
	}
	e, set, err := checkpoint.includes(p.Leaf, p.Path)
	if err != nil {
		return Entry{}, err
	}
	if set.refers {
		spelled, itself, err := checkpoint.includes(p.Set, p.SetPath)
		if err != nil {
			return Entry{}, err
		}
		if spelled.Sequence != set.leaf || itself.refers || len(spelled.Destinations) == 0 {
			return Entry{}, fmt.Errorf("%w: entry %d does not spell out the destinations of entry %d", ErrCorrupt, spelled.Sequence, e.Sequence)
		}
		e.Destinations = spelled.Destinations
	}
	if err := e.check(false); err != nil {
		return Entry{}, fmt.Errorf("%w: entry %d: %w", ErrCorrupt, e.Sequence, err)
	}
	return e, nil
}

// includes reads a leaf that a path proves to be in the log.
func (c Checkpoint) includes(leaf string, path tlog.RecordProof) (Entry, leafSet, error) {
	var r leafReader
	e, set, err := r.read([]byte(leaf))
	if err != nil {
		return Entry{}, leafSet{}, err
	}
	if e.Sequence >= c.Size {
		return Entry{}, leafSet{}, fmt.Errorf("%w: entry %d is not among the checkpoint's %d", ErrCorrupt, e.Sequence, c.Size)
	}
	if err := tlog.CheckRecord(path, int64(c.Size), c.Hash, int64(e.Sequence), tlog.RecordHash([]byte(leaf))); err != nil {
		return Entry{}, leafSet{}, fmt.Errorf("%w: the path does not lead from entry %d to the checkpoint: %w", ErrCorrupt, e.Sequence, err)
	}
	return e, set, nil
}

// ProveExtension makes the proof that the log as it was read last begins with
// that of an older checkpoint. Errors: ErrRollback, ErrCorrupt.
func (l *Log) ProveExtension(ctx context.Context, older Checkpoint) (tlog.TreeProof, error) {
	newer := l.Checkpoint()
	if older.Size > newer.Size {
		return nil, newer.follows(older)
	}
	return proveExtension(ctx, l.storage, older, newer)
}

// CheckExtension checks the proof that the log of one checkpoint begins with
// that of an older one. Errors: ErrRollback, ErrFork.
func CheckExtension(older, newer Checkpoint, proof tlog.TreeProof) error {
	if err := newer.follows(older); err != nil {
		return err
	}
	if older.Size == 0 {
		return nil // every log begins with nothing
	}
	if err := tlog.CheckTree(proof, int64(newer.Size), newer.Hash, int64(older.Size), older.Hash); err != nil {
		return fmt.Errorf("%w: the proof does not lead from %d to %d entries: %w", ErrFork, older.Size, newer.Size, err)
	}
	return nil
}
