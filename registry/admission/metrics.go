package admission

import "github.com/prometheus/client_golang/prometheus"

// metrics tell what is here, and what was refused.
func (g *Gate) metrics() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	count := func(of func() int) func() float64 {
		return func() float64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			return float64(of())
		}
	}
	all := []prometheus.Collector{
		gauge("entrepot_connections", "Connections of clients.", count(func() int { return len(g.conns) })),
		gauge("entrepot_clients", "Clients with connections or requests: addresses, of IPv6 the first 64 bits.", count(func() int { return len(g.guests) })),
		gauge("entrepot_requests_in_flight", "Requests of clients that are being answered.", func() float64 { return float64(g.requests.Load()) }),
	}
	for r := range reasons {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "entrepot_refused_total",
			Help:        "Connections and requests that were refused or cut off, by the limit that they met.",
			ConstLabels: prometheus.Labels{"reason": r.String()},
		}, func() float64 { return float64(g.refused[r].Load()) }))
	}
	return all
}
