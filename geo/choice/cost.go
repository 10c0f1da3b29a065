package choice

import (
	"math"
	"slices"

	"entrepot/geo/locate"
)

// Constants are of the estimate of how long a mirror's first byte takes to a
// client. Zero values mean those of [DefaultConstants].
type Constants struct {
	// Base is milliseconds that any mirror takes, PerKm what each kilometre
	// adds, and Border what another country adds.
	Base, PerKm, Border float64
	// SameNetwork is milliseconds that a mirror in the client's own network (ASN)
	// saves, if it is at most SameNetworkWithin km away.
	SameNetwork, SameNetworkWithin float64
	// Continents is what the way between two continents adds, in milliseconds, in
	// both directions. It adds to the table of [DefaultConstants].
	Continents map[[2]locate.Continent]float64
	// Measured are milliseconds that were measured, in place of the estimate.
	Measured []Measurement
}

// Measurement is how long a mirror takes to the clients of a country.
type Measurement struct {
	From   locate.Country
	Mirror string
	Millis float64
}

// DefaultConstants are what great circles leave out: cables between continents
// do not follow them. By distance alone, Cape Town would be served from São
// Paulo.
func DefaultConstants() Constants {
	pair := func(a, b locate.Continent) [2]locate.Continent { return [2]locate.Continent{a, b} }
	return Constants{
		Base: 2, PerKm: 0.015, Border: 10, SameNetwork: 12, SameNetworkWithin: 1500,
		Continents: map[[2]locate.Continent]float64{
			pair(locate.AF, locate.EU): 20, pair(locate.AF, locate.NA): 40, pair(locate.AF, locate.AS): 80,
			pair(locate.AF, locate.SA): 120, pair(locate.AF, locate.OC): 120, pair(locate.AS, locate.EU): 40,
			pair(locate.AS, locate.NA): 30, pair(locate.AS, locate.OC): 20, pair(locate.AS, locate.SA): 120,
			pair(locate.EU, locate.NA): 20, pair(locate.EU, locate.OC): 100, pair(locate.EU, locate.SA): 40,
			pair(locate.NA, locate.OC): 30, pair(locate.NA, locate.SA): 20, pair(locate.OC, locate.SA): 80,
		},
	}
}

// model is constants in the form that is computed with.
type model struct {
	Constants

	continents [continents][continents]float64
}

// continents is how many there are, with that of unknown places, which is 0.
const continents = int(locate.SA) + 1

func newModel(c Constants) *model {
	d := DefaultConstants()
	set := func(v *float64, otherwise float64) {
		if *v == 0 {
			*v = otherwise
		}
	}
	set(&c.Base, d.Base)
	set(&c.PerKm, d.PerKm)
	set(&c.Border, d.Border)
	set(&c.SameNetwork, d.SameNetwork)
	set(&c.SameNetworkWithin, d.SameNetworkWithin)
	m := &model{Constants: c}
	for _, table := range []map[[2]locate.Continent]float64{d.Continents, c.Continents} {
		for pair, millis := range table {
			m.continents[pair[0]][pair[1]], m.continents[pair[1]][pair[0]] = millis, millis
		}
	}
	return m
}

// earthRadius is the mean radius, in km.
const earthRadius = 6371.0088

// vector is a point on the unit sphere. The dot product of two is the cosine of
// the angle between them, which is all that a great circle needs.
type vector struct{ x, y, z float64 }

func newVector(lat, lon float64) vector {
	sinLat, cosLat := math.Sincos(lat * math.Pi / 180)
	sinLon, cosLon := math.Sincos(lon * math.Pi / 180)
	return vector{cosLat * cosLon, cosLat * sinLon, sinLat}
}

// km is the great-circle distance of two points.
func (v vector) km(o vector) float64 {
	return earthRadius * math.Acos(min(1, max(-1, v.dot(o))))
}

func (v vector) dot(o vector) float64 { return v.x*o.x + v.y*o.y + v.z*o.z }

// cost is the milliseconds from a mirror to a client, at least 1.
func (c *model) cost(m *prepared, p *locate.Place, at vector) float64 {
	for i := range m.measured {
		if m.measured[i].From == p.Country {
			return max(1, m.measured[i].Millis)
		}
	}
	if !p.Located {
		return c.Base // nobody is nearer than anybody
	}
	km := at.km(m.at)
	ms := c.Base + c.PerKm*max(km, p.Radius) + c.continents[p.Continent][m.Continent]
	if p.Country != m.Country {
		ms += c.Border
	}
	if p.ASN != 0 && km <= c.SameNetworkWithin && slices.Contains(m.ASNs, p.ASN) {
		ms -= c.SameNetwork
	}
	return max(1, ms)
}
