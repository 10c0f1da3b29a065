package main

import (
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"entrepot/geo/locate"
	"entrepot/registry"
	"entrepot/registry/admission"

	"github.com/prometheus/client_golang/prometheus"
)

// LimitsConfig is what one listener takes in.
type LimitsConfig struct {
	// connections at once; 0 is no limit. A client, which is an IPv4 address or 64 bits of IPv6, gets another one as
	// long as it has fewer than three times as many as are free, so that one alone leaves a quarter. What is over is
	// told 429 (its own share) or 503, with `Retry-After`; far more is reset
	MaxConnections int `yaml:"max_connections"`
	// of one client, besides its share; 0 is no further limit. Those of `trusted_proxies` are not counted
	MaxConnectionsPerClient int `yaml:"max_connections_per_client"`
	// requests in flight, shared in the same way; 0 is no limit
	MaxRequests int `yaml:"max_requests"`
	// of one client, besides its share; behind `trusted_proxies` of the client they name
	MaxRequestsPerClient int `yaml:"max_requests_per_client"`
	// requests at once on one connection of HTTP/2
	MaxStreams int `yaml:"max_streams"`
	// of a request's line and headers together; more is 431
	MaxHeaderSize Size `yaml:"max_header_size"`
	// for the TLS handshake, and again for the headers of a request
	HeaderTimeout Duration `yaml:"header_timeout"`
	// for which a connection may do nothing between two requests
	IdleTimeout Duration `yaml:"idle_timeout"`
	// a client that takes or sends less is cut off, measured over 4 MiB: at 16KiB that is after 256 s; 0 is no limit
	MinRate Rate `yaml:"min_rate"`
}

// SetDefaults sets the defaults of a listener's limits.
func (l *LimitsConfig) SetDefaults() {
	*l = LimitsConfig{
		MaxConnections: 8192, MaxRequests: 4096, MaxStreams: 100, MaxHeaderSize: 64 << 10,
		HeaderTimeout: Duration(10 * time.Second), IdleTimeout: Duration(2 * time.Minute), MinRate: 16 << 10,
	}
}

// paceBytes is in what pieces, in bytes, a client's rate is measured.
const paceBytes = 4 << 20

// pace is how long a client may take for every 4 MiB; negative is for ever.
func (l *LimitsConfig) pace() time.Duration {
	if l.MinRate == 0 {
		return -1
	}
	return time.Duration(float64(paceBytes) / float64(l.MinRate) * float64(time.Second))
}

// limits checks the limits of a role's listener.
func (c check) limits(path string, l *LimitsConfig) {
	c.positive(path+".max_streams", l.MaxStreams)
	for _, n := range []struct {
		key   string
		value int
	}{
		{"max_connections", l.MaxConnections},
		{"max_connections_per_client", l.MaxConnectionsPerClient},
		{"max_requests", l.MaxRequests},
		{"max_requests_per_client", l.MaxRequestsPerClient},
	} {
		if n.value < 0 {
			c.Problemf(path+"."+n.key, "%s.%s is %d; it must be 0 (no limit) or more", path, n.key, n.value)
		}
	}
	if l.MaxHeaderSize < 4<<10 || l.MaxHeaderSize > 16<<20 {
		c.Problemf(path+".max_header_size", "%s.max_header_size is %v; it must be 4KiB to 16MiB", path, l.MaxHeaderSize)
	}
	if l.HeaderTimeout <= 0 || l.IdleTimeout <= 0 {
		c.Problemf(path, "%s: header_timeout and idle_timeout must be more than 0s", path)
	}
}

func (c check) manifestMemory(path string, size Size) {
	if size < registry.MaxManifestSize {
		c.Problemf(path, "%s is %v; it must be at least %v, the largest manifest", path, size, Size(registry.MaxManifestSize))
	}
}

// trusted checks the networks whose forwarding headers are believed.
func (c check) trusted(path string, networks []string) {
	_, err := prefixes(networks)
	c.problems(path, path+": ", err)
}

// gate makes the gate of a role's listener. The networks were checked.
func (l *LimitsConfig) gate(role string, trusted []netip.Prefix, log *slog.Logger, reg prometheus.Registerer) *admission.Gate {
	forwarders := locate.NewForwarders(trusted)
	return admission.NewGate(admission.Config{
		MaxConnections: l.MaxConnections, MaxConnectionsPerClient: l.MaxConnectionsPerClient,
		MaxRequests: l.MaxRequests, MaxRequestsPerClient: l.MaxRequestsPerClient,
		Pace:   l.pace(),
		Trusts: forwarders.Trusts,
		Client: func(r *http.Request) (netip.Addr, error) {
			client, err := forwarders.Client(r)
			return client.Addr, err
		},
		Logger:     log.With("role", role),
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"role": role}, reg),
	})
}
