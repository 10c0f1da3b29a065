package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// The tree agrees with tlog's own in roots, and in which tiles there are and
// what they hold, for all growths across the borders of tiles.
func TestTreesAgreeWithTlog(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	leaf := func(i int) []byte { return fmt.Appendf(nil, "leaf %d", i) }
	const most = 66000 // a tile at level 2 begins at 65,536
	for i := range most {
		hashes, err := tlog.StoredHashes(int64(i), leaf(i), reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
	}
	tr := new(tree)
	for _, size := range []int{0, 1, 2, 3, 255, 256, 257, 511, 512, 700, 65535, 65536, 65537, most} {
		since := tr.size
		got := make(map[string][]byte)
		emit := func(o object) { got[o.path] = o.data }
		for tr.size < uint64(size) {
			tr.add(leaf(int(tr.size)), emit)
		}
		tr.emitPartial(since, emit)

		root, err := tlog.TreeHash(int64(size), reader)
		if err != nil {
			t.Fatal(err)
		}
		if tr.root() != root {
			t.Fatalf("the root of %d leaves is %v, tlog's %v", size, tr.root(), root)
		}
		for _, tile := range tlog.NewTiles(tileHeight, int64(since), int64(size)) {
			want, err := tlog.ReadTileData(tile, reader)
			if err != nil {
				t.Fatal(err)
			}
			path := tilePath(tile.L, uint64(tile.N), tile.W)
			if !bytes.Equal(got[path], want) {
				t.Errorf("from %d to %d leaves: tile %s is not tlog's", since, size, path)
			}
			delete(got, path)
			if tile.L == 0 {
				path = tilePath(entriesLevel, uint64(tile.N), tile.W)
				i := int(tile.N) * tileWidth
				err := splitBundle(got[path], tile.W, true, func(j int, l []byte) error {
					if !bytes.Equal(l, leaf(i+j)) {
						t.Errorf("entry %d of %s is %q", j, path, l)
					}
					return nil
				})
				if err != nil {
					t.Errorf("%s: %v", path, err)
				}
				delete(got, path)
			}
		}
		for path := range got {
			t.Errorf("from %d to %d leaves: %s, which tlog does not have", since, size, path)
		}
	}
}

// The examples of C2SP's tlog-tiles.
func TestPathsAreC2SPs(t *testing.T) {
	for path, tile := range map[string]tlog.Tile{
		"tile/0/x001/x234/067":           {H: 8, L: 0, N: 1234067, W: 256},
		"tile/2/000.p/1":                 {H: 8, L: 2, N: 0, W: 1},
		"tile/entries/273.p/112":         {H: 8, L: entriesLevel, N: 273, W: 112},
		"tile/entries/x001/x234/067":     {H: 8, L: entriesLevel, N: 1234067, W: 256},
		"tile/entries/x001/x234/067.p/8": {H: 8, L: entriesLevel, N: 1234067, W: 8},
	} {
		if got := tilePath(tile.L, uint64(tile.N), tile.W); got != path {
			t.Errorf("tilePath(%v) = %s, want %s", tile, got, path)
		}
		if got, ok := parseTilePath(path); !ok || got != tile {
			t.Errorf("parseTilePath(%s) = %v, %v, want %v", path, got, ok, tile)
		}
	}
	for _, path := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/0", "tile/0/1", "tile/00/000", "tile/-1/000", "tile/64/000", "tile/data/000",
		"tile/8/0/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p", "tile/0/000.p/", "tile/0/x000/001",
		"tile/0/001/002", "tile/entries/", "tile/entries/1", "tile/entries/../000", "/tile/0/000", "tile//000", "tile/0/000/",
	} {
		if got, ok := parseTilePath(path); ok {
			t.Errorf("parseTilePath(%q) = %v, want none", path, got)
		}
	}
}

func TestABundleThatIsCutShortIsCorrupt(t *testing.T) {
	var bundle []byte
	for i := range 3 {
		bundle = appendToBundle(bundle, fmt.Appendf(nil, "entry %d", i))
	}
	all := func(int, []byte) error { return nil }
	for n := range bundle {
		if err := splitBundle(bundle[:n], 3, true, all); !errors.Is(err, ErrCorrupt) {
			t.Errorf("the first %d bytes: %v, want ErrCorrupt", n, err)
		}
	}
	if err := splitBundle(append(bundle, 0), 3, true, all); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte more: %v, want ErrCorrupt", err)
	}
	if err := splitBundle(bundle, 2, false, all); err != nil {
		t.Errorf("the first 2 of 3: %v", err)
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(appendToBundle(appendToBundle(nil, []byte("one")), []byte("two")), 2)
	f.Add([]byte{0, 5, 'x'}, 1)
	f.Fuzz(func(t *testing.T, bundle []byte, n int) {
		var again []byte
		err := splitBundle(bundle, n%1000, true, func(_ int, leaf []byte) error {
			again = appendToBundle(again, leaf)
			return nil
		})
		if err == nil && !bytes.Equal(again, bundle) {
			t.Errorf("%x was split to what comes to %x", bundle, again)
		}
	})
}
