package main

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"entrepot/registry/access"
)

// FileUpstreamConfig is a file server that a node pulls from.
type FileUpstreamConfig struct {
	URLs                 []URL         `yaml:"urls"`
	Private              bool          `yaml:"private"`
	Offline              bool          `yaml:"offline"`
	TTL                  Duration      `yaml:"ttl"`
	MinTTL               Duration      `yaml:"min_ttl"`
	MaxTTL               Duration      `yaml:"max_ttl"`
	StaleWhileRevalidate Duration      `yaml:"stale_while_revalidate"`
	MaxStale             Duration      `yaml:"max_stale"`
	NegativeTTL          Duration      `yaml:"negative_ttl"`
	Immutable            []string      `yaml:"immutable"`
	Moving               []string      `yaml:"moving"`
	MovingTTL            Duration      `yaml:"moving_ttl"`
	Verify               []string      `yaml:"verify"`
	RedirectHosts        []string      `yaml:"redirect_hosts"`
	Username             string        `yaml:"username"`
	Password             Secret        `yaml:"password"`
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
	if data := c.file(path+".ca", u.CA); data != nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
		c.Problemf(path+".ca", "%s.ca: %s holds no PEM certificate", path, u.CA)
	}
	if u.Cert != "" || u.Key != "" {
		c.pair(path, u.Cert, u.Key)
	}
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
