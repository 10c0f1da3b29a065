package choice

import (
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

	full, shares bool
	bits         uint8 // of the prefix that declares it, plus one
	order        int32
	// perGiB and score are the order of those that share.
	perGiB, score float64
}

// before is the order of candidates: mirrors that are full last, then strict
// classes, then those that share, the cheaper and higher scored first, then cost.
func (a *candidate) before(b *candidate) bool {
	switch {
	case a.full != b.full:
		return b.full
	case a.Class != b.Class:
		return a.Class < b.Class
	case a.bits != b.bits:
		return a.bits > b.bits
	case a.shares != b.shares:
		return a.shares
	case a.shares && a.perGiB != b.perGiB:
		return a.perGiB < b.perGiB
	case a.shares && a.score != b.score:
		return a.score > b.score
	case a.Cost != b.Cost:
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
// share by weighted rendezvous hashing of the client's network and Query.Key, six
// of them for each; behind them come the others. A client that comes back begins
// further down.
func (l *List) Choose(q *Query, states []State, into []Choice) []Choice {
	room := max(cap(into)-len(into), 0)
	if room == 0 {
		return into
	}
	var buffer [8]candidate
	s := search{l: l, q: q, states: states, at: newVector(q.Place.Lat, q.Place.Lon), most: max(room, maxNear)}
	best := s.share(s.best(buffer[:0]))
	if n := len(best); n > 0 && q.Attempt > 0 {
		rotate(best, q.Attempt%n)
	}
	for i := range best[:min(room, len(best))] {
		into = append(into, best[i].Choice)
	}
	return into
}

// search is for the candidates of one request.
type search struct {
	l      *List
	q      *Query
	states []State
	at     vector // of the client
	last   Tier   // that counts
	most   int    // candidates that are wanted
	// crowded says that so many were near that others were not looked at, but for
	// better ones.
	crowded bool
}

// best are the first candidates, in order. Where the client is nowhere, and
// nothing declares it, only origins count, and trusted mirrors if there are none.
func (s *search) best(into []candidate) []candidate {
	s.last = Community
	if !s.q.Place.Located {
		s.last = Origin
	}
	for {
		top, enough := into[:0], math.Inf(1)
		nearby := s.l.from[s.q.Place.Continent]
		for n := range nearby {
			h := &nearby[n]
			if h.outside(s.q, s.last) || h.exceeds(s.q, s.at, enough, s.l.model) { // most are too far, which is the cheapest to see
				continue
			}
			if c := s.candidate(int(h.index)); c.order >= 0 {
				top = insert(top, &c, s.most)
				enough = s.enough(top)
			}
		}
		if len(top) > 0 || s.last == Community {
			return top
		}
		s.last++
	}
}

// enough is the cost above which no other candidate counts: that of the last, and
// where all of them are near, that of the best, as they are looked for again then. To
// be better by less than a picosecond is not to be better.
func (s *search) enough(top []candidate) float64 {
	const picosecond = 1e-9
	first, last := &top[0], &top[len(top)-1]
	if len(top) < s.most || last.Class != Elsewhere || last.full {
		return math.Inf(1)
	}
	if last.together(first) && last.Cost <= nearLimit(first.Cost) {
		s.crowded = true
		return first.Cost - picosecond
	}
	return last.Cost
}

// nearLimit is the cost up to which mirrors share with one that has the least.
func nearLimit(least float64) float64 { return least + max(nearMillis, nearShare*least) }

// candidate is a mirror as one; its order is negative when it is none.
func (s *search) candidate(i int) candidate {
	m, state := &s.l.mirrors[i], &s.states[i]
	c := candidate{Choice: Choice{Index: i, Class: Elsewhere}, full: state.Load >= full, order: m.order, perGiB: m.CostPerGiB}
	if c.bits = m.declares(s.q.Client); c.bits > 0 {
		c.Class = Declared
	} else if m.Cloud != "" && m.Cloud == s.q.Place.Cloud && m.Region == s.q.Place.Region {
		c.Class = SameRegion
	}
	if c.Class == Elsewhere && m.Tier > s.last || m.unfit(s.q, state) != "" {
		c.order = -1
		return c
	}
	c.Cost = s.l.model.cost(m, s.q, s.at)
	return c
}

// insert keeps the first most candidates in order.
func insert(top []candidate, c *candidate, most int) []candidate {
	switch at := len(top); {
	case at < most:
		top = append(top, *c)
	case !c.before(&top[at-1]):
		return top
	}
	at := len(top) - 1
	for ; at > 0 && c.before(&top[at-1]); at-- {
		top[at] = top[at-1]
	}
	top[at] = *c
	return top
}

// share orders the near ones among the first. When more are near than were wanted,
// which ones are first is for the sharing to say: so each is used by somebody, and
// one that comes or goes moves only what is its own.
func (s *search) share(best []candidate) []candidate {
	if len(best) < 2 {
		return best
	}
	first := best[0]
	limit, key := nearLimit(first.Cost), s.q.hash()
	near := 1
	for near < len(best) && best[near].together(&first) && best[near].Cost <= limit {
		near++
	}
	switch {
	case near == s.most && near < s.l.Len(): // none that is not near can be among the first
		return s.again(&first, limit, limit, key, best[:0])
	case s.crowded:
		return s.again(&first, limit, math.Inf(1), key, best[:0])
	}
	for i := range near { // insertion sort
		c := best[i]
		s.score(&c, first.Cost, key)
		insert(best[:i], &c, near)
	}
	return best
}

// again looks for the first candidates when the best is known, and with it up to
// which cost one shares. No candidate costs more than enough.
func (s *search) again(first *candidate, limit, enough float64, key uint64, top []candidate) []candidate {
	least, nearby := first.Cost, s.l.from[s.q.Place.Continent]
	for n := range nearby {
		h := &nearby[n]
		if h.outside(s.q, s.last) {
			continue
		}
		if len(top) == s.most {
			last := &top[s.most-1]
			if last.shares && !h.mayBeat(last, key) {
				continue
			}
			if last.Class == Elsewhere && !last.full {
				enough = max(limit, last.Cost)
			}
		}
		if h.exceeds(s.q, s.at, enough, s.l.model) {
			continue
		}
		c := s.candidate(int(h.index))
		if c.order < 0 {
			continue
		}
		if c.together(first) && c.Cost <= limit {
			s.score(&c, least, key)
		}
		top = insert(top, &c, s.most)
	}
	return top
}

// score makes a candidate one that shares, with others whose least cost is known.
func (s *search) score(c *candidate, least float64, key uint64) {
	m := &s.l.mirrors[c.Index]
	weight := m.weight * s.states[c.Index].Ramp * math.Exp(-(c.Cost-least)/spreadMillis)
	c.shares, c.score = true, score(key, m.hash, weight)
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

// score is of weighted rendezvous hashing: the highest wins, each with a chance
// in proportion to its weight (Thaler and Ravishankar 1998, with logarithms).
func score(key, mirror uint64, weight float64) float64 {
	return -weight / math.Log(uniform(key, mirror))
}

// uniform is a number between 0 and 1 that a key has at a mirror.
func uniform(key, mirror uint64) float64 {
	return (float64(mix(key^mirror)>>11) + 0.5) / (1 << 53)
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
