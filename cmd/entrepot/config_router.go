package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"entrepot/geo"
	"entrepot/geo/choice"
	"entrepot/geo/health"
	"entrepot/geo/locate"

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
