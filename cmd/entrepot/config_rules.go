package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"entrepot/cmd/internal/yamlconf"
	"entrepot/promote/ledger"
	"entrepot/registry"
)

// leastMemory is the smallest memory tier: less holds no manifests worth having.
const leastMemory Size = 1 << 20

// check holds the rules of the configuration that its types cannot say: what
// is needed, what excludes what, and which files must be there. It completes
// defaults that follow from names.
type check struct {
	*yamlconf.Document
	readFile func(path string) ([]byte, error)
}

func (c check) config(cfg *Config) {
	if !c.Has("node") && !c.Has("origin") && !c.Has("router") {
		c.Problemf("", "the file configures no role; add node: with store and upstreams, origin: with store, or router: with mirrors")
	}
	c.admin(&cfg.Admin)
	taken := []struct {
		key     string
		address Address
	}{{"admin.listen", cfg.Admin.Listen}}
	listen := func(key string, address Address) {
		for _, other := range taken {
			if collide(other.address, address) {
				c.Problemf(key, "%s %s and %s %s need different ports", key, address, other.key, other.address)
			}
		}
		taken = append(taken, struct {
			key     string
			address Address
		}{key, address})
	}
	if cfg.Node != nil {
		c.node(cfg.Node)
		listen("node.listen", cfg.Node.Listen)
	}
	if cfg.Origin != nil {
		c.origin(cfg.Origin)
		listen("origin.listen", cfg.Origin.Listen)
	}
	if cfg.Router != nil {
		c.router(cfg.Router, cfg.Node)
		listen("router.listen", cfg.Router.Listen)
	}
}

func (c check) origin(o *OriginConfig) {
	if o.TLS != nil {
		c.pair("origin.tls", o.TLS.Cert, o.TLS.Key)
	}
	c.limits("origin.limits", &o.Limits)
	c.manifestMemory("origin.max_manifest_memory", o.ManifestMemory)
	c.trusted("origin.trusted_proxies", o.TrustedProxies)
	switch {
	case o.Store.Dir == "" && o.Store.S3 == nil:
		c.Problemf("origin.store", "origin.store needs dir (a directory) or s3 (a bucket)")
	case o.Store.Dir != "" && o.Store.S3 != nil:
		c.Problemf("origin.store", "origin.store has both dir and s3; keep one")
	case o.Store.S3 != nil:
		c.s3("origin.store.s3", o.Store.S3)
		if c.Has("origin.store.scrub") {
			c.Problemf("origin.store.scrub", "origin.store.scrub reads a directory through; a bucket looks after itself")
		}
		if o.Store.S3.Redirect {
			c.Problemf("origin.store.s3.redirect", "origin.store.s3.redirect is a node's; an origin sends its blobs itself")
		}
		if o.Uploads == "" {
			c.Problemf("origin.uploads", "origin.store.s3 needs origin.uploads, a directory for uploads in progress")
		}
	default:
		c.scrub("origin.store.scrub", &o.Store.Scrub)
	}
	if o.Store.S3 == nil && o.Uploads == "" {
		o.Uploads = Path(filepath.Join(string(o.Store.Dir), "uploads"))
	}
	if o.Memory < leastMemory {
		c.Problemf("origin.memory", "origin.memory is %v; it must be at least %v", o.Memory, leastMemory)
	}
	if len(o.Rules) > 0 && o.Htpasswd == "" {
		c.Problemf("origin.rules", "origin.rules says what identities may write; name the file that has them in origin.htpasswd")
	}
	for name, w := range o.Webhooks {
		path := "origin.webhooks." + name
		if w.URL == "" {
			c.Problemf(path, "%s.url is missing; write where events are to be sent", path)
		}
		if w.Timeout <= 0 || w.Backoff <= 0 || w.MaxAge <= 0 {
			c.Problemf(path, "%s: timeout, backoff and max_age must be more than 0s", path)
		}
		c.positive(path+".threshold", w.Threshold)
	}
	c.file("origin.htpasswd", o.Htpasswd)
	for i, r := range o.Rules {
		c.rule(fmt.Sprintf("origin.rules[%d]", i), r)
	}
	if o.Ledger != "" {
		if _, err := ledger.OpenStorage(o.Ledger); err != nil {
			c.Problemf("origin.ledger", "origin.ledger: %v", err)
		}
	}
	if o.LedgerKey != "" && o.Ledger == "" {
		c.Problemf("origin.ledger_key", "origin.ledger_key is served beside the ledger; set origin.ledger, too")
	}
	c.publicKey("origin.ledger_key", o.LedgerKey)
	if o.UploadTTL <= 0 {
		c.Problemf("origin.upload_ttl", "origin.upload_ttl is %v; it must be more than 0s", o.UploadTTL)
	}
	if o.CollectEvery < 0 {
		c.Problemf("origin.collect_every", "origin.collect_every is %v; it must be 0s (never) or more", o.CollectEvery)
	}
}

// rule checks who may write what.
func (c check) rule(path string, r RuleConfig) {
	if r.Identity == "" {
		c.Problemf(path, `%s.identity is missing; name one of the htpasswd file, or "*" for all of them`, path)
	}
	if len(r.Repositories)+len(r.Files) == 0 {
		c.Problemf(path, "%s has neither repositories nor files; write patterns of them", path)
	}
	if len(r.Actions) == 0 {
		c.Problemf(path, "%s.actions is missing; write push, delete or both", path)
	}
	for i, action := range r.Actions {
		if action != string(registry.ActionPush) && action != string(registry.ActionDelete) {
			c.Problemf(fmt.Sprintf("%s.actions[%d]", path, i), "%s.actions: %q is neither push nor delete", path, action)
		}
	}
	c.namePatterns(path, r.Repositories, r.Files)
}

// collide reports whether two listeners cannot exist side by side.
func collide(a, b Address) bool {
	hostA, portA, _ := net.SplitHostPort(string(a))
	hostB, portB, _ := net.SplitHostPort(string(b))
	return portA == portB && portA != "0" && (hostA == hostB || hostA == "" || hostB == "")
}

func (c check) node(n *NodeConfig) {
	if n.TLS != nil {
		c.pair("node.tls", n.TLS.Cert, n.TLS.Key)
	}
	c.limits("node.limits", &n.Limits)
	c.manifestMemory("node.max_manifest_memory", n.ManifestMemory)
	c.trusted("node.trusted_proxies", n.TrustedProxies)
	c.store("node.store", &n.Store)
	if n.Memory < leastMemory {
		c.Problemf("node.memory", "node.memory is %v; it must be at least %v", n.Memory, leastMemory)
	}
	c.positive("node.max_fills", n.MaxFills)
	c.positive("node.max_fills_waiting", n.MaxFillsWaiting)
	if n.MaxFillWait <= 0 {
		c.Problemf("node.max_fill_wait", "node.max_fill_wait is %v; it must be more than 0s", n.MaxFillWait)
	}
	if n.Peers != nil {
		c.peers(n.Peers)
	}
	if len(n.Upstreams)+len(n.Files) == 0 {
		c.Problemf("node.upstreams", "node.upstreams is missing; name at least one registry, such as docker.io: {}, or a file server in node.files")
	}
	c.files(n)
	c.access(n)
	names := slices.Sorted(maps.Keys(n.Upstreams))
	for _, name := range names {
		u := n.Upstreams[name]
		c.upstream(name, &u)
		n.Upstreams[name] = u
	}
	if n.DefaultUpstream == "" {
		n.DefaultUpstream = obviousDefault(names)
	}
	if _, ok := n.Upstreams[n.DefaultUpstream]; !ok && n.DefaultUpstream != "" {
		c.Problemf("node.default_upstream", "node.default_upstream: %q is not one of node.upstreams: %s", n.DefaultUpstream, strings.Join(names, ", "))
	}
	c.prefetch(n)
	if n.Mirror != nil {
		c.mirror(n)
	}
}

// obviousDefault is the upstream that clients mean who cannot name one: docker's
// mirror protocol knows docker.io only.
func obviousDefault(names []string) string {
	switch {
	case slices.Contains(names, "docker.io"):
		return "docker.io"
	case len(names) == 1:
		return names[0]
	}
	return ""
}

func (c check) ledger(path string, l *LedgerConfig) {
	if l.URL == "" {
		c.Problemf(path, "%s.url is missing; write where the ledger is, such as https://origin.example.org/ledger", path)
	} else if _, err := ledger.OpenStorage(l.URL); err != nil {
		c.Problemf(path+".url", "%s.url: %v", path, err)
	}
	if l.Key == "" {
		c.Problemf(path, "%s.key is missing; name the file with the ledger's public key (.pub), without which anybody could write names", path)
	}
	c.publicKey(path+".key", l.Key)
	if l.Interval < Duration(100*time.Millisecond) {
		c.Problemf(path+".interval", "%s.interval is %v; it must be at least 100ms", path, l.Interval)
	}
	for i, name := range l.Names {
		if name == "" || strings.HasSuffix(name, "/") {
			c.Problemf(fmt.Sprintf("%s.names[%d]", path, i), "%s.names: %q is not what a ledger calls a registry; write it without a slash at the end, such as registry.k8s.io", path, name)
		}
	}
}

// publicKey checks the file of a ledger's public key.
func (c check) publicKey(path string, file Path) {
	data := c.file(path, file)
	if data == nil {
		return
	}
	switch key, err := ledger.ParseKey(string(data)); {
	case err != nil:
		c.Problemf(path, "%s: %s is no ledger's key: %v", path, file, err)
	case key.Signer != nil:
		c.Problemf(path, "%s: %s is the private key, with which whoever breaks in here signs names; only the public one (.pub) is needed", path, file)
	}
}

func (c check) store(path string, s *StoreConfig) {
	if s.S3 != nil && s.Cache == nil {
		s.Cache = new(CacheConfig)
		s.Cache.SetDefaults()
	}
	switch {
	case s.Dir == "" && s.S3 == nil:
		c.Problemf(path, "%s needs dir (a directory) or s3 (a bucket)", path)
	case s.Dir != "" && s.S3 != nil:
		c.Problemf(path, "%s has both dir and s3; keep one (a directory in front of a bucket is %s.cache.dir)", path, path)
	case s.S3 == nil && s.Cache != nil:
		c.Problemf(path+".cache", "%s.cache goes with s3 only; the limit of a directory is %s.max_size", path, path)
	case s.S3 != nil:
		if s.Cache.Dir == "" {
			c.Problemf(path+".cache", "%s.s3 needs %s.cache.dir, a directory for blobs on their way", path, path)
		}
		if c.Has(path + ".max_size") {
			c.Problemf(path+".max_size", "%s.max_size limits a directory; with s3 set %s.cache.max_size", path, path)
		}
		c.s3(path+".s3", s.S3)
	}
	c.scrub(path+".scrub", &s.Scrub)
	if s.MaxNames < 1000 {
		c.Problemf(path+".max_names", "%s.max_names is %d; it must be at least 1000", path, s.MaxNames)
	}
	if s.LowWatermark >= s.HighWatermark {
		c.Problemf(path+".high_watermark", "%s: low_watermark (%v) must be below high_watermark (%v)", path, s.LowWatermark, s.HighWatermark)
	}
}

func (c check) scrub(path string, s *ScrubConfig) {
	if s.Every < Duration(time.Minute) {
		c.Problemf(path+".every", "%s.every is %v; it must be at least 1m (to turn scrubbing off, set %s.rate to 0)", path, s.Every, path)
	}
}

func (c check) s3(path string, s *S3Config) {
	if s.Endpoint == "" {
		c.Problemf(path+".endpoint", "%s.endpoint is missing; write the URL of the S3 service", path)
	}
	if strings.Trim(s.Endpoint.path(), "/") != "" {
		c.Problemf(path+".endpoint", "%s.endpoint has a path; write scheme, host and port, and set bucket and prefix with their own keys", path)
	}
	if s.Bucket == "" {
		c.Problemf(path+".bucket", "%s.bucket is missing", path)
	}
	if (s.AccessKey == "") != (s.SecretKey == "") {
		c.Problemf(path, "%s needs access_key and secret_key together, or neither", path)
	}
	if slices.Contains(strings.Split(s.Prefix, "/"), "..") {
		c.Problemf(path+".prefix", `%s.prefix must not hold ".."`, path)
	}
	if s.PartSize < 5<<20 || s.PartSize > 5<<30 {
		c.Problemf(path+".part_size", "%s.part_size is %v; S3 allows 5MiB to 5GiB", path, s.PartSize)
	}
	if s.RedirectExpiry <= 0 || s.RedirectExpiry > Duration(week) {
		c.Problemf(path+".redirect_expiry", "%s.redirect_expiry is %v; S3 allows more than 0s, up to 7d", path, s.RedirectExpiry)
	}
}

func (c check) upstream(name string, u *UpstreamConfig) {
	path := "node.upstreams." + name
	if !isHost(name) {
		c.Problemf(path, "%q is not a name for an upstream; write a host in lower case, such as docker.io", name)
		return
	}
	if u.URLs != nil && len(u.URLs) == 0 {
		c.Problemf(path+".urls", "%s.urls is empty; write at least one URL, or remove the key for https://%s", path, name)
	}
	c.offline(path, u.Offline, u.URLs)
	u.fillIn(name)
	c.redirectHosts(path, u.RedirectHosts)
	for i, host := range u.TokenHosts {
		if !isHost(host) {
			c.Problemf(fmt.Sprintf("%s.token_hosts[%d]", path, i), "%s.token_hosts: %q is not a host; write it without scheme and path, such as auth.example.org", path, host)
		}
	}
	switch {
	case (u.Username == "") != (u.Password == ""):
		c.Problemf(path, "%s needs username and password together", path)
	case u.Username != "" && u.DockerConfig != "":
		c.Problemf(path+".docker_config", "%s has username and docker_config; keep one", path)
	}
	if data := c.file(path+".docker_config", u.DockerConfig); data != nil && !json.Valid(data) {
		c.Problemf(path+".docker_config", "%s.docker_config: %s is not JSON", path, u.DockerConfig)
	}
	c.tls(path, u.CA, u.Cert, u.Key)
	if u.Ledger != nil {
		c.ledger(path+".ledger", u.Ledger)
	}
	c.positive(path+".max_concurrent", u.MaxConcurrent)
	c.timeouts(path, u.ConnectTimeout, u.ResponseTimeout, u.StallTimeout)
}

// offline checks an upstream to which there may be no network.
func (c check) offline(path string, offline bool, urls []URL) {
	if offline && urls != nil {
		c.Problemf(path+".urls", "%s is offline, and has urls, which nobody asks; keep one", path)
	}
}

func (c check) timeouts(path string, connect, response, stall Duration) {
	for _, t := range []struct {
		key   string
		value Duration
	}{{"connect_timeout", connect}, {"response_timeout", response}, {"stall_timeout", stall}} {
		if t.value <= 0 {
			c.Problemf(path+"."+t.key, "%s.%s must be more than 0s", path, t.key)
		}
	}
}

func (c check) positive(path string, value int) {
	if value < 1 {
		c.Problemf(path, "%s is %d; it must be at least 1", path, value)
	}
}

// file returns the content of a file the configuration names at path, or nil
// when it names none or the file cannot be read, which is reported.
func (c check) file(path string, name Path) []byte {
	if name == "" {
		return nil
	}
	data, err := c.readFile(string(name))
	if err != nil {
		c.Problemf(path, "%s: cannot read %s: %v", path, name, fileReason(err))
		return nil
	}
	return data
}

// tls checks by what a server is known, and what is shown to it.
func (c check) tls(path string, ca, cert, key Path) {
	c.ca(path+".ca", ca)
	if cert != "" || key != "" {
		c.pair(path, cert, key)
	}
}

// ca checks the file of authorities at path.
func (c check) ca(path string, file Path) {
	if data := c.file(path, file); data != nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
		c.Problemf(path, "%s: %s holds no PEM certificate", path, file)
	}
}

// pair checks the keys cert and key below path.
func (c check) pair(path string, cert, key Path) {
	if cert == "" || key == "" {
		c.Problemf(path, "%s needs cert and key together", path)
		return
	}
	certPEM, keyPEM := c.file(path+".cert", cert), c.file(path+".key", key)
	if certPEM == nil || keyPEM == nil {
		return
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		c.Problemf(path+".cert", "%s: %s and %s are not a certificate and its key: %v", path, cert, key, err)
	}
}

// isHost reports whether s is a host in lower case with an optional port.
func isHost(s string) bool {
	m := regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(?::([0-9]{1,5}))?$`).FindStringSubmatch(s)
	if m == nil || m[2] == "" {
		return m != nil
	}
	port, _ := strconv.Atoi(m[2])
	return port > 0 && port <= 65535
}

// fileReason is why a file could not be read, without its name.
func fileReason(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
