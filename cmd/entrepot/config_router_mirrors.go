package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"entrepot/geo/choice"
	"entrepot/geo/locate"
	"entrepot/registry/access"
)

// MirrorConfig is a mirror that clients may be sent to.
type MirrorConfig struct {
	// a label, such as eu-1
	Name string `yaml:"name"`
	// where it is; a client that came by https is sent to an https URL only. Of a bucket a template with `{digest}` or
	// `{hex}`
	URLs []string `yaml:"urls"`
	// node (entrepot), registry (any OCI registry; a path in its URL goes before each repository), bucket, files (an
	// HTTP tree)
	Kind string `yaml:"kind"`
	// origin (authoritative for names), trusted (manifests by digest, private content, files), community (what clients
	// verify)
	Tier string `yaml:"tier"`
	// a trusted node that follows the ledger, so that its names can be relied on
	Names bool `yaml:"names"`
	// it may lack content and is asked by HEAD first, for at most 300 ms
	Incomplete bool `yaml:"incomplete"`
	// degrees north
	Lat Decimal `yaml:"lat"`
	// degrees east
	Lon Decimal `yaml:"lon"`
	// two letters, ISO 3166-1
	Country string `yaml:"country"`
	// AF, AN, AS, EU, NA, OC, SA
	// Default: of the country
	Continent string `yaml:"continent"`
	// such as aws:eu-central-1: clients of that region come here first
	Cloud CloudRegion `yaml:"cloud"`
	// networks whose clients come here before anywhere else; the longest wins
	Prefixes []string `yaml:"prefixes"`
	// networks (AS numbers) that it is in
	ASNs []int `yaml:"asns"`
	// 4, 6: the address families that it is reached by
	// Default: both
	Families []int `yaml:"families"`
	// upstreams that it has; `*` stands for any text
	// Default: all
	Namespaces []string `yaml:"namespaces"`
	// whose clients alone it serves
	OnlyCountries []string `yaml:"only_countries"`
	// whose clients it does not serve
	NeverCountries []string `yaml:"never_countries"`
	// largest content that it serves; 0 is no limit
	MaxSize Size `yaml:"max_size"`
	// what it can send; at 0.9 of that, by what clients were sent there for in the last 10 s or so, others are chosen
	// first
	Capacity BitRate `yaml:"capacity"`
	// of its traffic, in any currency: among equals the cheaper is chosen, and metrics add it up
	CostPerGiB Decimal `yaml:"cost_per_gib"`
	// takes it out of choice
	Draining bool `yaml:"draining"`
}

// SetDefaults sets the defaults of a mirror.
func (c *MirrorConfig) SetDefaults() { c.Kind, c.Capacity = "node", choice.DefaultCapacity }

// MeasuredConfig is how long a mirror takes to the clients of a country.
type MeasuredConfig struct {
	// a country, whose clients were measured
	From string `yaml:"from"`
	// to this mirror
	Mirror string `yaml:"mirror"`
	// milliseconds, used instead of the estimate
	Millis Decimal `yaml:"ms"`
}

// CloudRegion is a cloud and its region: aws:eu-central-1.
type CloudRegion string

// UnmarshalText reads a cloud and its region.
func (c *CloudRegion) UnmarshalText(text []byte) error {
	cloud, region, ok := strings.Cut(string(text), ":")
	if !ok || cloud == "" || region == "" {
		return errors.New("is not a cloud and its region; write both, such as aws:eu-central-1")
	}
	*c = CloudRegion(text)
	return nil
}

func (c CloudRegion) split() (cloud, region string) {
	cloud, region, _ = strings.Cut(string(c), ":")
	return cloud, region
}

// mirrors are the mirrors as the choice takes them. The error joins every problem.
func (r *RouterConfig) mirrors(atlas *locate.Atlas) (*choice.List, error) {
	mirrors := make([]choice.Mirror, len(r.Mirrors))
	var problems []error
	for i := range r.Mirrors {
		m, err := r.Mirrors[i].mirror(atlas)
		if err != nil {
			problems = append(problems, fmt.Errorf("mirror %q: %w", r.Mirrors[i].Name, err))
		}
		mirrors[i] = m
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	constants, err := r.Choice.constants()
	if err != nil {
		return nil, fmt.Errorf("choice: %w", err)
	}
	for _, m := range r.Measured {
		from, err := locate.ParseCountry(m.From)
		if err != nil {
			return nil, fmt.Errorf("measured: from %w", err)
		}
		constants.Measured = append(constants.Measured, choice.Measurement{From: from, Mirror: m.Mirror, Millis: float64(m.Millis)})
	}
	return choice.NewList(mirrors, constants)
}

func (c *MirrorConfig) mirror(atlas *locate.Atlas) (m choice.Mirror, err error) {
	m = choice.Mirror{
		Name: c.Name, Names: c.Names, Incomplete: c.Incomplete, Lat: float64(c.Lat), Lon: float64(c.Lon), Families: c.Families,
		Namespaces: c.Namespaces, MaxSize: int64(c.MaxSize), Capacity: int64(c.Capacity), CostPerGiB: float64(c.CostPerGiB), Draining: c.Draining,
	}
	m.Cloud, m.Region = c.Cloud.split()
	var problems []error
	keep := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	for _, text := range c.URLs {
		u, err := url.Parse(text)
		keep(err)
		if err == nil {
			m.URLs = append(m.URLs, u)
		}
	}
	m.Kind, err = choice.ParseKind(c.Kind)
	keep(err)
	m.Tier, err = choice.ParseTier(c.Tier)
	keep(err)
	m.Country, err = locate.ParseCountry(c.Country)
	keep(err)
	if m.Continent = atlas.Continent(m.Country); c.Continent != "" {
		m.Continent, err = locate.ParseContinent(c.Continent)
		keep(err)
	} else if err == nil && m.Continent == 0 {
		keep(fmt.Errorf("country %s is in no continent that is known; write continent", m.Country))
	}
	m.Prefixes, err = prefixes(c.Prefixes)
	keep(err)
	m.OnlyCountries, err = countries(c.OnlyCountries)
	keep(err)
	m.NeverCountries, err = countries(c.NeverCountries)
	keep(err)
	for _, asn := range c.ASNs {
		if asn < 1 || asn > 1<<32-1 {
			keep(fmt.Errorf("ASN %d is none", asn))
		}
		m.ASNs = append(m.ASNs, uint32(asn))
	}
	return m, errors.Join(problems...)
}

func prefixes(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q is no network; write one such as 10.0.0.0/8 or 2001:db8::/32, and an address as 192.0.2.1/32", text)
		case p != p.Masked():
			return nil, fmt.Errorf("%q has bits set behind its length; write %s", text, p.Masked())
		case p.Addr().Is4In6():
			return nil, fmt.Errorf("%q is IPv4 within IPv6, as which no client counts; write it as IPv4", text)
		}
		all = append(all, p)
	}
	return all, nil
}

func countries(texts []string) ([]locate.Country, error) {
	var all []locate.Country
	for _, text := range texts {
		c, err := locate.ParseCountry(text)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func patterns(texts []string) ([]access.Pattern, error) {
	var all []access.Pattern
	for _, text := range texts {
		p, err := access.ParsePattern(text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
