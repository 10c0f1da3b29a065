package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"entrepot/cmd/internal/yamlconf"
	"entrepot/registry"
)

// Config is the configuration file. What stands above the fields here and below is
// for operators: the tables of docs/CONFIGURATION.md are made of it, by the rules of
// cmd/internal/confdoc.
type Config struct {
	Log    LogConfig     `yaml:"log"`
	Admin  AdminConfig   `yaml:"admin"`
	Node   *NodeConfig   `yaml:"node"`
	Origin *OriginConfig `yaml:"origin"`
	Router *RouterConfig `yaml:"router"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	// the least severe lines that are logged: debug, info, warn, error
	Level LogLevel `yaml:"level"`
	// text, json, or auto: text on a terminal, else json
	Format LogFormat `yaml:"format"`
	// one line for each request
	Access bool `yaml:"access"`
}

// AdminConfig is the listener for operators.
type AdminConfig struct {
	// where operators look: `/metrics`, `/healthz`, `/readyz`, `/debug/pprof/`. Any but a loopback address needs
	// `admin.token`
	Listen Address `yaml:"listen"`
	// what `/metrics` and all else wants as `Authorization: Bearer TOKEN`, at least 16 characters; `/healthz` and
	// `/readyz` are open to probes
	Token Secret `yaml:"token"`
}

// NodeConfig is a pull-through node.
type NodeConfig struct {
	// where clients pull
	Listen Address       `yaml:"listen"`
	TLS    *TLSConfig    `yaml:"tls"`
	Access *AccessConfig `yaml:"access"`
	Limits LimitsConfig  `yaml:"limits"`
	// networks whose X-Forwarded-For and Forwarded are believed, as far as limits go
	TrustedProxies []string    `yaml:"trusted_proxies"`
	Store          StoreConfig `yaml:"store"`
	// manifests and small blobs kept in memory, at least 1MiB
	Memory Size `yaml:"memory"`
	// the upstream of a request that names none by `ns`, by its first path element or by its Host. When it is not set:
	// docker.io where that is configured, else the only upstream, else such a request is refused
	DefaultUpstream string `yaml:"default_upstream"`
	// how long running transfers may go on after SIGTERM
	ShutdownTimeout Duration `yaml:"shutdown_timeout"`
	// downloads from all upstreams at once; more wait for their turn. Clients take turns, and share as in `limits`
	MaxFills int `yaml:"max_fills"`
	// downloads that may wait, shared by clients in the same way; more are told 429 (of one client) or 503, with
	// `Retry-After`
	MaxFillsWaiting int `yaml:"max_fills_waiting"`
	// how long one may wait for its turn, here and at its upstream; then it is told 503. containerd gives up after 30
	// s without headers
	MaxFillWait Duration `yaml:"max_fill_wait"`
	// manifests and lists of more than 64 KiB that are being sent at once, at least 4MiB; more are told 503, with
	// `Retry-After`. Of lists that come from upstream, 192MiB are in memory at most, and 48MiB of one
	ManifestMemory Size                      `yaml:"max_manifest_memory"`
	Upstreams      map[string]UpstreamConfig `yaml:"upstreams"`
	// the file server of a path whose first element names none, nor the Host
	DefaultFiles string                        `yaml:"default_files"`
	Files        map[string]FileUpstreamConfig `yaml:"files"`
	Mirror       *MirrorNodeConfig             `yaml:"mirror"`
	Peers        *PeersConfig                  `yaml:"peers"`
	Prefetch     map[string]PrefetchConfig     `yaml:"prefetch"`
}

// TLSConfig is a certificate chain and its key, in PEM files.
type TLSConfig struct {
	// PEM file of the certificate chain; with it the node speaks HTTPS and HTTP/2. The files are looked at every ten
	// seconds and on SIGHUP; a new pair is taken without a restart, a broken one is logged and the old one kept
	Cert Path `yaml:"cert"`
	// PEM file of its key
	Key Path `yaml:"key"`
}

// UpstreamConfig is an OCI registry that a node pulls from.
type UpstreamConfig struct {
	// tried in this order; those that fail rest for a while
	// Default: `https://NAME`, for docker.io `https://registry-1.docker.io`
	URLs []URL `yaml:"urls"`
	// not everybody may pull what it has: the node then needs `access`, and serves a blob only through repositories
	// that hold it as their upstream said, by sending it or in answer to one `HEAD`, which is remembered. With one
	// such upstream that goes for all of the node's: what is in its store already is asked for once, by `HEAD`, for
	// each repository
	Private bool `yaml:"private"`
	// there is no network to it: what [bundles](AIRGAP.md) brought is served, all else is 404 at once
	Offline bool `yaml:"offline"`
	// how long a tag is answered without asking upstream
	TagTTL Duration `yaml:"tag_ttl"`
	// for so long after that, it is answered at once and checked in the background
	StaleWhileRevalidate Duration `yaml:"stale_while_revalidate"`
	// how long after `tag_ttl` a tag is still served while upstream cannot be asked; 0 is no limit
	MaxStale Duration `yaml:"max_stale"`
	// how long an absent name is remembered
	NegativeTTL Duration `yaml:"negative_ttl"`
	// for upstream, with `password`
	Username string `yaml:"username"`
	// password or token
	Password Secret `yaml:"password"`
	// a docker `config.json` to take credentials from, with its helpers
	DockerConfig Path `yaml:"docker_config"`
	// hosts besides those of `urls` that may be asked for tokens, and so see the credentials
	// Default: none, for docker.io `auth.docker.io`
	TokenHosts []string `yaml:"token_hosts"`
	// hosts that upstream may redirect to although their addresses are in a private network and its own are not;
	// `*.example.org` is all below a domain. It may redirect to any public host, never to this machine or a cloud's
	// metadata
	RedirectHosts []string `yaml:"redirect_hosts"`
	// PEM file of certificates to trust, besides the system's
	CA Path `yaml:"ca"`
	// PEM file of a client certificate, with `key`
	Cert Path `yaml:"cert"`
	// PEM file of its key
	Key Path `yaml:"key"`
	// blobs received from this upstream at once; more wait for their turn
	MaxConcurrent int `yaml:"max_concurrent"`
	// most bytes a second from this upstream; 0 is no limit
	Bandwidth Rate `yaml:"bandwidth"`
	// for a connection, and again for its TLS handshake
	ConnectTimeout Duration `yaml:"connect_timeout"`
	// for the headers of a response
	ResponseTimeout Duration `yaml:"response_timeout"`
	// a body from which nothing comes for so long is given up, and taken up again elsewhere
	StallTimeout Duration      `yaml:"stall_timeout"`
	Ledger       *LedgerConfig `yaml:"ledger"`
}

// LedgerConfig is an upstream's ledger.
type LedgerConfig struct {
	// the upstream's ledger, such as `https://origin.example.org/ledger`, also `file://DIR` or `s3://BUCKET/PREFIX`.
	// Names that it has are answered by it and never asked for upstream; deleted ones are 404, revoked digests 451
	URL string `yaml:"url"`
	// file with the ledger's public key
	Key Path `yaml:"key"`
	// what the ledger calls this upstream: destinations of promotion
	// Default: NAME and the hosts of `urls`
	Names []string `yaml:"names"`
	// between two looks at the ledger, each a conditional request
	Interval Duration `yaml:"interval"`
}

// SetDefaults sets the defaults of a ledger.
func (l *LedgerConfig) SetDefaults() { l.Interval = Duration(time.Second) }

// SetDefaults sets what a file that says nothing means.
func (c *Config) SetDefaults() {
	c.Log = LogConfig{Level: "info", Format: "auto", Access: true}
	c.Admin.Listen = "127.0.0.1:9090"
}

// SetDefaults sets the defaults of a node.
func (n *NodeConfig) SetDefaults() {
	n.Listen = ":5000"
	n.Limits.SetDefaults()
	n.Store.SetDefaults()
	n.Memory = 64 << 20
	n.ShutdownTimeout = Duration(30 * time.Second)
	n.ManifestMemory = registry.DefaultManifestMemory
	n.MaxFills, n.MaxFillsWaiting, n.MaxFillWait = 256, 4096, Duration(20*time.Second)
}

// SetDefaults sets the defaults of an upstream.
func (u *UpstreamConfig) SetDefaults() {
	u.TagTTL = Duration(5 * time.Minute)
	u.StaleWhileRevalidate = Duration(24 * time.Hour)
	u.NegativeTTL = Duration(10 * time.Second)
	u.MaxConcurrent = 64
	u.ConnectTimeout = Duration(5 * time.Second)
	u.ResponseTimeout = Duration(20 * time.Second)
	u.StallTimeout = Duration(20 * time.Second)
}

// standaloneConfig is what serve runs without a file: a node for the public
// registries, with its store in ./data, an origin in ./data/origin that nobody may
// write until a file names identities, and a router whose one mirror is the node.
// The node's address is one for clients on this machine; others are served by it
// without a redirect.
func standaloneConfig() *Config {
	c, n, o := new(Config), new(NodeConfig), new(OriginConfig)
	c.SetDefaults()
	n.SetDefaults()
	o.SetDefaults()
	c.Node, c.Origin = n, o
	o.Store.Dir, o.Uploads = "data/origin", "data/origin/uploads"
	n.Store.Dir = "data"
	n.DefaultUpstream = "docker.io"
	n.Upstreams = map[string]UpstreamConfig{}
	for _, name := range []string{
		"docker.io", "registry.k8s.io", "ghcr.io", "quay.io", "gcr.io", "public.ecr.aws", "mcr.microsoft.com",
	} {
		var u UpstreamConfig
		u.SetDefaults()
		u.fillIn(name)
		n.Upstreams[name] = u
	}
	c.Router = new(RouterConfig)
	c.Router.SetDefaults()
	var m MirrorConfig
	m.SetDefaults()
	m.Name, m.URLs, m.Tier, m.Country = "node", []string{"http://127.0.0.1" + string(n.Listen)}, "origin", "US"
	c.Router.Mirrors = []MirrorConfig{m}
	c.Router.Fixed.Clients = []string{ // all but loopback
		"0.0.0.0/2", "64.0.0.0/3", "96.0.0.0/4", "112.0.0.0/5", "120.0.0.0/6", "124.0.0.0/7", "126.0.0.0/8", "128.0.0.0/1",
		"2000::/3", "fc00::/7", "fe80::/10",
	}
	c.Router.inherit(n)
	return c
}

// fillIn sets the defaults that follow from the upstream's name. Docker Hub is
// the one whose name is neither its host nor that of its token service.
func (u *UpstreamConfig) fillIn(name string) {
	if name == "docker.io" {
		if u.URLs == nil {
			u.URLs = []URL{"https://registry-1.docker.io"}
		}
		if u.TokenHosts == nil {
			u.TokenHosts = []string{"auth.docker.io"}
		}
	}
	if u.URLs == nil {
		u.URLs = []URL{URL("https://" + name)}
	}
}

// loadConfig reads the file at path. The error is one line, or
// yamlconf.Problems with a line for each problem of the file.
func loadConfig(path string) (*Config, error) {
	data, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parseConfig(path, data, os.LookupEnv, readSmall)
}

// parseConfig reads and checks a configuration file called name.
func parseConfig(name string, data []byte, env func(string) (string, bool), readFile func(string) ([]byte, error)) (*Config, error) {
	c := new(Config)
	doc := yamlconf.Decode(data, c, yamlconf.Options{
		Name:     name,
		Env:      env,
		ReadFile: readFile,
	})
	check{doc, readFile}.config(c)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// memory is what the roles' tiers in memory may hold together.
func (c *Config) memory() Size {
	var tiers Size
	if c.Node != nil {
		tiers += c.Node.Memory
	}
	if c.Origin != nil {
		tiers += c.Origin.Memory
	}
	return tiers
}

// shutdownTimeout is how long running transfers may take to finish.
func (c *Config) shutdownTimeout() time.Duration {
	var longest Duration
	if c.Node != nil {
		longest = c.Node.ShutdownTimeout
	}
	if c.Origin != nil {
		longest = max(longest, c.Origin.ShutdownTimeout)
	}
	if c.Router != nil {
		longest = max(longest, c.Router.ShutdownTimeout)
	}
	return time.Duration(longest)
}

// week is the longest that S3 lets a signed URL live.
const week = 7 * 24 * time.Hour

// readSmall reads a file of at most a configuration's size: certificates and
// secrets are smaller yet, and a device file would never end.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names it, in ENTREPOT_CONFIG too
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, yamlconf.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > yamlconf.MaxSize {
		return nil, fmt.Errorf("%s is larger than %v", path, Size(yamlconf.MaxSize))
	}
	return data, nil
}
