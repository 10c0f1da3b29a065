// Package locate says where the client of a request is.
//
// [Forwarders] finds the client's address, believing forwarding headers only
// from peers that the operator trusts. [Place] is what is known of where an
// address is, with the [Source] that said so. The package does not choose
// mirrors.
package locate

import (
	"errors"
	"fmt"
)

// Errors that callers decide on.
var (
	// ErrCountry says that a text is no two-letter country code.
	ErrCountry = errors.New("not an ISO 3166-1 alpha-2 country code")
	// ErrContinent says that a text is no continent code.
	ErrContinent = errors.New("not a continent: want AF, AN, AS, EU, NA, OC or SA")
)

// Source is what said where an address is. The zero value is [Unknown].
type Source uint8

// Sources, the least telling first. A place takes the most telling that knows
// its address. City and country databases carry DB because Country is a type.
const (
	Unknown Source = iota
	CountryDB
	CityDB
	CloudRange
	Operator
)

// String returns the source's name as /where shows it.
func (s Source) String() string {
	switch s {
	case CountryDB:
		return "country"
	case CityDB:
		return "city"
	case CloudRange:
		return "cloud"
	case Operator:
		return "operator"
	default:
		return "unknown"
	}
}

// Continent is one of seven; the zero value is unknown.
type Continent uint8

// Continents, by their usual codes.
const (
	AF Continent = iota + 1
	AN
	AS
	EU
	NA
	OC
	SA
)

const continentCodes = "AFANASEUNAOCSA"

// String returns the two-letter code, or "" when unknown.
func (c Continent) String() string {
	if c < AF || c > SA {
		return ""
	}
	return continentCodes[2*(c-1) : 2*c]
}

// ParseContinent reads an upper-case two-letter code. It returns
// [ErrContinent] for anything else.
func ParseContinent(s string) (Continent, error) {
	for c := AF; c <= SA; c++ {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%q: %w", s, ErrContinent)
}

// Country is an ISO 3166-1 alpha-2 code in upper case; the zero value is
// unknown.
type Country [2]byte

// String returns the code, or "" when unknown.
func (c Country) String() string {
	if c == (Country{}) {
		return ""
	}
	return string(c[:])
}

// ParseCountry reads a two-letter code in either case. It returns
// [ErrCountry] for what has another shape; it does not know which codes are
// assigned.
func ParseCountry(s string) (Country, error) {
	if len(s) != 2 {
		return Country{}, fmt.Errorf("%q: %w", s, ErrCountry)
	}
	c := Country{s[0] &^ 0x20, s[1] &^ 0x20}
	for i, b := range c {
		if b < 'A' || b > 'Z' || s[i] < 'A' {
			return Country{}, fmt.Errorf("%q: %w", s, ErrCountry)
		}
	}
	return c, nil
}

// Place is where an address is, as far as is known. The zero value knows
// nothing.
type Place struct {
	Source    Source
	Country   Country
	Continent Continent
	// Lat and Lon are degrees north and east, Radius is km around them within
	// which the client may be. They hold when Located.
	Lat, Lon, Radius float64
	Located          bool
	ASN              uint32 // 0 is unknown
	// Cloud and Region are as the cloud writes them, "aws" and "eu-central-1";
	// "" outside clouds.
	Cloud, Region string
}
