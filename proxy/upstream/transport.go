package upstream

import (
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

// transports are the connections of an upstream: to the hosts that are
// configured, and to those it redirects to, which are shown no certificate.
type transports struct {
	own, others *http.Transport
	hosts       map[string]bool // host:port of the own
}

func newTransports(cfg *Config, bases []*url.URL) (*transports, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the CA certificates: %w", err)
		}
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			conf.RootCAs = x509.NewCertPool()
		}
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", cfg.CAFile)
		}
	}
	own := conf.Clone()
	switch {
	case cfg.CertFile != "" && cfg.KeyFile != "":
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		own.Certificates = []tls.Certificate{cert}
	case cfg.CertFile != "" || cfg.KeyFile != "":
		return nil, errors.New("a client certificate needs both a certificate and a key")
	}
	t := &transports{own: newTransport(cfg, own), others: newTransport(cfg, conf), hosts: map[string]bool{}}
	for _, b := range bases {
		t.hosts[hostPort(b)] = true
	}
	return t, nil
}

func newTransport(cfg *Config, conf *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    cfg.ConnectTimeout,
		ResponseHeaderTimeout:  cfg.ResponseTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transports) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.hosts[hostPort(req.URL)] {
		return t.own.RoundTrip(req)
	}
	return t.others.RoundTrip(req)
}

func (t *transports) close() {
	t.own.CloseIdleConnections()
	t.others.CloseIdleConnections()
}
