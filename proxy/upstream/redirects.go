package upstream

import (
	"fmt"
	"net/url"
	"strings"
)

// redirectRule says where an upstream may redirect to. A registry's blobs have
// digests, and may come from anywhere; a file server's word is often all that is
// known of a file, so that only hosts count which the configuration names.
type redirectRule struct {
	any     bool
	hosts   map[string]bool // as bareHost writes them
	domains []string        // ".example.org"
}

func newRedirectRule(cfg *Config, bases []*url.URL) (*redirectRule, error) {
	rule := &redirectRule{any: !cfg.Files, hosts: make(map[string]bool)}
	for _, b := range bases {
		rule.hosts[bareHost(b)] = true
	}
	for _, h := range cfg.RedirectHosts {
		name, wild := strings.CutPrefix(h, "*.")
		u, err := url.Parse("https://" + name)
		if err != nil || u.Host != name || u.Hostname() == "" || strings.Contains(name, "*") {
			return nil, fmt.Errorf("redirect host %q: want host, host:port or *.domain", h)
		}
		if wild {
			rule.domains = append(rule.domains, "."+bareHost(u))
			continue
		}
		rule.hosts[bareHost(u)] = true
	}
	return rule, nil
}

func (r *redirectRule) allows(u *url.URL) bool { return r.any || r.lists(u) }

// lists says whether the configuration names the host.
func (r *redirectRule) lists(u *url.URL) bool {
	host := bareHost(u)
	if r.hosts[host] {
		return true
	}
	for _, d := range r.domains {
		if strings.HasSuffix(host, d) {
			return true
		}
	}
	return false
}
