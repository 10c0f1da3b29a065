package main

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"entrepot/promote/catalog"
	"entrepot/proxy"
	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/prometheus/client_golang/prometheus"
)

// openFiles prepares the file servers of a node, in the order of their names.
func (n *node) openFiles(cfg *NodeConfig, logs *loggers, reg prometheus.Registerer, build buildVersion) ([]proxy.FileUpstreamConfig, error) {
	var ups []proxy.FileUpstreamConfig
	for _, name := range slices.Sorted(maps.Keys(cfg.Files)) {
		c := cfg.Files[name]
		up := fileUpstreamOf(name, &c, logs.main, build)
		if c.Ledger != nil {
			var err error
			if up.Ledger, err = n.openFileLedger(name, up.URLs, c.Ledger, cfg.Store, logs, reg); err != nil {
				return nil, fmt.Errorf("node.files.%s.ledger: %w", name, err)
			}
		}
		ups = append(ups, up)
	}
	return ups, nil
}

// openFileLedger follows a file server's ledger, with the follower of a registry
// that has the same.
func (n *node) openFileLedger(name string, urls []string, cfg *LedgerConfig, store StoreConfig, logs *loggers, reg prometheus.Registerer) (proxy.LedgerConfig, error) {
	names := ledgerNames(cfg, name, urls)
	if f := n.ledgers[ledgerID(cfg)]; f != nil {
		return proxy.LedgerConfig{Ledger: n.asItCounts(cfg, f), Names: names}, nil
	}
	l, err := n.openLedger("files/"+name, nil, cfg, store, logs, reg)
	l.Names = names
	return l, err
}

// catalogs are the folders of promoted files, by the names of upstreams; nil for
// one without a ledger.
func (n *node) catalogs(cfg *NodeConfig, ups []proxy.FileUpstreamConfig) map[string]*catalog.Catalog {
	all := map[string]*catalog.Catalog{}
	for i := range ups {
		name := ups[i].Name
		all[name] = nil
		if l := cfg.Files[name].Ledger; l != nil {
			c := catalog.New(n.ledgers[ledgerID(l)].State, ups[i].Ledger.Names...)
			if cfg.Files[name].Offline {
				c.Only(func(path string) bool { return n.engine.HasFile(name, path) })
			}
			all[name] = c
		}
	}
	return all
}

// ledgerID tells ledgers apart.
func ledgerID(cfg *LedgerConfig) string { return cfg.URL + "\n" + string(cfg.Key) }

// fileUpstreamOf is a file server as the engine takes it.
func fileUpstreamOf(name string, u *FileUpstreamConfig, log *slog.Logger, build buildVersion) proxy.FileUpstreamConfig {
	urls := make([]string, len(u.URLs))
	for i, url := range u.URLs {
		urls[i] = string(url)
	}
	return proxy.FileUpstreamConfig{
		Config: upstream.Config{
			Name:            name,
			URLs:            urls,
			Offline:         u.Offline,
			RedirectHosts:   u.RedirectHosts,
			Username:        u.Username,
			Password:        string(u.Password),
			CAFile:          string(u.CA),
			CertFile:        string(u.Cert),
			KeyFile:         string(u.Key),
			MaxConcurrent:   u.MaxConcurrent,
			BandwidthLimit:  int64(u.Bandwidth),
			UserAgent:       "entrepot/" + build.Version,
			Logger:          log,
			ConnectTimeout:  time.Duration(u.ConnectTimeout),
			ResponseTimeout: time.Duration(u.ResponseTimeout),
			StallTimeout:    time.Duration(u.StallTimeout),
		},
		Policy: proxy.Policy{
			TTL:                  time.Duration(u.TTL),
			StaleWhileRevalidate: time.Duration(u.StaleWhileRevalidate),
			MaxStale:             time.Duration(u.MaxStale),
			NegativeTTL:          time.Duration(u.NegativeTTL),
		},
		MinTTL:    time.Duration(u.MinTTL),
		MaxTTL:    time.Duration(u.MaxTTL),
		MovingTTL: time.Duration(u.MovingTTL),
		Immutable: u.Immutable,
		Moving:    u.Moving,
		Verify:    u.Verify,
		Private:   u.Private,
	}
}

// nodeSurface sends what asks for the registry's API to that, and all else to
// the files.
type nodeSurface struct{ registry, files http.Handler }

func (s *nodeSurface) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if registry.IsAPI(r.URL.Path) {
		s.registry.ServeHTTP(w, r)
		return
	}
	s.files.ServeHTTP(w, r)
}
