package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"

	"entrepot/proxy/peers"
	"entrepot/registry"
	"entrepot/registry/access"
)

// openReaders makes who may pull; nil where all may.
func openReaders(cfg *NodeConfig, log *slog.Logger) (*access.Readers, error) {
	a := cfg.Access
	if a == nil {
		return nil, nil
	}
	readers := access.ReadersConfig{
		Htpasswd: string(a.Htpasswd), Certificates: a.ClientCA != "",
		DefaultImages: cfg.DefaultUpstream, DefaultFiles: cfg.DefaultFiles, Logger: log,
	}
	if t := a.Tokens; t != nil {
		readers.Tokens = &access.TokensConfig{Issuer: t.Issuer, Audience: t.Audience, JWKS: t.JWKS, Realm: string(t.Realm), Service: t.Service}
	}
	for _, n := range a.Anonymous {
		readers.Anonymous = append(readers.Anonymous, access.ReadRule{Upstreams: n.Upstreams, Repositories: n.Repositories, Files: n.Files})
	}
	for _, r := range a.Rules {
		readers.Rules = append(readers.Rules, access.ReadRule{Identity: r.Identity, Upstreams: r.Upstreams, Repositories: r.Repositories, Files: r.Files})
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Upstreams)) {
		readers.Images = append(readers.Images, access.Upstream{Name: name, Private: cfg.Upstreams[name].Private})
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Files)) {
		readers.Files = append(readers.Files, access.Upstream{Name: name, Private: cfg.Files[name].Private})
	}
	if cfg.TLS == nil && (a.Htpasswd != "" || a.Tokens != nil) {
		log.Warn("passwords and tokens reach node.listen without TLS: set node.tls, or have something before it that ends TLS")
	}
	r, err := access.NewReaders(readers)
	if err != nil {
		return nil, fmt.Errorf("node.access: %w", err)
	}
	return r, nil
}

// regionReaders lets the nodes of the region read, too: whoever has the secret that
// they share has judged its clients itself. It has the answer as it would be without
// access control, and says in its own what its clients and their caches may do.
type regionReaders struct{ *access.Readers }

// ReadImage implements [registry.Readers].
func (a regionReaders) ReadImage(r *http.Request, req *registry.Request) (registry.Leave, error) {
	if peer, ok := peers.CallerOf(r.Context()); ok {
		return registry.Leave{Identity: peer.ID, Open: true}, nil
	}
	return a.Readers.ReadImage(r, req)
}

// ReadFile implements [registry.Readers].
func (a regionReaders) ReadFile(r *http.Request, req *registry.FileRequest) (registry.Leave, error) {
	if peer, ok := peers.CallerOf(r.Context()); ok {
		return registry.Leave{Identity: peer.ID, Open: true}, nil
	}
	return a.Readers.ReadFile(r, req)
}

// clientAuthorities have the certificates that clients are known by; nil where
// none are asked for.
func (n *NodeConfig) clientAuthorities() (*x509.CertPool, error) {
	if n == nil || n.Access == nil || n.Access.ClientCA == "" {
		return nil, nil
	}
	data, err := os.ReadFile(string(n.Access.ClientCA))
	if err != nil {
		return nil, fmt.Errorf("node.access.client_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("node.access.client_ca: %s holds no PEM certificate", n.Access.ClientCA)
	}
	return pool, nil
}

// askClients has a listener ask clients for certificates. Who has none is let in
// all the same: the roles decide what for.
func askClients(config *tls.Config, authorities *x509.CertPool) {
	if authorities != nil {
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, authorities
	}
}
