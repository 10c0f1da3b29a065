package proxy

import (
	"strconv"

	"entrepot/proxy/upstream"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an operator sees of the engine. Label values are bounded:
// configured upstreams and their hosts, never names that clients choose.
type metrics struct {
	fills     prometheus.Gauge
	filled    *prometheus.CounterVec
	requests  *prometheus.CounterVec
	latencies *prometheus.HistogramVec

	bySource map[string]prometheus.Counter // filled, resolved
}

func newMetrics(reg prometheus.Registerer, sources []string) *metrics {
	m := &metrics{
		fills: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entrepot_fills_in_progress", Help: "Downloads from upstream into the store that are running.",
		}),
		filled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entrepot_fill_bytes_total", Help: "Bytes of blobs received, by source: an upstream, or the S3 store.",
		}, []string{"source"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entrepot_upstream_requests_total", Help: "Requests sent to upstreams, by the status answered; 0 where there was no answer.",
		}, []string{"upstream", "host", "status"}),
		latencies: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "entrepot_upstream_latency_seconds", Help: "Time from a request to an upstream to its response headers.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}, []string{"upstream", "host"}),
		bySource: make(map[string]prometheus.Counter),
	}
	if reg != nil {
		reg.MustRegister(m.fills, m.filled, m.requests, m.latencies)
	}
	for _, s := range sources {
		m.bySource[s] = m.filled.WithLabelValues(s)
	}
	return m
}

func (m *metrics) fillBytes(source string, n int) {
	if c := m.bySource[source]; c != nil {
		c.Add(float64(n))
	}
}

// observe returns what an upstream's client reports its requests to.
func (m *metrics) observe(name string) func(upstream.Observation) {
	return func(o upstream.Observation) {
		m.requests.WithLabelValues(name, o.Host, strconv.Itoa(o.Status)).Inc()
		m.latencies.WithLabelValues(name, o.Host).Observe(o.Latency.Seconds())
	}
}
