package proxy

import (
	"strconv"

	"entrepot/proxy/upstream"
	"entrepot/registry/admission"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an operator sees of the engine. Label values are bounded:
// configured upstreams and their hosts, never names that clients choose.
type metrics struct {
	fills     prometheus.Gauge
	filled    *prometheus.CounterVec
	requests  *prometheus.CounterVec
	loops     prometheus.Counter
	latencies *prometheus.HistogramVec

	bySource map[string]prometheus.Counter // filled, resolved
}

func newMetrics(reg prometheus.Registerer, sources []string, slots *admission.Queue) *metrics {
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
		loops: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entrepot_loops_total", Help: "Requests that had been at this node before (CDN-Loop), and were stopped.",
		}),
		latencies: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "entrepot_upstream_latency_seconds", Help: "Time from a request to an upstream to its response headers.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}, []string{"upstream", "host"}),
		bySource: make(map[string]prometheus.Counter),
	}
	if reg != nil {
		reg.MustRegister(m.fills, m.filled, m.requests, m.latencies, m.loops)
		reg.MustRegister(queueMetrics(slots)...)
	}
	for _, s := range sources {
		m.bySource[s] = m.filled.WithLabelValues(s)
	}
	return m
}

// queueMetrics tell of the fills that wait for their turn.
func queueMetrics(slots *admission.Queue) []prometheus.Collector {
	refused := func(reason string, value func(*admission.QueueStats) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "entrepot_fills_refused_total",
			Help:        "Downloads from upstream that were refused: of a client with too many, because too many wait, or after too long a wait.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { s := slots.Stats(); return float64(value(&s)) })
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entrepot_fills_waiting", Help: "Downloads from upstream that wait for their turn.",
		}, func() float64 { return float64(slots.Stats().Waiting) }),
		refused("client", func(s *admission.QueueStats) uint64 { return s.RefusedShare }),
		refused("full", func(s *admission.QueueStats) uint64 { return s.RefusedFull }),
		refused("late", func(s *admission.QueueStats) uint64 { return s.RefusedLate }),
	}
}

// watchRemote tells how the remote store does. There may be none.
func watchRemote(reg prometheus.Registerer, r *remoteStore) {
	if reg == nil || r == nil {
		return
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entrepot_s3_up", Help: "1 while the S3 store answers, or was not asked since it last did.",
		}, func() float64 {
			if r.up() {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entrepot_s3_uploads_waiting", Help: "Blobs and records that wait to be uploaded to the S3 store; no more than 4096 are counted.",
		}, func() float64 { return float64(len(r.queue)) }),
	)
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
