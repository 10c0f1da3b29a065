package ledger

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the right edge of a Merkle tree: all that is needed to add leaves, to
// tell the root, and to write the objects that change.
type tree struct {
	size uint64 // leaves
	// levels[l] are the hashes of the partial tile at level l, fewer than
	// tileWidth: each the root of a full subtree of tileWidth^l leaves.
	levels [][]tlog.Hash
	// bundle is the partial bundle, in its encoding.
	bundle []byte
}

// object is one of the static files that a log consists of.
type object struct {
	path string
	data []byte
}

func (t *tree) clone() *tree {
	c := &tree{size: t.size, bundle: slices.Clone(t.bundle), levels: make([][]tlog.Hash, len(t.levels))}
	for l := range t.levels {
		c.levels[l] = slices.Clone(t.levels[l])
	}
	return c
}

// add appends a leaf of at most maxLeaf bytes. emit, unless it is nil, is given
// each tile and bundle that is full now.
func (t *tree) add(leaf []byte, emit func(object)) {
	t.bundle = appendToBundle(t.bundle, leaf)
	n := t.size / tileWidth
	t.size++
	if t.size%tileWidth == 0 {
		if emit != nil {
			emit(object{tilePath(entriesLevel, n, tileWidth), slices.Clone(t.bundle)})
		}
		t.bundle = t.bundle[:0]
	}
	h := tlog.RecordHash(leaf)
	for l := 0; ; l++ {
		if l == len(t.levels) {
			t.levels = append(t.levels, make([]tlog.Hash, 0, tileWidth))
		}
		t.levels[l] = append(t.levels[l], h)
		if len(t.levels[l]) < tileWidth {
			return
		}
		if emit != nil {
			emit(object{tilePath(l, n>>(tileHeight*l), tileWidth), tileData(t.levels[l])})
		}
		h = subtreeHash(t.levels[l])
		t.levels[l] = t.levels[l][:0]
	}
}

// emitPartial gives emit the partial tiles and the partial bundle that differ
// from those of the tree when it had since leaves.
func (t *tree) emitPartial(since uint64, emit func(object)) {
	if t.size == since {
		return
	}
	n := t.size / tileWidth
	if w := int(t.size % tileWidth); w > 0 {
		emit(object{tilePath(entriesLevel, n, w), slices.Clone(t.bundle)})
	}
	for l, hashes := range t.levels {
		if t.size>>(tileHeight*l) != since>>(tileHeight*l) && len(hashes) > 0 {
			emit(object{tilePath(l, n>>(tileHeight*l), len(hashes)), tileData(hashes)})
		}
	}
}

// root is the hash of the tree (RFC 6962 section 2.1).
func (t *tree) root() tlog.Hash {
	var root tlog.Hash
	first := true
	// From the right: the smallest full subtrees are there, at the low levels.
	for _, hashes := range t.levels {
		for len(hashes) > 0 {
			n := len(hashes) & -len(hashes) // leaves of the last subtree at this level, a power of two
			sub := subtreeHash(hashes[len(hashes)-n:])
			if first {
				root, first = sub, false
			} else {
				root = tlog.NodeHash(sub, root)
			}
			hashes = hashes[:len(hashes)-n]
		}
	}
	if first {
		root, _ = tlog.TreeHash(0, nil) // the hash of nothing needs no reader
	}
	return root
}

// subtreeHash is the root above a power of two of hashes.
func subtreeHash(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return tlog.NodeHash(subtreeHash(hashes[:half]), subtreeHash(hashes[half:]))
}

func tileData(hashes []tlog.Hash) []byte {
	data := make([]byte, 0, len(hashes)*tlog.HashSize)
	for i := range hashes {
		data = append(data, hashes[i][:]...)
	}
	return data
}

// appendToBundle adds an entry in the encoding of tlog-tiles: its length as a
// big-endian uint16, and its bytes.
func appendToBundle(bundle, leaf []byte) []byte {
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(leaf)))
	return append(bundle, leaf...)
}

// splitBundle calls each with the first n entries of a bundle, which are parts
// of it. With exact, there may be no more. Errors: ErrCorrupt, those of each.
func splitBundle(bundle []byte, n int, exact bool, each func(i int, leaf []byte) error) error {
	for i := range n {
		if len(bundle) < 2 {
			return fmt.Errorf("%w: the bundle ends after %d of %d entries", ErrCorrupt, i, n)
		}
		size := int(binary.BigEndian.Uint16(bundle))
		if len(bundle) < 2+size {
			return fmt.Errorf("%w: entry %d of the bundle is cut short: %d of %d bytes", ErrCorrupt, i, len(bundle)-2, size)
		}
		if err := each(i, bundle[2:2+size]); err != nil {
			return err
		}
		bundle = bundle[2+size:]
	}
	if exact && len(bundle) > 0 {
		return fmt.Errorf("%w: %d bytes follow the %d entries of the bundle", ErrCorrupt, len(bundle), n)
	}
	return nil
}
