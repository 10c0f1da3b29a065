package choice

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"entrepot/geo/locate"
)

// inOrder is what Choose promises, without thought for how long it takes: every fit
// mirror is compared with every other.
func inOrder(l *List, q *Query, states []State, room int) []Choice {
	type fit struct {
		Choice

		full, bits, shares int
		score              float64
	}
	last := Community
	if !q.Place.Located {
		last = Origin
	}
	var all []fit
	for ; len(all) == 0 && last <= Community; last++ {
		for i := range l.mirrors {
			m := &l.mirrors[i]
			f := fit{Choice: Choice{Index: i, Class: Elsewhere, Cost: l.model.cost(m, &q.Place, newVector(q.Place.Lat, q.Place.Lon))}, bits: int(m.declares(q.Client))}
			switch {
			case f.bits > 0:
				f.Class = Declared
			case m.Cloud != "" && m.Cloud == q.Place.Cloud && m.Region == q.Place.Region:
				f.Class = SameRegion
			case m.Tier > last:
				continue
			}
			if states[i].Load >= full {
				f.full = 1
			}
			if m.unfit(q, &states[i]) == "" {
				all = append(all, f)
			}
		}
	}
	order := func(a, b fit) int {
		group := cmp.Or(a.full-b.full, cmp.Compare(a.Class, b.Class), b.bits-a.bits, b.shares-a.shares)
		if group == 0 && a.shares > 0 {
			group = cmp.Or(cmp.Compare(l.mirrors[a.Index].CostPerGiB, l.mirrors[b.Index].CostPerGiB), cmp.Compare(b.score, a.score))
		}
		return cmp.Or(group, cmp.Compare(a.Cost, b.Cost), cmp.Compare(l.mirrors[a.Index].Name, l.mirrors[b.Index].Name))
	}
	slices.SortFunc(all, order)
	if len(all) > 0 {
		best := all[0]
		for i := range all {
			if c := &all[i]; c.full == best.full && c.Class == best.Class && c.bits == best.bits && c.Cost <= best.Cost+max(8, best.Cost/4) {
				s := search{l: l, states: states}
				scored := candidate{Choice: c.Choice}
				s.score(&scored, best.Cost, q.hash())
				c.shares, c.score = 1, scored.score
			}
		}
	}
	slices.SortFunc(all, order)
	all = all[:min(len(all), max(room, 6))]
	var choices []Choice
	for i := range all {
		choices = append(choices, all[(i+q.Attempt)%len(all)].Choice)
	}
	return choices[:min(room, len(choices))]
}

// crowd is many mirrors, most of which are near others.
func crowd(t *testing.T, random *rand.Rand) []Mirror {
	t.Helper()
	mirrors := equals(t, 1+random.IntN(30))
	countries := []locate.Country{country(t, "DE"), country(t, "FR"), country(t, "US")}
	for i := range mirrors {
		m := aMirror(t, random, mirrors[i])
		m.Tier, m.Lat, m.Lon = Tier(random.IntN(3)), float64(random.IntN(60)), float64(random.IntN(60))
		m.Country, m.Continent = countries[random.IntN(3)], locate.Continent(1+random.IntN(7))
		m.CostPerGiB = float64(random.IntN(2))
		switch random.IntN(8) {
		case 0:
			m.Prefixes = []netip.Prefix{netip.MustParsePrefix("129.132.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}
		case 1:
			m.Prefixes = []netip.Prefix{netip.MustParsePrefix("129.0.0.0/8")}
		case 2:
			m.Cloud, m.Region = "aws", "us-east-1"
		case 3:
			m.ASNs = []uint32{559}
		}
		mirrors[i] = m
	}
	mirrors[0].Tier, mirrors[0].Kind = Origin, Node
	return mirrors
}

func TestTheOrderIsThatOfComparingEveryMirrorWithEveryOther(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 150 {
		l := newList(t, crowd(t, random), Constants{Measured: []Measurement{{From: country(t, "FR"), Mirror: "m0", Millis: 3}}})
		l.remembered.slots = l.remembered.slots[:1] // places take it from each other
		states := l.well()
		for i := range states {
			states[i] = State{Up: random.IntN(5) > 0, Ramp: random.Float64(), Load: random.Float64() * 1.3, Frozen: random.IntN(9) == 0}
		}
		for range 40 {
			q := Query{
				What: What(random.IntN(4)), Size: 1 << 20, Namespace: "docker.io", Key: fmt.Sprint(random.IntN(9)), Attempt: random.IntN(4),
				Client: netip.AddrFrom4([4]byte{byte(128 + random.IntN(3)), byte(random.IntN(256)), 0, 1}),
			}
			if random.IntN(5) > 0 {
				q.Place = locate.Place{
					Country: country(t, []string{"DE", "FR", "JP"}[random.IntN(3)]), Continent: locate.Continent(random.IntN(8)), Located: random.IntN(5) > 0,
					Lat: float64(random.IntN(60)), Lon: float64(random.IntN(60)), Radius: float64(random.IntN(500)),
				}
			}
			if random.IntN(4) == 0 {
				q.Place.Cloud, q.Place.Region, q.Place.ASN = "aws", "us-east-1", 559
			}
			room := 1 + random.IntN(9)
			got, want := l.Choose(&q, states, make([]Choice, 0, room)), inOrder(l, &q, states, room)
			if !slices.Equal(got, want) {
				t.Fatalf("%+v\nwith %d mirrors, room for %d: %+v, want %+v", q, l.Len(), room, got, want)
			}
		}
	}
}

// What a list remembers is bounded, and clients at many places can ask at once.
func TestWhatIsRememberedOfPlacesIsBoundedAndNeverMixedUp(t *testing.T) {
	for _, n := range []int{1, 100, 3000} {
		l := newList(t, equals(t, n), Constants{})
		if held := len(l.remembered.slots) * n; held > mostRanks || len(l.remembered.slots) > mostPlaces {
			t.Errorf("%d mirrors: remembers %d places, %d ranks", n, len(l.remembered.slots), held)
		}
	}
	l := newList(t, world(t), Constants{})
	l.remembered.slots = l.remembered.slots[:1]
	states := l.well()
	var clients sync.WaitGroup
	for name, place := range places(t) {
		q := Query{What: Blob, Size: 1 << 20, Namespace: "docker.io", Client: netip.MustParseAddr("192.0.2.1"), Place: place, Secure: true}
		want := inOrder(l, &q, states, 6)
		for range 2 {
			clients.Go(func() {
				for range 200 {
					if got := l.Choose(&q, states, make([]Choice, 0, 6)); !slices.Equal(got, want) {
						t.Errorf("from %s: %+v, want %+v", name, got, want)
						return
					}
				}
			})
		}
	}
	clients.Wait()
}

// BenchmarkRankFromANewPlace is what the first client of a place costs more.
func BenchmarkRankFromANewPlace(b *testing.B) {
	l := newList(b, equals(b, 100), Constants{})
	p := places(b)["Berlin"]
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Lat = float64(i) * 1e-6
		l.ranks(&p)
	}
}
