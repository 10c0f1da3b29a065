package main

import (
	"context"
	"maps"
	"slices"

	"entrepot/promote/ledger"
	"entrepot/proxy"
	"entrepot/proxy/mirror"
	"entrepot/proxy/warm"

	"github.com/prometheus/client_golang/prometheus"
)

// openPrefetch prepares what is fetched now and then before anybody asks.
func (n *node) openPrefetch(cfg *NodeConfig, engine *proxy.Config, logs *loggers, reg prometheus.Registerer) (*warm.Prefetcher, error) {
	var schedules []warm.Schedule
	for _, name := range slices.Sorted(maps.Keys(cfg.Prefetch)) {
		p := cfg.Prefetch[name]
		s, err := p.schedule(name)
		if err != nil {
			return nil, err
		}
		schedules = append(schedules, s)
	}
	return warm.NewPrefetcher(warm.PrefetchConfig{
		Source:    warm.Node{Node: n.engine},
		Names:     &nodeNames{node: n.engine, ups: n.ledgerUpstreams(cfg, engine)},
		Schedules: schedules, Logger: logs.main, Registerer: reg,
	}), nil
}

// nodeNames are the names of a node's upstreams: those of ledgers, and tags as
// upstreams list them.
type nodeNames struct {
	node *proxy.Node
	ups  []mirror.Upstream
}

// All implements [warm.Names].
func (n *nodeNames) All(upstream string, files bool) (names []string, known bool) {
	kind := ledger.Image
	if files {
		kind = ledger.File
	}
	for i := range n.ups {
		if u := &n.ups[i]; u.Name == upstream && u.Kind == kind {
			for _, name := range u.All(u.Ledger.State()) {
				names = append(names, name.Path)
			}
			return names, true
		}
	}
	return nil, false
}

// Tags implements [warm.Names].
func (n *nodeNames) Tags(ctx context.Context, upstream, repository string) ([]string, error) {
	return n.node.PullTags(ctx, upstream, repository)
}
