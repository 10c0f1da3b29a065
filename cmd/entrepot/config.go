package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"entrepot/cmd/internal/yamlconf"
	"entrepot/registry"
	"entrepot/registry/events"
)

// Config is the configuration file. docs/CONFIGURATION.md explains every key;
// a test keeps the two in step.
type Config struct {
	Log    LogConfig     `yaml:"log"`
	Admin  AdminConfig   `yaml:"admin"`
	Node   *NodeConfig   `yaml:"node"`
	Origin *OriginConfig `yaml:"origin"`
	Router *RouterConfig `yaml:"router"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  LogLevel  `yaml:"level"`
	Format LogFormat `yaml:"format"`
	Access bool      `yaml:"access"`
}

// AdminConfig is the listener for operators.
type AdminConfig struct {
	Listen Address `yaml:"listen"`
	Token  Secret  `yaml:"token"`
}

// NodeConfig is a pull-through node.
type NodeConfig struct {
	Listen          Address                       `yaml:"listen"`
	TLS             *TLSConfig                    `yaml:"tls"`
	Access          *AccessConfig                 `yaml:"access"`
	Limits          LimitsConfig                  `yaml:"limits"`
	TrustedProxies  []string                      `yaml:"trusted_proxies"`
	Store           StoreConfig                   `yaml:"store"`
	Memory          Size                          `yaml:"memory"`
	DefaultUpstream string                        `yaml:"default_upstream"`
	ShutdownTimeout Duration                      `yaml:"shutdown_timeout"`
	MaxFills        int                           `yaml:"max_fills"`
	MaxFillsWaiting int                           `yaml:"max_fills_waiting"`
	MaxFillWait     Duration                      `yaml:"max_fill_wait"`
	ManifestMemory  Size                          `yaml:"max_manifest_memory"`
	Upstreams       map[string]UpstreamConfig     `yaml:"upstreams"`
	DefaultFiles    string                        `yaml:"default_files"`
	Files           map[string]FileUpstreamConfig `yaml:"files"`
	Mirror          *MirrorNodeConfig             `yaml:"mirror"`
	Peers           *PeersConfig                  `yaml:"peers"`
	Prefetch        map[string]PrefetchConfig     `yaml:"prefetch"`
}

// OriginConfig is the production registry and file store, which promotion
// writes.
type OriginConfig struct {
	Listen          Address                  `yaml:"listen"`
	TLS             *TLSConfig               `yaml:"tls"`
	Limits          LimitsConfig             `yaml:"limits"`
	TrustedProxies  []string                 `yaml:"trusted_proxies"`
	ManifestMemory  Size                     `yaml:"max_manifest_memory"`
	Store           OriginStoreConfig        `yaml:"store"`
	Memory          Size                     `yaml:"memory"`
	Htpasswd        Path                     `yaml:"htpasswd"`
	Rules           []RuleConfig             `yaml:"rules"`
	Ledger          string                   `yaml:"ledger"`
	LedgerKey       Path                     `yaml:"ledger_key"`
	Webhooks        map[string]WebhookConfig `yaml:"webhooks"`
	URL             URL                      `yaml:"url"`
	Uploads         Path                     `yaml:"uploads"`
	UploadTTL       Duration                 `yaml:"upload_ttl"`
	CollectEvery    Duration                 `yaml:"collect_every"`
	ShutdownTimeout Duration                 `yaml:"shutdown_timeout"`
}

// WebhookConfig is who is told of what is pushed and deleted.
type WebhookConfig struct {
	URL              URL               `yaml:"url"`
	Headers          map[string]Secret `yaml:"headers"`
	Timeout          Duration          `yaml:"timeout"`
	Threshold        int               `yaml:"threshold"`
	Backoff          Duration          `yaml:"backoff"`
	MaxAge           Duration          `yaml:"max_age"`
	IgnoreMediaTypes []string          `yaml:"ignore_media_types"`
	IgnoreActions    []string          `yaml:"ignore_actions"`
}

// SetDefaults sets the defaults of a webhook.
func (w *WebhookConfig) SetDefaults() {
	w.Timeout = Duration(events.DefaultTimeout)
	w.Threshold = events.DefaultThreshold
	w.Backoff = Duration(events.DefaultBackoff)
	w.MaxAge = Duration(events.DefaultMaxAge)
}

// RuleConfig lets an identity write some names.
type RuleConfig struct {
	Identity     string   `yaml:"identity"`
	Repositories []string `yaml:"repositories"`
	Files        []string `yaml:"files"`
	Actions      []string `yaml:"actions"`
}

// OriginStoreConfig is where an origin keeps content: Dir, or S3. Nothing is
// ever evicted from it.
type OriginStoreConfig struct {
	Dir   Path        `yaml:"dir"`
	Scrub ScrubConfig `yaml:"scrub"`
	S3    *S3Config   `yaml:"s3"`
}

// TLSConfig is a certificate chain and its key, in PEM files.
type TLSConfig struct {
	Cert Path `yaml:"cert"`
	Key  Path `yaml:"key"`
}

// StoreConfig is where content is kept: Dir, or S3 with Cache in front.
type StoreConfig struct {
	Dir           Path         `yaml:"dir"`
	MaxSize       Size         `yaml:"max_size"`
	HighWatermark Percent      `yaml:"high_watermark"`
	LowWatermark  Percent      `yaml:"low_watermark"`
	Scrub         ScrubConfig  `yaml:"scrub"`
	VerifyReads   bool         `yaml:"verify_reads"`
	MaxNames      int          `yaml:"max_names"`
	S3            *S3Config    `yaml:"s3"`
	Cache         *CacheConfig `yaml:"cache"`
}

// ScrubConfig is how the directory is read through for what has rotted.
type ScrubConfig struct {
	Rate  Rate     `yaml:"rate"`
	Every Duration `yaml:"every"`
}

// S3Config is a bucket.
type S3Config struct {
	Endpoint       URL      `yaml:"endpoint"`
	Bucket         string   `yaml:"bucket"`
	Prefix         string   `yaml:"prefix"`
	Region         string   `yaml:"region"`
	AccessKey      Secret   `yaml:"access_key"`
	SecretKey      Secret   `yaml:"secret_key"`
	PartSize       Size     `yaml:"part_size"`
	Redirect       bool     `yaml:"redirect"`
	RedirectExpiry Duration `yaml:"redirect_expiry"`
}

// CacheConfig is the directory in front of a bucket.
type CacheConfig struct {
	Dir     Path `yaml:"dir"`
	MaxSize Size `yaml:"max_size"`
}

// UpstreamConfig is an OCI registry that a node pulls from.
type UpstreamConfig struct {
	URLs                 []URL         `yaml:"urls"`
	Private              bool          `yaml:"private"`
	Offline              bool          `yaml:"offline"`
	TagTTL               Duration      `yaml:"tag_ttl"`
	StaleWhileRevalidate Duration      `yaml:"stale_while_revalidate"`
	MaxStale             Duration      `yaml:"max_stale"`
	NegativeTTL          Duration      `yaml:"negative_ttl"`
	Username             string        `yaml:"username"`
	Password             Secret        `yaml:"password"`
	DockerConfig         Path          `yaml:"docker_config"`
	TokenHosts           []string      `yaml:"token_hosts"`
	RedirectHosts        []string      `yaml:"redirect_hosts"`
	CA                   Path          `yaml:"ca"`
	Cert                 Path          `yaml:"cert"`
	Key                  Path          `yaml:"key"`
	MaxConcurrent        int           `yaml:"max_concurrent"`
	Bandwidth            Rate          `yaml:"bandwidth"`
	ConnectTimeout       Duration      `yaml:"connect_timeout"`
	ResponseTimeout      Duration      `yaml:"response_timeout"`
	StallTimeout         Duration      `yaml:"stall_timeout"`
	Ledger               *LedgerConfig `yaml:"ledger"`
}

// LedgerConfig is an upstream's ledger.
type LedgerConfig struct {
	URL      string   `yaml:"url"`
	Key      Path     `yaml:"key"`
	Names    []string `yaml:"names"`
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

// SetDefaults sets the defaults of an origin.
func (o *OriginConfig) SetDefaults() {
	o.Listen = ":5001"
	o.Limits.SetDefaults()
	o.ManifestMemory = registry.DefaultManifestMemory
	o.Store.SetDefaults()
	o.Memory = 64 << 20
	o.UploadTTL = Duration(24 * time.Hour)
	o.CollectEvery = Duration(24 * time.Hour)
	o.ShutdownTimeout = Duration(30 * time.Second)
}

// SetDefaults sets the defaults of a store.
func (s *StoreConfig) SetDefaults() {
	s.HighWatermark, s.LowWatermark = 90, 70
	s.MaxNames = 250_000
	s.Scrub.SetDefaults()
}

// SetDefaults sets the defaults of an origin's store.
func (s *OriginStoreConfig) SetDefaults() { s.Scrub.SetDefaults() }

// SetDefaults sets the defaults of scrubbing.
func (s *ScrubConfig) SetDefaults() { s.Rate, s.Every = 8<<20, Duration(week) }

// SetDefaults sets the defaults of the directory in front of a bucket.
func (c *CacheConfig) SetDefaults() { c.Dir, c.MaxSize = "data", 10<<30 }

// SetDefaults sets the defaults of a bucket.
func (s *S3Config) SetDefaults() {
	s.Region = "us-east-1"
	s.PartSize = 16 << 20
	s.RedirectExpiry = Duration(15 * time.Minute)
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
	f, err := os.Open(path)
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

// String says where content is kept.
func (s OriginStoreConfig) String() string {
	if s.S3 == nil {
		return string(s.Dir)
	}
	return fmt.Sprintf("bucket %s at %s", s.S3.Bucket, s.S3.Endpoint)
}

// String says where content is kept.
func (s StoreConfig) String() string {
	limited := func(dir Path, size Size) string {
		if size == 0 {
			return string(dir)
		}
		return fmt.Sprintf("%s (up to %v)", dir, size)
	}
	if s.S3 == nil {
		return limited(s.Dir, s.MaxSize)
	}
	return fmt.Sprintf("bucket %s at %s behind %s", s.S3.Bucket, s.S3.Endpoint, limited(s.Cache.Dir, s.Cache.MaxSize))
}
