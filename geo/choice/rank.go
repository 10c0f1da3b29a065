package choice

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync/atomic"

	"entrepot/geo/locate"
)

// rank is a mirror's place in the order in which clients at one place prefer
// mirrors, as long as all are fit and none declares them.
type rank struct {
	cost  float64 // milliseconds
	index int32   // of the mirror
	class Class   // SameRegion or Elsewhere
}

// ranks are of all mirrors, from a place: those of its cloud and region first, and
// then by cost. They are computed once for a place, as a client asks for many things
// and is seldom alone where it is.
func (l *List) ranks(p *locate.Place) []rank {
	slot := l.remembered.slot(p)
	if r := slot.Load(); r != nil && r.place == *p {
		return r.ranks
	}
	r := &ranking{place: *p, ranks: make([]rank, len(l.mirrors))}
	at := newVector(p.Lat, p.Lon)
	for i := range r.ranks {
		m := &l.mirrors[i]
		r.ranks[i] = rank{cost: l.model.cost(m, p, at), index: int32(i), class: Elsewhere}
		if m.Cloud != "" && m.Cloud == p.Cloud && m.Region == p.Region {
			r.ranks[i].class = SameRegion
		}
	}
	slices.SortFunc(r.ranks, func(a, b rank) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.cost, b.cost), cmp.Compare(l.mirrors[a.index].order, l.mirrors[b.index].order))
	})
	slot.Store(r)
	return r.ranks
}

// ranking is the ranks of one place.
type ranking struct {
	place locate.Place
	ranks []rank
}

// memory remembers rankings: a place has one slot, which it may have to share.
type memory struct {
	seed  maphash.Seed
	slots []atomic.Pointer[ranking] // a power of two
}

const (
	// mostRanks bounds what a list remembers, to 16 bytes for each of a mirror at a
	// place, and mostPlaces for how many places.
	mostRanks  = 1 << 20
	mostPlaces = 1 << 12
)

func newMemory(mirrors int) memory {
	places := min(mostPlaces, max(1, mostRanks/max(1, mirrors)))
	return memory{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[ranking], 1<<(bits.Len(uint(places))-1))}
}

func (m *memory) slot(p *locate.Place) *atomic.Pointer[ranking] {
	return &m.slots[maphash.Comparable(m.seed, *p)%uint64(len(m.slots))]
}
