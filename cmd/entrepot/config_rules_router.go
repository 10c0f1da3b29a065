package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"entrepot/geo/locate"
)

// router checks a router. Problems of the list of mirrors are told together, each
// with its mirror.
func (c check) router(r *RouterConfig, node *NodeConfig) {
	if r.TLS != nil {
		c.pair("router.tls", r.TLS.Cert, r.TLS.Key)
	}
	c.limits("router.limits", &r.Limits)
	if len(r.Mirrors) == 0 {
		c.Problemf("router", "router.mirrors is missing; write at least one mirror, such as {name: origin, urls: [\"https://origin.example.org\"], tier: origin, country: US, lat: 41.3, lon: -95.9}")
	}
	if node != nil && len(r.Upstreams)+len(r.Files) == 0 {
		r.inherit(node)
	}
	atlas, err := locate.NewAtlas()
	if err != nil {
		c.Problemf("router", "router: %v", err)
		return
	}
	if len(r.Mirrors) > 0 {
		_, err := r.mirrors(atlas)
		c.problems("router.mirrors", "router.mirrors: ", err)
	}
	_, err = r.Geo.location(atlas)
	c.problems("router.geo.prefixes", "router.geo.prefixes: ", err)
	for key, texts := range map[string][]string{"router.trusted_proxies": r.TrustedProxies, "router.fixed.clients": r.Fixed.Clients} {
		_, err := prefixes(texts)
		c.problems(key, key+": ", err)
	}
	c.routerNames(r)
	if r.Fixed.any() && node == nil {
		c.Problemf("router.fixed", "router.fixed needs a node in the same file, which serves those who are not redirected; add node:")
	}
	if r.Probes.Interval < Duration(time.Second) || r.Probes.Timeout < Duration(100*time.Millisecond) {
		c.Problemf("router.probes", "router.probes: interval is %v and timeout %v; they must be at least 1s and 100ms", r.Probes.Interval, r.Probes.Timeout)
	}
	for _, text := range r.Probes.Blobs {
		_, err := parseProbeBlob(text, r)
		c.problems("router.probes.blobs", "router.probes.blobs: ", err)
	}
}

// inherit takes the names of a node in the same process.
func (r *RouterConfig) inherit(node *NodeConfig) {
	r.DefaultUpstream, r.DefaultFiles = cmp.Or(r.DefaultUpstream, node.DefaultUpstream), cmp.Or(r.DefaultFiles, node.DefaultFiles)
	r.Upstreams, r.Files = map[string]RouterUpstreamConfig{}, map[string]RouterFilesConfig{}
	for name, u := range node.Upstreams {
		r.Upstreams[name] = RouterUpstreamConfig{Ledger: u.Ledger.named(name, u.URLs)}
	}
	for name, f := range node.Files {
		var own RouterFilesConfig
		own.SetDefaults()
		own.Ledger = f.Ledger.named(name, f.URLs)
		r.Files[name] = own
	}
}

// named is the ledger with the names that a node's upstream has in it.
func (l *LedgerConfig) named(name string, urls []URL) *LedgerConfig {
	if l == nil {
		return nil
	}
	texts := make([]string, len(urls))
	for i, u := range urls {
		texts[i] = string(u)
	}
	named := *l
	named.Names = ledgerNames(l, name, texts)
	return &named
}

// routerNames checks the names of upstreams, and what is said of them.
func (c check) routerNames(r *RouterConfig) {
	if _, ok := r.Upstreams[r.DefaultUpstream]; r.DefaultUpstream != "" && !ok {
		c.Problemf("router.default_upstream", "router.default_upstream: %q is not among router.upstreams", r.DefaultUpstream)
	}
	if _, ok := r.Files[r.DefaultFiles]; r.DefaultFiles != "" && !ok {
		c.Problemf("router.default_files", "router.default_files: %q is not among router.files", r.DefaultFiles)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Upstreams)) {
		path, up := "router.upstreams."+name, r.Upstreams[name]
		if up.Ledger != nil {
			c.ledger(path+".ledger", up.Ledger)
		}
		_, err := patterns(up.PrivateRepositories)
		c.problems(path+".private_repositories", path+".private_repositories: ", err)
		if !isHost(name) {
			c.Problemf(path, "router.upstreams: %q is not a host; write host or host:port, such as docker.io", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		path, f := "router.files."+name, r.Files[name]
		if !isHost(name) {
			c.Problemf(path, "router.files: %q is not a host; write host or host:port, such as dl.k8s.io", name)
		}
		for key, texts := range map[string][]string{path + ".immutable": f.Immutable, path + ".moving": f.Moving} {
			_, err := patterns(texts)
			c.problems(key, key+": ", err)
		}
		if f.Ledger != nil {
			c.ledger(path+".ledger", f.Ledger)
		}
	}
}

// problems tells each line of an error.
func (c check) problems(key, prefix string, err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, "cannot be used:") {
			c.Problemf(key, "%s%s", prefix, line)
		}
	}
}

// clientAddress reads the address of a client.
func clientAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, fmt.Errorf("%q is no address; write one such as 192.0.2.1 or 2001:db8::1", text)
	}
	return a.Unmap().WithZone(""), nil
}
