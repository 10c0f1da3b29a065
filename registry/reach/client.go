package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrRefused says that a server may not lead where it does.
var ErrRefused = errors.New("refused to follow a redirect")

// maxRedirects bounds a chain of redirects.
const maxRedirects = 5

// NewClient makes a client for URLs that the operator configured. They may be
// anywhere. A redirect of theirs is followed at most five times, never from https to
// http, and to another host only where its address is public, or where the
// configured one is itself. Errors: [ErrRefused], and those of the network.
func NewClient() *http.Client {
	return &http.Client{Transport: newTransport(net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}), CheckRedirect: checkRedirect}
}

func checkRedirect(next *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: there are more than %d in a row", ErrRefused, maxRedirects)
	case via[len(via)-1].URL.Scheme == "https" && next.URL.Scheme != "https":
		return fmt.Errorf("%w: it leads from https to %s", ErrRefused, next.URL.Scheme)
	}
	return nil
}

// transport dials hosts that the operator named as they are, and others with care.
type transport struct {
	own, others *http.Transport
	seen        sync.Map // host:port of the operator's → Place, of their last connection
	proxies     sync.Map // host:port of proxies from the environment
}

func newTransport(plain net.Dialer) *transport {
	t := new(transport)
	t.own, t.others = http.DefaultTransport.(*http.Transport).Clone(), http.DefaultTransport.(*http.Transport).Clone()
	for _, tr := range []*http.Transport{t.own, t.others} {
		tr.MaxResponseHeaderBytes = 256 << 10
		tr.Proxy = t.proxy
	}
	t.own.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		d := plain
		d.ControlContext = judge(func(ip netip.Addr) error {
			t.seen.Store(strings.ToLower(address), Of(ip))
			return nil
		})
		return d.DialContext(ctx, network, address)
	}
	t.others.DisableKeepAlives = true // who led here is judged anew each time
	t.others.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		d := plain
		if _, is := t.proxies.Load(strings.ToLower(address)); !is {
			from, _ := ctx.Value(originKey{}).(string)
			d.ControlContext = judge(func(ip netip.Addr) error {
				at := Of(ip)
				if own, ok := t.seen.Load(from); at == Public || at != Nowhere && ok && own == at {
					return nil
				}
				return fmt.Errorf("%w: its address %s is not one that a server elsewhere may lead to", ErrRefused, ip)
			})
		}
		return d.DialContext(ctx, network, address)
	}
	return t
}

// originKey is of the context of a redirected request: the host:port of the first one.
type originKey struct{}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	first := req
	for first.Response != nil && first.Response.Request != nil { // which redirected here
		first = first.Response.Request
	}
	from := hostPort(first.URL)
	if hostPort(req.URL) == from {
		return t.own.RoundTrip(req)
	}
	return t.others.RoundTrip(req.WithContext(context.WithValue(req.Context(), originKey{}, from)))
}

// CloseIdleConnections is for [http.Client].
func (t *transport) CloseIdleConnections() {
	t.own.CloseIdleConnections()
	t.others.CloseIdleConnections()
}

// proxy is the environment's, and remembers it as a host that may be dialled.
func (t *transport) proxy(req *http.Request) (*url.URL, error) {
	p, err := http.ProxyFromEnvironment(req)
	if p != nil {
		t.proxies.Store(hostPort(p), true)
	}
	return p, err
}

// hostPort is where a URL is dialled.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// judge is what a dialer does before it connects to an address.
func judge(judgement func(netip.Addr) error) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dialling %q: %w", address, err)
		}
		return judgement(ap.Addr())
	}
}
