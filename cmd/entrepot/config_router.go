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
	// where clients come to
	Listen Address `yaml:"listen"`
	// .cert: certificate chain, PEM
	// .key: its key
	TLS *TLSConfig `yaml:"tls"`
	// .*: as `node.limits.*`
	Limits LimitsConfig `yaml:"limits"`
	// networks whose X-Forwarded-For, Forwarded and X-Forwarded-Proto are believed
	TrustedProxies []string         `yaml:"trusted_proxies"`
	Mirrors        []MirrorConfig   `yaml:"mirrors"`
	Choice         ChoiceConfig     `yaml:"choice"`
	Measured       []MeasuredConfig `yaml:"measured"`
	// the upstream of images that a request means when it names none
	DefaultUpstream string                          `yaml:"default_upstream"`
	Upstreams       map[string]RouterUpstreamConfig `yaml:"upstreams"`
	// the upstream of files that a path means when it names none
	DefaultFiles string                       `yaml:"default_files"`
	Files        map[string]RouterFilesConfig `yaml:"files"`
	// a node where clients are sent when no mirror is fit; without it they get 503
	Fallback URL `yaml:"fallback"`
	// a node that has the tags at which cosign keeps signatures
	Cosign URL          `yaml:"cosign"`
	Fixed  FixedConfig  `yaml:"fixed"`
	Geo    GeoConfig    `yaml:"geo"`
	Probes ProbesConfig `yaml:"probes"`
	// how long answers may take after SIGTERM
	ShutdownTimeout Duration `yaml:"shutdown_timeout"`
}

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

// RouterUpstreamConfig is an upstream of images that mirrors have.
type RouterUpstreamConfig struct {
	// its content goes to tiers origin and trusted only
	Private bool `yaml:"private"`
	// patterns of its repositories of which that holds, such as `team/**`
	PrivateRepositories []string `yaml:"private_repositories"`
	// .url: the origin's ledger: what was revoked is refused, and mirrors are compared by what was promoted
	// .key: its public key
	// .names: what the ledger calls this upstream
	// Default: NAME and https://NAME
	// .interval: how often it is asked for news
	Ledger *LedgerConfig `yaml:"ledger"`
}

// RouterFilesConfig is an upstream of files that mirrors have.
type RouterFilesConfig struct {
	// its files go to tiers origin and trusted only
	Private bool `yaml:"private"`
	// paths that never change what they are; all others go where names are authoritative
	Immutable []string `yaml:"immutable"`
	// paths among those that do change
	Moving []string `yaml:"moving"`
	// .url: the origin's ledger: digests for Metalink and Digest, folders, revocations
	// .key: its public key
	// .names: what the ledger calls this server
	// Default: NAME and https://NAME
	// .interval: how often it is asked for news
	Ledger *LedgerConfig `yaml:"ledger"`
}

// SetDefaults sets the defaults of an upstream of files.
func (f *RouterFilesConfig) SetDefaults() {
	f.Immutable = []string{"release/v*/**", "**/by-hash/**"}
	f.Moving = []string{"**/stable*.txt", "**/latest*.txt"}
}

// FixedConfig is who is served by this process's node, and not redirected.
type FixedConfig struct {
	// hosts (without port) whose requests this process's node serves, without a redirect
	Hosts []string `yaml:"hosts"`
	// networks whose requests it serves so
	Clients []string `yaml:"clients"`
}

// any says whether it is anybody.
func (f *FixedConfig) any() bool { return len(f.Hosts)+len(f.Clients) > 0 }

// ChoiceConfig is what the way to a mirror is estimated by.
type ChoiceConfig struct {
	// milliseconds that any mirror is taken to need
	Base Decimal `yaml:"base_ms"`
	// for each kilometre
	PerKm Decimal `yaml:"ms_per_km"`
	// in another country
	Border Decimal `yaml:"border_ms"`
	// saved by a mirror in the client's own network (ASN)
	SameNetwork Decimal `yaml:"same_network_ms"`
	// if it is at most so far
	SameNetworkWithin Decimal `yaml:"same_network_km"`
	// for the way between two continents, such as `AF-EU: 20`, in place of the built-in table
	Continents map[string]Decimal `yaml:"continents"`
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

// ProbesConfig is how mirrors are watched.
type ProbesConfig struct {
	// between two probes of a mirror, give or take a fifth
	Interval Duration `yaml:"interval"`
	// for one probe
	Timeout Duration `yaml:"timeout"`
	// blobs of at most 8 MiB that every mirror has, as UPSTREAM/REPOSITORY@sha256:HEX: probes compare 64 KiB of them
	// with the origin's. What ledgers say was promoted is used too; without either, mirrors need only answer
	Blobs []string `yaml:"blobs"`
	// hosts (or *.domain) that mirrors may redirect to, by https
	RedirectHosts []string `yaml:"redirect_hosts"`
	// file that remembers mirrors which sent wrong bytes twice, until `entrepot geo lift` takes them out; without it
	// they are remembered until the restart
	Quarantine Path `yaml:"quarantine"`
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
