package main

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"entrepot/registry/access"
)

// AccessConfig is who may pull from a node.
type AccessConfig struct {
	// names with bcrypt passwords (`htpasswd -B`), which is read again when it changes. Without `rules`, each may pull
	// everything
	Htpasswd Path          `yaml:"htpasswd"`
	Tokens   *TokensConfig `yaml:"tokens"`
	// PEM file of the authorities of client certificates; needs `node.tls`. Without `rules`, each of their
	// certificates may pull everything
	ClientCA  Path             `yaml:"client_ca"`
	Anonymous []NamesConfig    `yaml:"anonymous"`
	Rules     []ReadRuleConfig `yaml:"rules"`
}

// TokensConfig is which tokens are believed.
type TokensConfig struct {
	// who tokens must be of (`iss`)
	Issuer string `yaml:"issuer"`
	// whom they must be for (`aud`). They also need an `exp`, and count 30 s longer than they say
	Audience string `yaml:"audience"`
	// the issuer's public keys, a JSON Web Key Set: a file, looked at every ten seconds, or an https URL, asked every
	// ten minutes and when a token has a key that is not known, every ten seconds at most. While it cannot be read,
	// the keys before hold. RSA of 2048 bits and more, EC and Ed25519 count
	JWKS string `yaml:"jwks"`
	// of the token server that clients are sent to. Without it they have to come with tokens
	Realm URL `yaml:"realm"`
	// what the token server calls this node
	// Default: `audience`
	Service string `yaml:"service"`
}

// NamesConfig is some names of upstreams.
type NamesConfig struct {
	// whose names everybody may pull; without it those of all upstreams that are not private
	Upstreams []string `yaml:"upstreams"`
	// patterns of them: `*` within an element, `**` for any number of elements
	Repositories []string `yaml:"repositories"`
	// patterns of paths at file servers. Content by digest is `blobs/*`; where no upstream is named before it, only
	// rules for all upstreams count
	Files []string `yaml:"files"`
}

// ReadRuleConfig lets an identity pull some names of upstreams.
type ReadRuleConfig struct {
	// who may; `*` in it stands for any characters, and alone for everybody who is known
	Identity string `yaml:"identity"`
	// whose names; without it, those of all upstreams
	Upstreams []string `yaml:"upstreams"`
	// patterns, as above
	Repositories []string `yaml:"repositories"`
	// patterns, as above
	Files []string `yaml:"files"`
}

// access checks who may pull, and that where it matters somebody said so.
func (c check) access(n *NodeConfig) {
	a := n.Access
	if a == nil {
		for kind, names := range map[string][]string{"upstreams": n.privateUpstreams(), "files": n.privateFiles()} {
			for _, name := range names {
				path := "node." + kind + "." + name
				c.Problemf(path+".private", "%s is private, and nothing says who may pull: add node.access with htpasswd, tokens or client_ca, or with what is open in anonymous", path)
			}
		}
		return
	}
	if a.Htpasswd == "" && a.Tokens == nil && a.ClientCA == "" && len(a.Anonymous) == 0 {
		c.Problemf("node.access", "node.access lets nobody pull: name htpasswd, tokens, client_ca or anonymous, or remove it for a node that is open to all")
	}
	c.file("node.access.htpasswd", a.Htpasswd)
	if a.Tokens != nil {
		c.tokens("node.access.tokens", a.Tokens)
	}
	c.ca("node.access.client_ca", a.ClientCA)
	if a.ClientCA != "" && n.TLS == nil {
		c.Problemf("node.access.client_ca", "node.access.client_ca needs node.tls: certificates come with TLS, to who ends it")
	}
	for i, names := range a.Anonymous {
		c.readable(fmt.Sprintf("node.access.anonymous[%d]", i), n, names)
	}
	for i, r := range a.Rules {
		path := fmt.Sprintf("node.access.rules[%d]", i)
		if r.Identity == "" {
			c.Problemf(path, `%s.identity is missing; write who may, or "*" for everybody who is known`, path)
		}
		c.readable(path, n, NamesConfig{r.Upstreams, r.Repositories, r.Files})
	}
}

// readable checks names that somebody may pull.
func (c check) readable(path string, n *NodeConfig, names NamesConfig) {
	if len(names.Repositories)+len(names.Files) == 0 {
		c.Problemf(path, "%s has neither repositories nor files; write patterns of them", path)
	}
	for i, upstream := range names.Upstreams {
		_, image := n.Upstreams[upstream]
		_, file := n.Files[upstream]
		if !image && !file {
			c.Problemf(fmt.Sprintf("%s.upstreams[%d]", path, i), "%s.upstreams: %q is not one of node.upstreams and node.files", path, upstream)
		}
	}
	c.namePatterns(path, names.Repositories, names.Files)
}

// namePatterns checks patterns of repositories and files.
func (c check) namePatterns(path string, repositories, files []string) {
	for key, patterns := range map[string][]string{"repositories": repositories, "files": files} {
		for i, pattern := range patterns {
			if _, err := access.ParsePattern(pattern); err != nil {
				c.Problemf(fmt.Sprintf("%s.%s[%d]", path, key, i), "%s.%s: %v", path, key, err)
			}
		}
	}
}

func (c check) tokens(path string, t *TokensConfig) {
	if t.Issuer == "" || t.Audience == "" {
		c.Problemf(path, "%s needs issuer and audience, which tokens must have as iss and aud: those for others would be taken too", path)
	}
	switch {
	case t.JWKS == "":
		c.Problemf(path, "%s.jwks is missing; write the URL or the file of the issuer's public keys", path)
	case strings.Contains(t.JWKS, "://"):
		if u, err := url.Parse(t.JWKS); err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
			c.Problemf(path+".jwks", "%s.jwks: this is not an https URL; whoever can change the keys on their way can let anybody pull", path)
		}
	default:
		c.file(path+".jwks", Path(t.JWKS))
	}
	if t.Service != "" && t.Realm == "" {
		c.Problemf(path+".service", "%s.service is told to the token server, whose URL is realm; add that", path)
	}
}

// isLoopback says whether a host is this machine, whatever the resolver says.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// admin checks the listener for operators, which tells what only they should know.
func (c check) admin(a *AdminConfig) {
	host, _, _ := net.SplitHostPort(string(a.Listen)) // it is an Address
	if a.Token == "" && !isLoopback(host) {
		c.Problemf("admin.listen", `admin.listen %s can be reached from other machines: write "127.0.0.1:9090", or set admin.token for those who may look`, a.Listen)
	}
	if len(a.Token) > 0 && len(a.Token) < leastToken {
		c.Problemf("admin.token", "admin.token has fewer than %d characters, and could be guessed; write a longer one, such as openssl rand -hex 32 makes", leastToken)
	}
}

// leastToken is the length of the shortest token that is taken, in bytes.
const leastToken = 16

// privateUpstreams and privateFiles are the names of upstreams that are private.
func (n *NodeConfig) privateUpstreams() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(n.Upstreams)), func(name string) bool { return !n.Upstreams[name].Private })
}

func (n *NodeConfig) privateFiles() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(n.Files)), func(name string) bool { return !n.Files[name].Private })
}
