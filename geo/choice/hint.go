package choice

import (
	"cmp"
	"math"
	"slices"

	"entrepot/geo/locate"
)

// hint is what of a mirror is enough to pass it over when better ones are known,
// without a look at the mirror, which is in other memory, or at its arc, which is
// dear to compute. It is of the clients of one continent.
type hint struct {
	at      vector
	least   float64 // milliseconds at a distance of 0, in the mirror's country
	hash    uint64  // these three as the mirror has them
	weight  float64
	perGiB  float32
	index   int32
	country locate.Country
	tier    Tier
	cloud   bool // it is in one
	always  bool // distance is not all that counts
}

// hints are of all mirrors. Those that are near most clients of the continent come
// first, so that most of the others are passed over: its own, and of the rest the
// cheapest way.
func (l *List) hints(continent locate.Continent) []hint {
	all := make([]hint, len(l.mirrors))
	for i := range all {
		m := &l.mirrors[i]
		h := hint{
			at: m.at, country: m.Country, tier: m.Tier, cloud: m.Cloud != "", index: int32(i),
			hash: m.hash, weight: m.weight, perGiB: float32(m.CostPerGiB),
			least:  l.model.Base + l.model.continents[continent][m.Continent],
			always: len(m.Prefixes) > 0 || len(m.measured) > 0,
		}
		if len(m.ASNs) > 0 {
			h.least -= l.model.SameNetwork
		}
		all[i] = h
	}
	slices.SortStableFunc(all, func(a, b hint) int { return cmp.Compare(a.least, b.least) })
	return all
}

// outside says that the mirror is of a tier that does not count, and that nothing
// declares the client to be its own.
func (h *hint) outside(q *Query, last Tier) bool {
	return h.tier > last && !h.always && (!h.cloud || q.Place.Cloud == "")
}

// mayBeat says whether the mirror may come before a candidate that shares. It costs
// less to say than the score: -ln(u) is at least 1-u.
func (h *hint) mayBeat(c *candidate, key uint64) bool {
	if h.perGiB != float32(c.perGiB) {
		return h.perGiB < float32(c.perGiB)
	}
	return h.weight/(1-uniform(key, h.hash)) >= c.score
}

// exceeds says whether the mirror costs a client more than some milliseconds, as
// far as that is plain: by the client's radius, and by the first terms of the arc's
// series over its chord, which are never longer than the arc. When it says no, the
// mirror may cost more all the same.
func (h *hint) exceeds(q *Query, at vector, millis float64, c *model) bool {
	if h.always || h.cloud && q.Place.Cloud != "" {
		return false
	}
	if !q.Place.Located {
		return millis < c.Base
	}
	millis -= h.least
	if q.Place.Country != h.country {
		millis -= c.Border
	}
	if millis < c.PerKm*q.Place.Radius {
		return true
	}
	arc, chord2 := millis*c.radiiPerMilli, 2-2*at.dot(h.at)
	return chord2 > arc*arc || math.Sqrt(chord2)*(1+chord2/24+chord2*chord2*3/640) > arc
}
