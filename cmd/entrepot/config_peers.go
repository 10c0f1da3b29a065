package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"entrepot/proxy/peers"
)

// PeersConfig is the other nodes of a node's region. All can have the same: a node
// finds out which of them it is.
type PeersConfig struct {
	// the nodes of the region, as they reach each other
	List []URL `yaml:"list"`
	// a name that has the address of each of them, and their port: that of a headless Service,
	// `entrepot-headless.mirror.svc:5000`. It is looked up each `interval`. Plain HTTP, unless it begins with
	// `https://`; then certificates are to be for the name
	DNS string `yaml:"dns"`
	// what the nodes share, and sign their requests with: at least 16 characters
	Secret Secret `yaml:"secret"`
	// how long a peer may give no sign of life while a client waits, before the next source is taken. One that waits
	// for upstream itself says so, and is waited for
	Deadline Duration `yaml:"deadline"`
	// how often peers are looked up and greeted
	Interval Duration `yaml:"interval"`
	// PEM file of authorities trusted for peers besides the system's
	CA Path `yaml:"ca"`
}

// SetDefaults sets the defaults of peers.
func (p *PeersConfig) SetDefaults() {
	p.Deadline = Duration(peers.DefaultDeadline)
	p.Interval = Duration(peers.DefaultInterval)
}

// leastSecret is how long a secret of peers must be, in bytes: what it signs can be
// tried against it by who sees a request.
const leastSecret = 16

func (c check) peers(p *PeersConfig) {
	const path = "node.peers"
	if len(p.List) == 0 && p.DNS == "" {
		c.Problemf(path, "%s needs list (the URLs of the region's nodes) or dns (a name that has their addresses)", path)
	}
	for i, u := range p.List {
		if u.path() != "" {
			c.Problemf(fmt.Sprintf("%s.list[%d]", path, i), "%s.list: %s has a path; write scheme, host and port of the node", path, u)
		}
	}
	if u, err := url.Parse(p.dnsURL()); p.DNS != "" && (err != nil || u.Hostname() == "" || u.Port() == "" || u.Path != "" || u.Scheme != "http" && u.Scheme != "https") {
		c.Problemf(path+".dns", "%s.dns: %q is not a name and a port; write such as entrepot-headless.mirror.svc:5000, with https:// in front where the nodes speak TLS", path, p.DNS)
	}
	if len(p.Secret) < leastSecret {
		c.Problemf(path, "%s.secret must have %d characters or more; write one that all nodes of the region have, such as from: openssl rand -hex 32", path, leastSecret)
	}
	if p.Deadline < Duration(50*time.Millisecond) {
		c.Problemf(path+".deadline", "%s.deadline is %v; it must be at least 50ms", path, p.Deadline)
	}
	if p.Interval < Duration(100*time.Millisecond) {
		c.Problemf(path+".interval", "%s.interval is %v; it must be at least 100ms", path, p.Interval)
	}
	c.ca(path+".ca", p.CA)
}

// dnsURL is the name as a URL: plain HTTP where it has no scheme.
func (p *PeersConfig) dnsURL() string {
	if p.DNS == "" || strings.Contains(p.DNS, "://") {
		return p.DNS
	}
	return "http://" + p.DNS
}

// peersOf is the other nodes as the engine takes them, nil for a node on its own.
func peersOf(p *PeersConfig) *peers.Config {
	if p == nil {
		return nil
	}
	cfg := &peers.Config{
		DNS:      p.dnsURL(),
		Secret:   string(p.Secret),
		Deadline: time.Duration(p.Deadline),
		Interval: time.Duration(p.Interval),
		CAFile:   string(p.CA),
	}
	for _, u := range p.List {
		cfg.URLs = append(cfg.URLs, string(u))
	}
	return cfg
}
