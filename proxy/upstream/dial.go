package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"entrepot/registry/reach"
)

// dialer connects to an upstream's own hosts, and to hosts that an answer of it
// named: where it redirects to, where it has tokens from. The latter must not
// have addresses that mean something else to this machine than to upstream: an
// upstream would make the node ask its neighbours, or its cloud, in its place.
// Addresses are judged when they are dialled, so that no name can change its
// meaning in between.
type dialer struct {
	own, other net.Dialer
	byName     net.Dialer      // to own hosts whose URL has a name
	plain      net.Dialer      // for hosts that are neither
	named      *redirectRule   // hosts that the configuration names
	known      map[string]bool // host:port of token hosts, which it names too
	proxies    sync.Map        // host:port of proxies from the environment

	// seen are the places where upstream's own hosts turned out to be. An
	// upstream in a private network may well have the rest of it there, too.
	seen [reach.Places]atomic.Bool
}

func newDialer(plain net.Dialer, tokenHosts []string, redirects *redirectRule) *dialer {
	d := &dialer{own: plain, byName: plain, other: plain, plain: plain, named: redirects, known: make(map[string]bool)}
	for _, h := range tokenHosts {
		for _, scheme := range []string{"https", "http"} {
			d.known[hostPort(&url.URL{Scheme: scheme, Host: h})] = true
		}
	}
	d.own.ControlContext = judge(func(ip netip.Addr) error {
		d.seen[reach.Of(ip)].Store(true)
		return nil
	})
	d.byName.ControlContext = judge(func(ip netip.Addr) error {
		at := reach.Of(ip)
		if at == reach.Nowhere { // whoever has the name's zone says that, not the configuration
			return invalidf("upstream's name leads to %s, where no upstream is: if it is meant to, write the address into the URL", ip)
		}
		d.seen[at].Store(true)
		return nil
	})
	d.other.ControlContext = judge(func(ip netip.Addr) error {
		switch at := reach.Of(ip); {
		case at == reach.Public, at != reach.Nowhere && d.seen[at].Load():
			return nil
		case at == reach.Private:
			return invalidf("upstream named a host whose address %s is in a private network, where upstream itself is not: if it is meant to, add the host to redirect_hosts", ip)
		default:
			return invalidf("upstream named a host whose address %s is local to this machine", ip)
		}
	})
	return d
}

// judge is what a dialer does before it connects to an address.
func judge(judgement func(netip.Addr) error) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dialling %q: %w", address, err)
		}
		return judgement(ap.Addr().Unmap())
	}
}

// proxy is the environment's, and remembers it as a host that may be dialled.
func (d *dialer) proxy(req *http.Request) (*url.URL, error) {
	p, err := http.ProxyFromEnvironment(req)
	if p != nil {
		d.proxies.Store(hostPort(p), true)
	}
	return p, err
}

func (d *dialer) isProxy(address string) bool {
	_, is := d.proxies.Load(strings.ToLower(address))
	return is
}

// isNamed says whether the configuration has a host:port as one that upstream may
// name.
func (d *dialer) isNamed(address string) bool {
	scheme := "https"
	if strings.HasSuffix(address, ":80") {
		scheme = "http"
	}
	return d.known[strings.ToLower(address)] || d.named.lists(&url.URL{Scheme: scheme, Host: address})
}

// dialOwn connects to a host of the upstream's URLs.
func (d *dialer) dialOwn(ctx context.Context, network, address string) (net.Conn, error) {
	if d.isProxy(address) { // where that is says nothing about upstream
		return d.plain.DialContext(ctx, network, address)
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		if _, err := netip.ParseAddr(host); err != nil {
			return d.byName.DialContext(ctx, network, address)
		}
	}
	return d.own.DialContext(ctx, network, address)
}

// dialOther connects to a host that upstream named.
func (d *dialer) dialOther(ctx context.Context, network, address string) (net.Conn, error) {
	if d.isProxy(address) || d.isNamed(address) {
		return d.plain.DialContext(ctx, network, address)
	}
	return d.other.DialContext(ctx, network, address)
}
