package health

import (
	"time"

	"entrepot/geo/choice"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are of each mirror, by its name.
type metrics struct {
	info                  *prometheus.GaugeVec
	up, ramp, quarantined *prometheus.GaugeVec
	failures              *prometheus.CounterVec
	duration              *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"mirror"})
	}
	m := &metrics{
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entrepot_mirror_info", Help: "1, with what a mirror is as labels.",
		}, []string{"mirror", "tier", "country", "continent"}),
		up:          gauge("entrepot_mirror_up", "1 while a mirror is up."),
		ramp:        gauge("entrepot_mirror_ramp_ratio", "Share of its capacity that a mirror is trusted with."),
		quarantined: gauge("entrepot_mirror_quarantined", "1 while a mirror is quarantined for wrong bytes."),
		duration:    gauge("entrepot_mirror_probe_duration_seconds", "How long the last probe of a mirror took."),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entrepot_mirror_probe_failures_total", Help: "Probes of a mirror that failed.",
		}, []string{"mirror"}),
	}
	if reg != nil {
		reg.MustRegister(m.info, m.up, m.ramp, m.quarantined, m.duration, m.failures)
	}
	return m
}

// describe tells what the mirrors of a list are, which may differ from before.
func (m *metrics) describe(list *choice.List) {
	m.info.Reset()
	for i := range list.Len() {
		mirror := list.Mirror(i)
		m.info.WithLabelValues(mirror.Name, mirror.Tier.String(), mirror.Country.String(), mirror.Continent.String()).Set(1)
	}
}

func (m *metrics) show(name string, s *choice.State) {
	number := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	m.up.WithLabelValues(name).Set(number(s.Up))
	m.ramp.WithLabelValues(name).Set(s.Ramp)
	m.quarantined.WithLabelValues(name).Set(number(s.Quarantined))
}

func (m *metrics) probed(name string, took time.Duration, err error) {
	m.duration.WithLabelValues(name).Set(took.Seconds())
	if err != nil {
		m.failures.WithLabelValues(name).Inc()
	}
}

func (m *metrics) forget(name string) {
	for _, v := range []*prometheus.GaugeVec{m.up, m.ramp, m.quarantined, m.duration} {
		v.DeleteLabelValues(name)
	}
	m.failures.DeleteLabelValues(name)
}
