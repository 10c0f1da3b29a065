package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"entrepot/registry/access"
)

// FileUpstreamConfig is a file server that a node pulls from.
type FileUpstreamConfig struct {
	// tried in this order; they have the same files
	// Default: `https://NAME`
	URLs []URL `yaml:"urls"`
	// as for a registry
	Private bool `yaml:"private"`
	// as for registries
	Offline bool `yaml:"offline"`
	// how long a file is answered without asking upstream, where upstream does not say (`Cache-Control`, `Expires`)
	TTL Duration `yaml:"ttl"`
	// the least that upstream can say. With one, also `no-store` and `private` are overruled: otherwise what has these
	// is passed on and not kept
	MinTTL Duration `yaml:"min_ttl"`
	// the most that upstream can say; 0 is no limit
	MaxTTL Duration `yaml:"max_ttl"`
	// for so long after that, a file is answered at once and checked in the background; not where upstream says
	// `no-cache`, nor what is `moving`
	StaleWhileRevalidate Duration `yaml:"stale_while_revalidate"`
	// how long a file that is not fresh is still served while upstream cannot be asked; 0 is no limit
	MaxStale Duration `yaml:"max_stale"`
	// how long an absent file is remembered
	NegativeTTL Duration `yaml:"negative_ttl"`
	// patterns of what never changes, whatever upstream says: it is never asked for again
	// Default: `**/by-hash/**`
	Immutable []string `yaml:"immutable"`
	// patterns of what else points to what is newest: it is checked before it is answered. A list of your own replaces
	// this one
	// Default: indexes of apt, rpm and Helm repositories, `**/stable*.txt`, `**/latest*.txt`
	Moving []string `yaml:"moving"`
	// but not so soon after the last check
	MovingTTL Duration `yaml:"moving_ttl"`
	// by what a file is verified that no ledger knows: `headers` (`Repr-Digest`, `Digest`, `Content-MD5`), and files
	// beside it: `.sha256`, `.sha512`, `SHA256SUMS`, each a request more for each download. What disagrees is never
	// served whole
	// Default: `headers`
	Verify []string `yaml:"verify"`
	// hosts besides those of `urls` that upstream may redirect to; `*.example.org` is all below a domain
	RedirectHosts []string `yaml:"redirect_hosts"`
	// for upstream, with `password`
	Username string `yaml:"username"`
	// password
	Password Secret `yaml:"password"`
	// PEM file of certificates to trust, besides the system's
	CA Path `yaml:"ca"`
	// PEM file of a client certificate, with `key`
	Cert Path `yaml:"cert"`
	// PEM file of its key
	Key Path `yaml:"key"`
	// files received from this upstream at once; more wait for their turn
	MaxConcurrent int `yaml:"max_concurrent"`
	// most bytes a second from this upstream; 0 is no limit
	Bandwidth Rate `yaml:"bandwidth"`
	// for a connection, and again for its TLS handshake
	ConnectTimeout Duration `yaml:"connect_timeout"`
	// for the headers of a response
	ResponseTimeout Duration `yaml:"response_timeout"`
	// a body from which nothing comes for so long is given up, and taken up again elsewhere
	StallTimeout Duration `yaml:"stall_timeout"`
	// .url: as for registries: files that the ledger has are answered by it and verified by its digests
	// .names: what the ledger calls the folder that the URLs are
	// Default: NAME, `urls`, and these without their scheme
	// .interval: between two looks at the ledger; a ledger of a registry's that is the same is looked at once
	Ledger *LedgerConfig `yaml:"ledger"`
}

// SetDefaults sets the defaults of a file server: what the repositories of
// packages, and releases, call their indexes and pointers is known to move.
func (u *FileUpstreamConfig) SetDefaults() {
	u.TTL = Duration(5 * time.Minute)
	u.MaxTTL = Duration(24 * time.Hour)
	u.StaleWhileRevalidate = Duration(time.Hour)
	u.NegativeTTL = Duration(10 * time.Second)
	u.Immutable = []string{"**/by-hash/**"}
	u.Moving = []string{
		"**/InRelease", "**/Release", "**/Release.gpg", "**/Packages*", "**/Sources*", "**/Contents-*", "**/Translation-*",
		"**/repomd.xml*", "**/index.yaml", "**/stable*.txt", "**/latest*.txt",
	}
	u.MovingTTL = Duration(10 * time.Second)
	u.Verify = []string{"headers"}
	u.MaxConcurrent = 64
	u.ConnectTimeout = Duration(5 * time.Second)
	u.ResponseTimeout = Duration(20 * time.Second)
	u.StallTimeout = Duration(20 * time.Second)
}

// files checks the file servers of a node, and completes their URLs.
func (c check) files(n *NodeConfig) {
	names := slices.Sorted(maps.Keys(n.Files))
	for _, name := range names {
		u := n.Files[name]
		c.fileUpstream(name, &u)
		n.Files[name] = u
	}
	if _, ok := n.Files[n.DefaultFiles]; !ok && n.DefaultFiles != "" {
		c.Problemf("node.default_files", "node.default_files: %q is not one of node.files: %s", n.DefaultFiles, strings.Join(names, ", "))
	}
}

func (c check) fileUpstream(name string, u *FileUpstreamConfig) {
	path := "node.files." + name
	if !isHost(name) {
		c.Problemf(path, "%q is not a name for an upstream; write a host in lower case, such as dl.example.org", name)
		return
	}
	if name == "v2" || name == "blobs" {
		c.Problemf(path, "%s: paths below /%s/ have a meaning of their own; choose another name", path, name)
	}
	if u.URLs != nil && len(u.URLs) == 0 {
		c.Problemf(path+".urls", "%s.urls is empty; write at least one URL, or remove the key for https://%s", path, name)
	}
	c.offline(path, u.Offline, u.URLs)
	if u.URLs == nil {
		u.URLs = []URL{URL("https://" + name)}
	}
	for key, patterns := range map[string][]string{"immutable": u.Immutable, "moving": u.Moving} {
		for i, pattern := range patterns {
			if _, err := access.ParsePattern(pattern); err != nil {
				c.Problemf(fmt.Sprintf("%s.%s[%d]", path, key, i), "%s.%s: %v", path, key, err)
			}
		}
	}
	for i, evidence := range u.Verify {
		if !slices.Contains([]string{"headers", ".sha256", ".sha512", "SHA256SUMS"}, evidence) {
			c.Problemf(fmt.Sprintf("%s.verify[%d]", path, i), "%s.verify: %q is not known; write headers, .sha256, .sha512 or SHA256SUMS", path, evidence)
		}
	}
	c.redirectHosts(path, u.RedirectHosts)
	if u.MaxTTL > 0 && u.MinTTL > u.MaxTTL {
		c.Problemf(path+".min_ttl", "%s.min_ttl is %v; it must not exceed max_ttl, %v", path, u.MinTTL, u.MaxTTL)
	}
	if (u.Username == "") != (u.Password == "") {
		c.Problemf(path, "%s needs username and password together", path)
	}
	c.tls(path, u.CA, u.Cert, u.Key)
	if u.Ledger != nil {
		c.ledger(path+".ledger", u.Ledger)
	}
	c.positive(path+".max_concurrent", u.MaxConcurrent)
	c.timeouts(path, u.ConnectTimeout, u.ResponseTimeout, u.StallTimeout)
}

// redirectHosts checks the hosts that an upstream may redirect to.
func (c check) redirectHosts(path string, hosts []string) {
	for i, host := range hosts {
		if !isHost(strings.TrimPrefix(host, "*.")) {
			c.Problemf(fmt.Sprintf("%s.redirect_hosts[%d]", path, i), "%s.redirect_hosts: %q is not a host; write it without scheme and path, such as cdn.example.org or *.example.org", path, host)
		}
	}
}
