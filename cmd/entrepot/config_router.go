package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"entrepot/geo"
	"entrepot/geo/choice"
	"entrepot/geo/health"
	"entrepot/geo/locate"
	"entrepot/registry/access"

	"github.com/opencontainers/go-digest"
)

// RouterConfig is the one name, which sends requests to mirrors.
type RouterConfig struct {
	Listen          Address                         `yaml:"listen"`
	TLS             *TLSConfig                      `yaml:"tls"`
	Limits          LimitsConfig                    `yaml:"limits"`
	TrustedProxies  []string                        `yaml:"trusted_proxies"`
	Mirrors         []MirrorConfig                  `yaml:"mirrors"`
	Choice          ChoiceConfig                    `yaml:"choice"`
	Measured        []MeasuredConfig                `yaml:"measured"`
	DefaultUpstream string                          `yaml:"default_upstream"`
	Upstreams       map[string]RouterUpstreamConfig `yaml:"upstreams"`
	DefaultFiles    string                          `yaml:"default_files"`
	Files           map[string]RouterFilesConfig    `yaml:"files"`
	Fallback        URL                             `yaml:"fallback"`
	Cosign          URL                             `yaml:"cosign"`
	Fixed           FixedConfig                     `yaml:"fixed"`
	Geo             GeoConfig                       `yaml:"geo"`
	Probes          ProbesConfig                    `yaml:"probes"`
	ShutdownTimeout Duration                        `yaml:"shutdown_timeout"`
}

// MirrorConfig is a mirror that clients may be sent to.
type MirrorConfig struct {
	Name           string      `yaml:"name"`
	URLs           []string    `yaml:"urls"`
	Kind           string      `yaml:"kind"`
	Tier           string      `yaml:"tier"`
	Names          bool        `yaml:"names"`
	Incomplete     bool        `yaml:"incomplete"`
	Lat            Decimal     `yaml:"lat"`
	Lon            Decimal     `yaml:"lon"`
	Country        string      `yaml:"country"`
	Continent      string      `yaml:"continent"`
	Cloud          CloudRegion `yaml:"cloud"`
	Prefixes       []string    `yaml:"prefixes"`
	ASNs           []int       `yaml:"asns"`
	Families       []int       `yaml:"families"`
	Namespaces     []string    `yaml:"namespaces"`
	OnlyCountries  []string    `yaml:"only_countries"`
	NeverCountries []string    `yaml:"never_countries"`
	MaxSize        Size        `yaml:"max_size"`
	Capacity       BitRate     `yaml:"capacity"`
	CostPerGiB     Decimal     `yaml:"cost_per_gib"`
	Draining       bool        `yaml:"draining"`
}

// SetDefaults sets the defaults of a mirror.
func (c *MirrorConfig) SetDefaults() { c.Kind, c.Capacity = "node", choice.DefaultCapacity }

// MeasuredConfig is how long a mirror takes to the clients of a country.
type MeasuredConfig struct {
	From   string  `yaml:"from"`
	Mirror string  `yaml:"mirror"`
	Millis Decimal `yaml:"ms"`
}

// RouterUpstreamConfig is an upstream of images that mirrors have.
type RouterUpstreamConfig struct {
	Private             bool          `yaml:"private"`
	PrivateRepositories []string      `yaml:"private_repositories"`
	Ledger              *LedgerConfig `yaml:"ledger"`
}

// RouterFilesConfig is an upstream of files that mirrors have.
type RouterFilesConfig struct {
	Private   bool          `yaml:"private"`
	Immutable []string      `yaml:"immutable"`
	Moving    []string      `yaml:"moving"`
	Ledger    *LedgerConfig `yaml:"ledger"`
}

// SetDefaults sets the defaults of an upstream of files.
func (f *RouterFilesConfig) SetDefaults() {
	f.Immutable = []string{"release/v*/**", "**/by-hash/**"}
	f.Moving = []string{"**/stable*.txt", "**/latest*.txt"}
}

// FixedConfig is who is served by this process's node, and not redirected.
type FixedConfig struct {
	Hosts   []string `yaml:"hosts"`
	Clients []string `yaml:"clients"`
}

// any says whether it is anybody.
func (f *FixedConfig) any() bool { return len(f.Hosts)+len(f.Clients) > 0 }

// GeoConfig is by what clients are located.
type GeoConfig struct {
	Dir      Path              `yaml:"dir"`
	Sources  GeoSourcesConfig  `yaml:"sources"`
	City     Path              `yaml:"city"`
	ASN      Path              `yaml:"asn"`
	Country  Path              `yaml:"country"`
	Prefixes []GeoPrefixConfig `yaml:"prefixes"`
}

// GeoSourcesConfig is what `entrepot geo update` downloads.
type GeoSourcesConfig struct {
	AWS     URL `yaml:"aws"`
	Azure   URL `yaml:"azure"`
	GCP     URL `yaml:"gcp"`
	Oracle  URL `yaml:"oracle"`
	City    URL `yaml:"city"`
	ASN     URL `yaml:"asn"`
	Country URL `yaml:"country"`
}

// SetDefaults sets the sources that clouds keep at one place.
func (s *GeoSourcesConfig) SetDefaults() {
	s.AWS = "https://ip-ranges.amazonaws.com/ip-ranges.json"
	s.GCP = "https://www.gstatic.com/ipranges/cloud.json"
	s.Oracle = "https://docs.oracle.com/iaas/tools/public_ip_ranges.json"
}

// urls are those that are set, by what they have.
func (s *GeoSourcesConfig) urls() map[string]string {
	all := map[string]string{
		"aws": string(s.AWS), "azure": string(s.Azure), "gcp": string(s.GCP), "oracle": string(s.Oracle),
		"city": string(s.City), "asn": string(s.ASN), "country": string(s.Country),
	}
	maps.DeleteFunc(all, func(_, u string) bool { return u == "" })
	return all
}

// ChoiceConfig is what the way to a mirror is estimated by.
type ChoiceConfig struct {
	Base              Decimal            `yaml:"base_ms"`
	PerKm             Decimal            `yaml:"ms_per_km"`
	Border            Decimal            `yaml:"border_ms"`
	SameNetwork       Decimal            `yaml:"same_network_ms"`
	SameNetworkWithin Decimal            `yaml:"same_network_km"`
	Continents        map[string]Decimal `yaml:"continents"`
}

// SetDefaults sets the estimates that hold for the world.
func (c *ChoiceConfig) SetDefaults() {
	d := choice.DefaultConstants()
	c.Base, c.PerKm, c.Border = Decimal(d.Base), Decimal(d.PerKm), Decimal(d.Border)
	c.SameNetwork, c.SameNetworkWithin = Decimal(d.SameNetwork), Decimal(d.SameNetworkWithin)
}

// constants are those of the choice.
func (c *ChoiceConfig) constants() (choice.Constants, error) {
	all := choice.Constants{
		Base: float64(c.Base), PerKm: float64(c.PerKm), Border: float64(c.Border),
		SameNetwork: float64(c.SameNetwork), SameNetworkWithin: float64(c.SameNetworkWithin),
		Continents: map[[2]locate.Continent]float64{},
	}
	if min(all.Base, all.PerKm, all.Border, all.SameNetwork, all.SameNetworkWithin) <= 0 {
		return all, errors.New("each number must be more than 0")
	}
	for _, pair := range slices.Sorted(maps.Keys(c.Continents)) {
		first, second, ok := strings.Cut(pair, "-")
		a, errA := locate.ParseContinent(first)
		b, errB := locate.ParseContinent(second)
		if !ok || errA != nil || errB != nil || c.Continents[pair] < 0 {
			return all, fmt.Errorf("continents: %s: %v is none; write two continents and at least 0 ms, such as AF-EU: 20", pair, c.Continents[pair])
		}
		all.Continents[[2]locate.Continent{a, b}] = float64(c.Continents[pair])
	}
	return all, nil
}

// GeoPrefixConfig is a network of which the operator knows where it is.
type GeoPrefixConfig struct {
	Prefix  string      `yaml:"prefix"`
	Country string      `yaml:"country"`
	Lat     Decimal     `yaml:"lat"`
	Lon     Decimal     `yaml:"lon"`
	Cloud   CloudRegion `yaml:"cloud"`
}

// ProbesConfig is how mirrors are watched.
type ProbesConfig struct {
	Interval      Duration `yaml:"interval"`
	Timeout       Duration `yaml:"timeout"`
	Blobs         []string `yaml:"blobs"`
	RedirectHosts []string `yaml:"redirect_hosts"`
	Quarantine    Path     `yaml:"quarantine"`
}

// SetDefaults sets the defaults of a router.
func (r *RouterConfig) SetDefaults() {
	r.Listen = ":8080"
	r.Limits.SetDefaults()
	r.ShutdownTimeout = Duration(10 * time.Second)
	r.Probes.SetDefaults()
	r.Choice.SetDefaults()
	r.Geo.Sources.SetDefaults()
}

// SetDefaults sets the defaults of probes.
func (p *ProbesConfig) SetDefaults() {
	p.Interval, p.Timeout = Duration(health.DefaultInterval), Duration(health.DefaultTimeout)
}

// Decimal is a decimal number.
type Decimal float64

// UnmarshalText reads a number.
func (d *Decimal) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || v != v || v > 1e9 || v < -1e9 {
		return errors.New("is not a number; write one such as 50.1 or -95.9")
	}
	*d = Decimal(v)
	return nil
}

// String writes a number.
func (d Decimal) String() string { return strconv.FormatFloat(float64(d), 'f', -1, 64) }

// BitRate is a number of bits a second: 40Gbps, 500Mbps.
type BitRate int64

// UnmarshalText reads a rate.
func (b *BitRate) UnmarshalText(text []byte) error {
	m := regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([KMGT])bps$`).FindStringSubmatch(string(text))
	if m == nil {
		return errors.New("is not a rate; write Kbps, Mbps, Gbps or Tbps, such as 40Gbps")
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n > 1e6 {
		return errors.New("is too large for a rate")
	}
	*b = BitRate(n * map[string]float64{"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[m[2]])
	return nil
}

// String writes a rate in the largest unit that keeps it whole.
func (b BitRate) String() string {
	for _, u := range []struct {
		bits BitRate
		name string
	}{{1e12, "Tbps"}, {1e9, "Gbps"}, {1e6, "Mbps"}} {
		if b >= u.bits && b%u.bits == 0 {
			return strconv.FormatInt(int64(b/u.bits), 10) + u.name
		}
	}
	return strconv.FormatFloat(float64(b)/1e3, 'f', -1, 64) + "Kbps"
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

// upstreams are the upstreams as the router takes them, in the order of their names,
// without ledgers.
func (r *RouterConfig) upstreams() (images []geo.Images, files []geo.Files, err error) {
	if len(r.Upstreams)+len(r.Files) == 0 { // names are left to the mirrors
		images = append(images, geo.Images{})
		var f RouterFilesConfig
		f.SetDefaults()
		r.Files = map[string]RouterFilesConfig{"": f}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Upstreams)) {
		private, err := patterns(r.Upstreams[name].PrivateRepositories)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: private_repositories: %w", name, err)
		}
		images = append(images, geo.Images{Name: name, Private: r.Upstreams[name].Private, PrivateRepositories: private})
	}
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		c := r.Files[name]
		f := geo.Files{Name: name, Private: c.Private}
		if f.Immutable, err = patterns(c.Immutable); err != nil {
			return nil, nil, fmt.Errorf("%s: immutable: %w", name, err)
		}
		if f.Moving, err = patterns(c.Moving); err != nil {
			return nil, nil, fmt.Errorf("%s: moving: %w", name, err)
		}
		files = append(files, f)
	}
	return images, files, nil
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

// location is how geo locates.
func (g *GeoConfig) location(atlas *locate.Atlas) (locate.Config, error) {
	cfg := locate.Config{Dir: string(g.Dir), City: string(g.City), ASN: string(g.ASN), Country: string(g.Country)}
	for _, p := range g.Prefixes {
		network, err := prefixes([]string{p.Prefix})
		if err != nil {
			return cfg, err
		}
		place := locate.Place{}
		if p.Cloud != "" {
			cloud, region := p.Cloud.split()
			known, ok := atlas.Region(cloud, region)
			if !ok {
				known.Cloud, known.Region = cloud, region
			}
			place = known
		}
		if p.Country != "" {
			c, err := locate.ParseCountry(p.Country)
			if err != nil {
				return cfg, fmt.Errorf("prefix %s: %w", p.Prefix, err)
			}
			if at, ok := atlas.Country(c); ok && !place.Located {
				place.Lat, place.Lon, place.Radius, place.Located = at.Lat, at.Lon, at.Radius, true
			}
			place.Country, place.Continent = c, atlas.Continent(c)
		}
		switch {
		case p.Country == "" && p.Cloud == "":
			return cfg, fmt.Errorf("prefix %s: it says nothing of where that is; write country, or cloud", p.Prefix)
		case place.Country == locate.Country{} && p.Lat+p.Lon != 0:
			return cfg, fmt.Errorf("prefix %s: lat and lon need a country with them", p.Prefix)
		case p.Lat < -90 || p.Lat > 90 || p.Lon < -180 || p.Lon > 180:
			return cfg, fmt.Errorf("prefix %s: lat %v, lon %v is no place; want degrees north from -90 to 90, and east from -180 to 180", p.Prefix, p.Lat, p.Lon)
		}
		if p.Lat != 0 || p.Lon != 0 {
			place.Lat, place.Lon, place.Radius, place.Located = float64(p.Lat), float64(p.Lon), 0, true
		}
		cfg.Prefixes = append(cfg.Prefixes, locate.Prefix{Prefix: network[0], Place: place})
	}
	return cfg, nil
}

// parseProbeBlob reads a blob that mirrors are asked for: UPSTREAM/REPOSITORY@DIGEST.
// Of a router that names no upstreams, the first element need not be one.
func parseProbeBlob(text string, r *RouterConfig) (choice.Target, error) {
	wrong := fmt.Errorf("%q is no blob; write UPSTREAM/REPOSITORY@sha256:HEX of one that every mirror has", text)
	name, d, ok := strings.Cut(text, "@")
	namespace, repository, more := strings.Cut(name, "/")
	if !ok || !more || repository == "" || digest.Digest(d).Validate() != nil {
		return choice.Target{}, wrong
	}
	if _, ok := r.Upstreams[namespace]; !ok && len(r.Upstreams)+len(r.Files) > 0 {
		return choice.Target{}, fmt.Errorf("%w; %s is not among router.upstreams", wrong, namespace)
	}
	return choice.Target{Namespace: namespace, Repository: repository, Route: "blobs/" + d, Digest: digest.Digest(d)}, nil
}
