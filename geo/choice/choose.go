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
// each mirror, by its index. It allocates nothing for up to 8 choices, but for the
// first of a place ([List] remembers how mirrors rank from there).
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
	s := search{l: l, q: q, states: states, ranks: l.ranks(&q.Place), most: max(room, maxNear)}
	best := s.best(buffer[:0])
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
	ranks  []rank // of all mirrors, from where the client is
	last   Tier   // that counts
	most   int    // candidates that are wanted
}

// best are the first candidates, in order. Where the client is nowhere, and
// nothing declares it, only origins count, and trusted mirrors if there are none.
func (s *search) best(into []candidate) []candidate {
	s.last = Community
	if !s.q.Place.Located {
		s.last = Origin
	}
	for ; s.last <= Community; s.last++ {
		if first := s.first(); first.order >= 0 {
			return s.all(&first, into)
		}
	}
	return into
}

// nothing is a candidate that is none.
const nothing = -1

// first is the best candidate as long as none shares; its order is nothing when
// there is none.
func (s *search) first() candidate {
	best := candidate{order: nothing}
	take := func(c *candidate) {
		if c.order != nothing && (best.order == nothing || c.before(&best)) {
			best = *c
		}
	}
	for i := range s.l.declaring {
		c := s.declared(s.l.declaring[i])
		take(&c)
	}
	for i := range s.ranks {
		if best.order != nothing && !best.full {
			break // what ranks behind is behind
		}
		c := s.ranked(&s.ranks[i])
		take(&c)
	}
	return best
}

// all are the first candidates, when the best is known, and with it up to which
// cost one shares. When more are near than are wanted, which ones are first is for
// the sharing to say: so each is used by somebody, and one that comes or goes moves
// only what is its own.
func (s *search) all(first *candidate, top []candidate) []candidate {
	limit, key := nearLimit(first.Cost), s.q.hash()
	take := func(c *candidate) {
		if c.order == nothing {
			return
		}
		if c.together(first) && c.Cost <= limit {
			s.score(c, first.Cost, key)
		}
		top = insert(top, c, s.most)
	}
	for i := range s.l.declaring {
		c := s.declared(s.l.declaring[i])
		take(&c)
	}
	for i := range s.ranks {
		r := &s.ranks[i]
		if len(top) == s.most {
			last := &top[s.most-1]
			if r.class == Elsewhere && !last.full && r.cost > max(limit, last.Cost) {
				break
			}
			if last.shares && !s.l.mirrors[r.index].mayBeat(last, key) {
				continue
			}
		}
		c := s.ranked(r)
		take(&c)
	}
	return top
}

// nearLimit is the cost up to which mirrors share with one that has the least.
func nearLimit(least float64) float64 { return least + max(nearMillis, nearShare*least) }

// declared is a mirror with prefixes as a candidate, if one of them has the client.
func (s *search) declared(index int32) candidate {
	bits := s.l.mirrors[index].declares(s.q.Client)
	if bits == 0 {
		return candidate{order: nothing}
	}
	at := slices.IndexFunc(s.ranks, func(r rank) bool { return r.index == index })
	c := s.candidate(&s.ranks[at])
	c.Class, c.bits = Declared, bits
	return c
}

// ranked is a mirror as a candidate by its rank, unless it declares the client.
func (s *search) ranked(r *rank) candidate {
	m := &s.l.mirrors[r.index]
	if r.class == Elsewhere && m.Tier > s.last || len(m.Prefixes) > 0 && m.declares(s.q.Client) > 0 {
		return candidate{order: nothing}
	}
	return s.candidate(r)
}

// candidate is a mirror as one, if it is fit.
func (s *search) candidate(r *rank) candidate {
	m, state := &s.l.mirrors[r.index], &s.states[r.index]
	if m.unfit(s.q, state) != "" {
		return candidate{order: nothing}
	}
	return candidate{
		Choice: Choice{Index: int(r.index), Cost: r.cost, Class: r.class},
		full:   state.Load >= full, order: m.order, perGiB: m.CostPerGiB,
	}
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

// score makes a candidate one that shares, with others whose least cost is known.
func (s *search) score(c *candidate, least float64, key uint64) {
	m := &s.l.mirrors[c.Index]
	weight := m.weight * s.states[c.Index].Ramp * math.Exp(-(c.Cost-least)/spreadMillis)
	c.shares, c.score = true, score(key, m.hash, weight)
}

// mayBeat says whether a mirror may come before a candidate that shares. It costs
// less to say than the score: -ln(u) is at least 1-u.
func (m *prepared) mayBeat(c *candidate, key uint64) bool {
	if m.CostPerGiB != c.perGiB {
		return m.CostPerGiB < c.perGiB
	}
	return m.weight/(1-uniform(key, m.hash)) >= c.score
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
