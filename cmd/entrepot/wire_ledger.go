package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"entrepot/promote/ledger"
	"entrepot/proxy"

	"github.com/prometheus/client_golang/prometheus"
)

// openLedger prepares to follow an upstream's ledger, from where an earlier
// process was. It asks nobody: the ledger may be down.
func (n *node) openLedger(upstream string, urls []string, cfg *LedgerConfig, store StoreConfig, logs *loggers, reg prometheus.Registerer) (proxy.LedgerConfig, error) {
	var none proxy.LedgerConfig
	source, err := ledger.OpenStorage(cfg.URL)
	if err != nil {
		return none, fmt.Errorf("url: %w", err)
	}
	key, err := ledger.LoadKey(string(cfg.Key))
	if err != nil {
		return none, fmt.Errorf("key: %w", err)
	}
	dir := store.Dir
	if store.S3 != nil {
		dir = store.Cache.Dir
	}
	path, err := filepath.Abs(filepath.Join(string(dir), "ledgers", url.PathEscape(upstream)))
	if err != nil {
		return none, err
	}
	held, err := ledger.OpenStorage((&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		return none, fmt.Errorf("opening this node's copy: %w", err)
	}
	follow := ledger.FollowerConfig{
		Source: source, Key: key, Copy: held,
		Interval: time.Duration(cfg.Interval),
		Changed: func(ctx context.Context, entries []ledger.Entry) {
			n.engine.LedgerChanged(ctx, upstream, entries)
		},
		Polled: observePolls(reg, upstream),
		Logger: logs.main,
	}
	if staged := n.staged[ledgerID(cfg)]; staged != nil { // nothing of it is to be left when the import breaks off
		follow.Source, follow.Copy, follow.Changed = staged, nil, nil
	}
	follower, err := ledger.NewFollower(context.Background(), follow)
	if err != nil {
		return none, err
	}
	n.follow = append(n.follow, follower)
	if n.ledgers == nil {
		n.ledgers = make(map[string]*ledger.Follower)
	}
	n.ledgers[ledgerID(cfg)] = follower
	return proxy.LedgerConfig{Ledger: n.asItCounts(cfg, follower), Names: ledgerNames(cfg, upstream, urls)}, nil
}

// asItCounts is a ledger as the engine is to take it.
func (n *node) asItCounts(cfg *LedgerConfig, f *ledger.Follower) proxy.Ledger {
	if n.staged[ledgerID(cfg)] != nil {
		return stagedLedger{f}
	}
	return f
}

// stagedLedger is one that is not in its place yet: what it revokes is not fetched, and
// stays where it is until then.
type stagedLedger struct{ *ledger.Follower }

// State says that it has nothing, by which a node removes what was revoked.
func (stagedLedger) State() *ledger.State { return new(ledger.State) }

// observePolls makes the metrics of a ledger that is followed.
func observePolls(reg prometheus.Registerer, upstream string) func(ledger.PollResult) {
	labels := prometheus.Labels{"upstream": upstream}
	entries := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "entrepot_ledger_entries", Help: "Entries of the upstream's ledger that are followed.", ConstLabels: labels,
	})
	failures := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "entrepot_ledger_poll_failures_total", Help: "Polls of the upstream's ledger that failed or were refused.", ConstLabels: labels,
	})
	checked := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "entrepot_ledger_checked_timestamp_seconds", Help: "When the upstream's ledger was last seen to be as it is here.", ConstLabels: labels,
	})
	refused := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "entrepot_ledger_refused", Help: "1 while the upstream's ledger is refused: it was rolled back, forked or damaged, or another key signs it.", ConstLabels: labels,
	})
	reg.MustRegister(entries, failures, checked, refused)
	return func(r ledger.PollResult) {
		entries.Set(float64(r.Size))
		refused.Set(oneIf(r.Refused()))
		if r.Err != nil {
			failures.Inc()
			return
		}
		checked.SetToCurrentTime()
	}
}

// oneIf is a truth as metrics tell it.
func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// ledgerNames are what a ledger calls an upstream: as configured, else its name and
// its URLs, of which there is one if none are given.
func ledgerNames(cfg *LedgerConfig, name string, urls []string) []string {
	if cfg.Names != nil {
		return cfg.Names
	}
	if urls == nil {
		urls = []string{"https://" + name}
	}
	names := []string{name}
	for _, text := range urls {
		text = strings.TrimSuffix(text, "/")
		names = append(names, text)
		if u, err := url.Parse(text); err == nil && u.Host+u.Path != name {
			names = append(names, u.Host+u.Path)
		}
	}
	return names
}
