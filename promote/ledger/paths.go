package ledger

import (
	"math"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// The paths of objects and their shapes are those of C2SP's tlog-tiles.
const (
	checkpointPath = "checkpoint"
	tilePrefix     = "tile/"
	entriesPrefix  = "tile/entries/"

	// headPath is what was committed last. No reader of the log needs it: see
	// head.go.
	headPath = "head"

	tileHeight = 8
	tileWidth  = 1 << tileHeight

	maxLeaf       = math.MaxUint16 // bytes, as a bundle's length prefix allows
	maxCheckpoint = 64 << 10
	maxHead       = 256 << 20
)

// entriesLevel is tlog's level of tiles that hold data.
const entriesLevel = -1

// tilePath is the path of the n-th tile of a level with width hashes, or of
// the n-th bundle of width entries.
func tilePath(level int, n uint64, width int) string {
	t := tlog.Tile{H: tileHeight, L: level, N: int64(n), W: width}
	// tlog puts the height first, and calls entries data.
	path := strings.TrimPrefix(t.Path(), "tile/8/")
	if data, ok := strings.CutPrefix(path, "data/"); ok {
		return entriesPrefix + data
	}
	return tilePrefix + path
}

// parseTilePath is the reverse of tilePath.
func parseTilePath(path string) (tlog.Tile, bool) {
	rest, ok := strings.CutPrefix(path, tilePrefix)
	// Longer than any number of entries needs; and tlog would take its own name
	// for entries too.
	if !ok || len(path) > 64 || strings.HasPrefix(rest, "data/") {
		return tlog.Tile{}, false
	}
	if entries, ok := strings.CutPrefix(path, entriesPrefix); ok {
		rest = "data/" + entries
	}
	t, err := tlog.ParseTilePath("tile/8/" + rest)
	return t, err == nil && t.L < 64
}

// maxSize is how large the object at a path can be, in bytes.
func maxSize(path string) int64 {
	switch {
	case path == headPath:
		return maxHead
	case strings.HasPrefix(path, entriesPrefix):
		return tileWidth * (2 + maxLeaf)
	case strings.HasPrefix(path, tilePrefix):
		return tileWidth * tlog.HashSize
	default:
		return maxCheckpoint
	}
}
