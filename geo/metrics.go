package geo

import (
	"strconv"

	"entrepot/geo/choice"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count where clients are sent.
type metrics struct {
	redirects *prometheus.CounterVec // by mirror, and what was asked for
	bytes     *prometheus.CounterVec // by mirror: of content whose size is known
	cost      *prometheus.CounterVec // by mirror: bytes times cost_per_gib
	refusals  *prometheus.CounterVec // by status
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		redirects: counter("entrepot_redirects_total", "Requests that were sent to a mirror.", "mirror", "what"),
		bytes:     counter("entrepot_redirect_bytes_total", "Bytes of the content that clients were sent to a mirror for, where its size is known.", "mirror"),
		cost:      counter("entrepot_redirect_cost_total", "What those bytes cost by the mirror's cost_per_gib.", "mirror"),
		refusals:  counter("entrepot_router_errors_total", "Requests that were answered with an error.", "status"),
	}
	if reg != nil {
		reg.MustRegister(m.redirects, m.bytes, m.cost, m.refusals)
	}
	return m
}

// mirrorMetrics are those of one mirror.
type mirrorMetrics struct {
	redirects   [choice.Whats]prometheus.Counter
	bytes, cost prometheus.Counter
}

// of makes ready the metrics of a mirror, which are needed with every redirect.
func (m *metrics) of(mirror string) *mirrorMetrics {
	of := &mirrorMetrics{bytes: m.bytes.WithLabelValues(mirror), cost: m.cost.WithLabelValues(mirror)}
	for what := range choice.Whats {
		of.redirects[what] = m.redirects.WithLabelValues(mirror, what.String())
	}
	return of
}

// announced counts bytes and what they cost.
func (m *mirrorMetrics) announced(to *choice.Mirror, bytes int64) {
	m.bytes.Add(float64(bytes))
	m.cost.Add(float64(bytes) / (1 << 30) * to.CostPerGiB)
}

func (m *metrics) fellBack(q *choice.Query) {
	m.redirects.WithLabelValues("fallback", q.What.String()).Inc()
}

func (m *metrics) refused(status int) {
	m.refusals.WithLabelValues(strconv.Itoa(status)).Inc()
}
