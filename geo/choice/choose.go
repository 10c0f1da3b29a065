package choice

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Class is why a mirror comes before others, whatever it costs.
type Class uint8

// The classes, in their strict order.
const (
	// Declared mirrors have the client's address in one of their prefixes; the
	// longest prefix comes first.
	Declared Class = iota
	// SameRegion mirrors are in the client's cloud and region.
	SameRegion
	// Elsewhere are all others.
	Elsewhere
)

// String says it in words.
func (c Class) String() string {
	switch c {
	case Declared:
		return "declared for the client's prefix"
	case SameRegion:
		return "same cloud and region"
	default:
		return "by cost"
	}
}

// Choice is a mirror that a client may be sent to.
type Choice struct {
	Index int     // of the mirror in the list
	Cost  float64 // milliseconds
	Class Class
}

const (
	// maxNear is how many mirrors share what is asked for from one place.
	maxNear = 6
	// nearMillis and nearShare are how much worse than the best a mirror may be to
	// share: the larger of the two.
	nearMillis, nearShare = 8, 0.25
	// spreadMillis is the cost after which a mirror's share falls to 1/e.
	spreadMillis = 10
	// full is the load from which on a mirror is passed over for others.
	full = 0.9
)

// candidate is a fit mirror.
type candidate struct {
	Choice

	full  bool
	bits  uint8 // of the prefix that declares it, plus one
	order int32
}

// before is the order of candidates: mirrors that are full last, then strict
// classes, then cost.
func (a *candidate) before(b *candidate) bool {
	if a.full != b.full {
		return b.full
	}
	if a.Class != b.Class {
		return a.Class < b.Class
	}
	if a.bits != b.bits {
		return a.bits > b.bits
	}
	if a.Cost != b.Cost {
		return a.Cost < b.Cost
	}
	return a.order < b.order
}

// together says whether two are of the same class, so that only cost tells them
// apart.
func (a *candidate) together(b *candidate) bool {
	return a.full == b.full && a.Class == b.Class && a.bits == b.bits
}

// Choose appends the mirrors that are to serve a request to into, the best first,
// at most as many as fit in its capacity, and returns it. states has the state of
// each mirror, by its index. It allocates nothing for up to 8 choices.
//
// Mirrors of the best class whose cost is within 8 ms or a quarter of the best
// share by weighted rendezvous hashing of the client's network and Query.Key;
// behind them come the others. A client that comes back begins further down.
func (l *List) Choose(q *Query, states []State, into []Choice) []Choice {
	room := max(cap(into)-len(into), 0)
	if room == 0 {
		return into
	}
	var buffer [8]candidate
	best := l.best(q, states, max(room, maxNear), buffer[:0])
	l.share(q, states, best)
	if n := len(best); n > 0 && q.Attempt > 0 {
		rotate(best, q.Attempt%n)
	}
	for i := range best[:min(room, len(best))] {
		into = append(into, best[i].Choice)
	}
	return into
}

// best are the first candidates, in order. Where the client is nowhere, and
// nothing declares it, only origins count, and trusted mirrors if there are none.
func (l *List) best(q *Query, states []State, most int, into []candidate) []candidate {
	at := newVector(q.Place.Lat, q.Place.Lon)
	last := Community
	if !q.Place.Located {
		last = Origin
	}
	for {
		top := into[:0]
		nearby := l.from[q.Place.Continent]
		for n := range nearby {
			h := &nearby[n]
			// Most mirrors are too far, which is the cheapest to see.
			if len(top) == most && top[most-1].Class == Elsewhere && !top[most-1].full && h.exceeds(q, at, top[most-1].Cost, l.model) {
				continue
			}
			i := int(h.index)
			m := &l.mirrors[i]
			c := candidate{Choice: Choice{Index: i, Class: Elsewhere}, full: states[i].Load >= full, order: m.order}
			if c.bits = m.declares(q.Client); c.bits > 0 {
				c.Class = Declared
			} else if m.Cloud != "" && m.Cloud == q.Place.Cloud && m.Region == q.Place.Region {
				c.Class = SameRegion
			}
			if c.Class == Elsewhere && m.Tier > last {
				continue
			}
			if m.unfit(q, &states[i]) != "" {
				continue
			}
			c.Cost = l.model.cost(m, q, at)
			top = insert(top, c, most)
		}
		if len(top) > 0 || last == Community {
			return top
		}
		last++
	}
}

// insert keeps the first most candidates in order.
func insert(top []candidate, c candidate, most int) []candidate {
	if len(top) == most {
		if !c.before(&top[most-1]) {
			return top
		}
		top = top[:most-1]
	}
	at := len(top)
	for at > 0 && c.before(&top[at-1]) {
		at--
	}
	return slices.Insert(top, at, c)
}

// declares is the length of the longest prefix of a mirror that has the client,
// in bits, plus one; 0 when none has.
func (m *prepared) declares(client netip.Addr) uint8 {
	longest := 0
	for _, p := range m.Prefixes {
		if p.Bits() >= longest && p.Contains(client) {
			longest = p.Bits() + 1
		}
	}
	return uint8(longest)
}

// share orders the near ones among the first: the cheaper, then by rendezvous.
func (l *List) share(q *Query, states []State, best []candidate) {
	near := 0
	for near < len(best) && near < maxNear && best[near].together(&best[0]) &&
		best[near].Cost <= best[0].Cost+max(nearMillis, nearShare*best[0].Cost) {
		near++
	}
	if near < 2 {
		return
	}
	key := q.hash()
	least := best[0].Cost
	var scores [maxNear]float64
	for i := range near {
		m, s := &l.mirrors[best[i].Index], &states[best[i].Index]
		weight := m.weight * s.Ramp * math.Exp(-(best[i].Cost-least)/spreadMillis)
		scores[i] = score(key, m.hash, weight)
	}
	for i := 1; i < near; i++ { // insertion sort, of two arrays at once
		for j := i; j > 0 && l.comes(&best[j], &best[j-1], scores[j], scores[j-1]); j-- {
			best[j], best[j-1] = best[j-1], best[j]
			scores[j], scores[j-1] = scores[j-1], scores[j]
		}
	}
}

// comes says whether one of two near mirrors comes first.
func (l *List) comes(a, b *candidate, scoreA, scoreB float64) bool {
	if c := cmp.Compare(l.mirrors[a.Index].CostPerGiB, l.mirrors[b.Index].CostPerGiB); c != 0 {
		return c < 0
	}
	if scoreA != scoreB {
		return scoreA > scoreB
	}
	return a.order < b.order
}

// score is of weighted rendezvous hashing: the highest wins, each with a chance
// in proportion to its weight (Thaler and Ravishankar 1998, with logarithms).
func score(key, mirror uint64, weight float64) float64 {
	h := mix(key ^ mirror)
	u := (float64(h>>11) + 0.5) / (1 << 53) // in (0, 1)
	return -weight / math.Log(u)
}

// mix spreads every bit over all (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// hash is of the client's network, a /24 or /48, and what belongs together.
func (q *Query) hash() uint64 {
	h := xxhash.Sum64String(q.Key)
	bits := 48
	if q.Client.Is4() {
		bits = 24
	}
	network, err := q.Client.Prefix(bits)
	if err != nil { // there is no address
		return mix(h)
	}
	bytes := network.Addr().As16()
	return mix(mix(h^binary.BigEndian.Uint64(bytes[:8])) ^ binary.BigEndian.Uint64(bytes[8:]))
}

// rotate has the element at n come first.
func rotate(s []candidate, n int) {
	slices.Reverse(s[:n])
	slices.Reverse(s[n:])
	slices.Reverse(s)
}

// Explanation is why a mirror has its place in a choice.
type Explanation struct {
	Index int
	// Rank is its place, from 1; 0 when it is passed over.
	Rank  int
	Cost  float64 // milliseconds, of those that have a rank
	Class Class
	// Reason is why it was passed over, in plain words.
	Reason string
}

// Explain says of every mirror of the list what becomes of it, by its index.
func (l *List) Explain(q *Query, states []State) []Explanation {
	all := make([]Explanation, len(l.mirrors))
	for i := range all {
		all[i] = Explanation{Index: i, Reason: l.mirrors[i].unfit(q, &states[i])}
		if all[i].Reason == "" {
			all[i].Reason = "the client's place is not known: only origins count"
		}
	}
	for rank, c := range l.Choose(q, states, make([]Choice, 0, len(l.mirrors))) {
		all[c.Index] = Explanation{Index: c.Index, Rank: rank + 1, Cost: c.Cost, Class: c.Class}
	}
	return all
}
