package peers

import "github.com/prometheus/client_golang/prometheus"

// metrics are what an operator sees of the group.
type metrics struct {
	answers *prometheus.CounterVec
	forged  prometheus.Counter
}

// Results of asking a peer for content, as metrics count them.
const (
	resultGave    = "gave"
	resultRefused = "refused" // it answered, and does not have it
	resultFailed  = "failed"  // it did not answer, or not in time
)

func newMetrics(reg prometheus.Registerer, g *Group) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entrepot_peer_requests_total", Help: "Requests for content sent to peers, by what came of them: gave, refused, failed.",
		}, []string{"result"}),
		forged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entrepot_peer_signatures_refused_total", Help: "Requests that claim to be a peer's and are not signed with the secret.",
		}),
	}
	for _, result := range []string{resultGave, resultRefused, resultFailed} {
		m.answers.WithLabelValues(result)
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.answers, m.forged)
	for _, up := range []bool{true, false} {
		state := map[bool]string{true: "up", false: "down"}[up]
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entrepot_peers", Help: "Other nodes of the region, by whether they answer.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(g.Count(up)) }))
	}
	return m
}

// Count is how many peers are up, or down. This node is neither.
func (g *Group) Count(up bool) int {
	n := 0
	for _, p := range g.members() {
		if p.counts(up) {
			n++
		}
	}
	return n
}
