package locate

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/oschwald/maxminddb-golang/v2"
)

// ErrDatabase says that a file is no database that can be used.
var ErrDatabase = errors.New("not a location database in MMDB form")

// database is an MMDB with what it says, by where in the file it says so: many
// networks share a record, and no request has to decode one.
type database struct {
	reader  *maxminddb.Reader
	records map[uintptr]Place
}

// record has the fields of the databases in use: those of MaxMind and DB-IP, and
// the flat ones.
type record struct {
	Country struct {
		ISO string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	CountryCode string `maxminddb:"country_code"`
	Location    struct {
		Lat    *float64 `maxminddb:"latitude"`
		Lon    *float64 `maxminddb:"longitude"`
		Radius uint16   `maxminddb:"accuracy_radius"`
	} `maxminddb:"location"`
	Lat *float64 `maxminddb:"latitude"`
	Lon *float64 `maxminddb:"longitude"`
	ASN uint32   `maxminddb:"autonomous_system_number"`
}

// cityRadius is km around a city's point where a database says none.
const cityRadius = 100

// openDatabase reads an MMDB. It takes about a second for each 4 million networks.
// Errors: ErrDatabase.
func openDatabase(data []byte, atlas *Atlas) (*database, error) {
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDatabase, err)
	}
	d := &database{reader: reader, records: map[uintptr]Place{}}
	useful := false
	for result := range reader.Networks() {
		if err := result.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDatabase, err)
		}
		if _, known := d.records[result.Offset()]; known {
			continue
		}
		var r record
		if err := result.Decode(&r); err != nil {
			return nil, fmt.Errorf("%w: at %s: %w", ErrDatabase, result.Prefix(), err)
		}
		p := r.place(atlas)
		useful = useful || p != Place{}
		d.records[result.Offset()] = p
	}
	if !useful {
		return nil, fmt.Errorf("%w: none of its records has a country, a point or an ASN", ErrDatabase)
	}
	return d, nil
}

// place is what a record says. Its Source is the caller's to set.
func (r *record) place(atlas *Atlas) Place {
	p := Place{ASN: r.ASN}
	text := r.Country.ISO
	if text == "" {
		text = r.CountryCode
	}
	if c, err := ParseCountry(text); err == nil {
		p.Country = c
		if at, ok := atlas.Country(c); ok {
			p.Continent, p.Lat, p.Lon, p.Radius, p.Located = at.Continent, at.Lat, at.Lon, at.Radius, true
		}
	}
	lat, lon := r.Location.Lat, r.Location.Lon
	if lat == nil || lon == nil {
		lat, lon = r.Lat, r.Lon
	}
	if lat != nil && lon != nil && math.Abs(*lat) <= 90 && math.Abs(*lon) <= 180 {
		p.Lat, p.Lon, p.Located = *lat, *lon, true
		if p.Radius = float64(r.Location.Radius); p.Radius == 0 {
			p.Radius = cityRadius
		}
	}
	return p
}

// lookup is what the database says of an address.
func (d *database) lookup(addr netip.Addr) (Place, bool) {
	if d == nil {
		return Place{}, false
	}
	result := d.reader.Lookup(addr)
	if !result.Found() {
		return Place{}, false
	}
	p, ok := d.records[result.Offset()]
	return p, ok
}
