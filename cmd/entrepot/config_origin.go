package main

import (
	"fmt"
	"time"

	"entrepot/registry"
	"entrepot/registry/events"
)

// OriginConfig is the production registry and file store, which promotion
// writes.
type OriginConfig struct {
	// where nodes, clients and promotion come
	Listen Address `yaml:"listen"`
	// .cert: as `node.tls.cert`
	TLS *TLSConfig `yaml:"tls"`
	// .*: as `node.limits.*`
	Limits LimitsConfig `yaml:"limits"`
	// as `node.trusted_proxies`
	TrustedProxies []string `yaml:"trusted_proxies"`
	// as `node.max_manifest_memory`, and of those that are being pushed
	ManifestMemory Size              `yaml:"max_manifest_memory"`
	Store          OriginStoreConfig `yaml:"store"`
	// manifests and small blobs kept in memory, at least 1MiB
	Memory Size `yaml:"memory"`
	// lines `identity:bcrypt hash`, as `htpasswd -B` writes them; a changed file is in force at once, a broken one is
	// logged and the old one kept. Without it nobody writes
	Htpasswd Path         `yaml:"htpasswd"`
	Rules    []RuleConfig `yaml:"rules"`
	// ledger to serve read-only at `/ledger/`: file://DIR, or s3://BUCKET/PREFIX with the AWS_ variables
	Ledger string `yaml:"ledger"`
	// the ledger's public key, to serve at `/ledger/key` for those who set up a mirror
	LedgerKey Path                     `yaml:"ledger_key"`
	Webhooks  map[string]WebhookConfig `yaml:"webhooks"`
	// as clients know the origin, for the URLs in events
	URL URL `yaml:"url"`
	// directory of uploads in progress; best on the file system of `store.dir`
	// Default: `uploads` in `store.dir`
	Uploads Path `yaml:"uploads"`
	// age at which an upload that nobody goes on with is removed
	UploadTTL Duration `yaml:"upload_ttl"`
	// how often blobs that no manifest names are removed, a day after they were pushed; 0s is never
	CollectEvery Duration `yaml:"collect_every"`
	// how long running transfers may go on after SIGTERM
	ShutdownTimeout Duration `yaml:"shutdown_timeout"`
}

// WebhookConfig is who is told of what is pushed and deleted.
type WebhookConfig struct {
	// where events of pushes and deletions are sent, in distribution's envelope. An event waits in memory, in order,
	// and holds up no push
	URL URL `yaml:"url"`
	// headers to send along, such as `Authorization: "Bearer ${TOKEN}"`
	Headers map[string]Secret `yaml:"headers"`
	// for one delivery
	Timeout Duration `yaml:"timeout"`
	// failures in a row after which `backoff` lies between two tries
	Threshold int `yaml:"threshold"`
	// see `threshold`
	Backoff Duration `yaml:"backoff"`
	// an event that could not be delivered for so long is dropped
	MaxAge Duration `yaml:"max_age"`
	// media types of which no events are sent
	IgnoreMediaTypes []string `yaml:"ignore_media_types"`
	// push, mount or delete, of which no events are sent
	IgnoreActions []string `yaml:"ignore_actions"`
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
	// one of the htpasswd file, or `*` for all. Without rules, every identity may write everything
	Identity string `yaml:"identity"`
	// patterns of repositories: `*` within an element, `**` across
	Repositories []string `yaml:"repositories"`
	// patterns of files
	Files []string `yaml:"files"`
	// push, delete
	Actions []string `yaml:"actions"`
}

// OriginStoreConfig is where an origin keeps content: Dir, or S3. Nothing is
// ever evicted from it.
type OriginStoreConfig struct {
	// directory for everything
	Dir Path `yaml:"dir"`
	// .rate: as `node.store.scrub.rate`, for images, and as much again for files. What is wrong is not served any more
	// until it is pushed again; `quarantine/` has no bound here. A bucket is not scrubbed
	Scrub ScrubConfig `yaml:"scrub"`
	// .endpoint: the keys of `origin.store.s3` are those of `node.store.s3`
	// .access_key: with `secret_key`
	// .part_size: of multipart uploads
	// .redirect: a node's; not allowed here
	// .redirect_expiry: a node's
	S3 *S3Config `yaml:"s3"`
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

// SetDefaults sets the defaults of an origin's store.
func (s *OriginStoreConfig) SetDefaults() { s.Scrub.SetDefaults() }

// String says where content is kept.
func (s OriginStoreConfig) String() string {
	if s.S3 == nil {
		return string(s.Dir)
	}
	return fmt.Sprintf("bucket %s at %s", s.S3.Bucket, s.S3.Endpoint)
}
