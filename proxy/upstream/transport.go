package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// transports are the connections of an upstream: those to the hosts of its
// URLs, and those to hosts that an answer named. The latter are shown no client
// certificate, and are checked where they are dialled.
type transports struct {
	own, others *http.Transport
	ownHosts    map[string]bool // host:port of the URLs
}

func newTransports(cfg *Config, bases []*url.URL) (*transports, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the CA certificates: %w", err)
		}
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("reading the system's CA certificates, to which %s is added: %w", cfg.CAFile, err)
		}
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", cfg.CAFile)
		}
	}
	ownConf := conf.Clone()
	switch {
	case cfg.CertFile != "" && cfg.KeyFile != "":
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate %s and its key %s: %w", cfg.CertFile, cfg.KeyFile, err)
		}
		ownConf.Certificates = []tls.Certificate{cert}
	case cfg.CertFile != "" || cfg.KeyFile != "":
		return nil, errors.New("a client certificate needs both a certificate file and a key file")
	}
	t := &transports{ownHosts: make(map[string]bool)}
	for _, b := range bases {
		t.ownHosts[hostPort(b)] = true
	}
	dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}
	t.own = newTransport(cfg, ownConf, http.ProxyFromEnvironment, dialer.DialContext)
	guarded := newGuardedDialer(dialer, bases, cfg.TokenHosts)
	t.others = newTransport(cfg, conf, guarded.proxy, guarded.dial)
	return t, nil
}

type (
	proxyFunc = func(*http.Request) (*url.URL, error)
	dialFunc  = func(ctx context.Context, network, address string) (net.Conn, error)
)

// newTransport is made for many large bodies from few hosts.
func newTransport(cfg *Config, conf *tls.Config, proxy proxyFunc, dial dialFunc) *http.Transport {
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            dial,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    cfg.ConnectTimeout,
		ResponseHeaderTimeout:  cfg.ResponseTimeout,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         128 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // or net/http asks for gzip by itself
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     4 << 20,
			MaxReceiveBufferPerConnection: 64 << 20,
			SendPingTimeout:               cfg.StallTimeout, // finds dead connections
			PingTimeout:                   cfg.ConnectTimeout,
		},
	}
}

// RoundTrip implements [http.RoundTripper].
func (t *transports) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.ownHosts[hostPort(req.URL)] {
		return t.own.RoundTrip(req)
	}
	return t.others.RoundTrip(req)
}

func (t *transports) close() {
	t.own.CloseIdleConnections()
	t.others.CloseIdleConnections()
}

// guardedDialer connects to hosts that an answer named, but not to addresses
// that only this machine or its cloud can reach: an upstream must not make a
// node ask those for it. The address is judged when it is dialled, so that no
// name can change its meaning in between.
type guardedDialer struct {
	net.Dialer             // refuses such addresses
	plain      *net.Dialer // for hosts that the configuration names
	known      map[string]bool
	proxies    sync.Map // host:port of proxies from the environment
}

func newGuardedDialer(plain *net.Dialer, bases []*url.URL, tokenHosts []string) *guardedDialer {
	d := &guardedDialer{Dialer: *plain, plain: plain, known: make(map[string]bool)}
	for _, h := range tokenHosts {
		for _, scheme := range []string{"https", "http"} {
			d.known[hostPort(&url.URL{Scheme: scheme, Host: h})] = true
		}
	}
	// An upstream on this machine may well send to another server on it.
	loopback := false
	for _, b := range bases {
		loopback = loopback || isLoopback(b.Hostname())
	}
	d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dialling %q: %w", address, err)
		}
		ip := ap.Addr().Unmap()
		switch {
		case ip.IsLoopback() && loopback:
		case ip.IsLoopback(), ip.IsUnspecified(), ip.IsLinkLocalUnicast(), ip.IsMulticast():
			return invalidf("upstream named a host whose address %s is local to this machine", ip)
		}
		return nil
	}
	return d
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// proxy is the environment's, and remembers it as a host that may be dialled.
func (d *guardedDialer) proxy(req *http.Request) (*url.URL, error) {
	p, err := http.ProxyFromEnvironment(req)
	if p != nil {
		d.proxies.Store(hostPort(p), true)
	}
	return p, err
}

func (d *guardedDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, isProxy := d.proxies.Load(strings.ToLower(address)); isProxy || d.known[strings.ToLower(address)] {
		return d.plain.DialContext(ctx, network, address)
	}
	return d.DialContext(ctx, network, address)
}
