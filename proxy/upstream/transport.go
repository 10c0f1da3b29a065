package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// transports are the connections of an upstream: those to the hosts of its
// URLs, and those to hosts that an answer named. The latter are shown no client
// certificate, and are checked where they are dialled.
type transports struct {
	own, others *http.Transport
	ownHosts    map[string]bool // host:port of the URLs
}

func newTransports(cfg *Config, bases []*url.URL, redirects *redirectRule) (*transports, error) {
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
	d := newDialer(net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}, cfg.TokenHosts, redirects)
	t.own = newTransport(cfg, ownConf, d.proxy, d.dialOwn)
	t.others = newTransport(cfg, conf, d.proxy, d.dialOther)
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
