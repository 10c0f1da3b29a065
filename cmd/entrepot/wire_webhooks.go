package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"entrepot/registry/events"

	"github.com/prometheus/client_golang/prometheus"
)

// openWebhooks starts to tell the webhooks what happens, of which there may be
// none.
func openWebhooks(cfg *OriginConfig, logs *loggers, reg prometheus.Registerer) (*events.Sender, error) {
	sender := events.Config{
		Addr:        string(cfg.Listen),
		RegistryURL: string(cfg.URL),
		FilesURL:    string(cfg.URL),
		Logger:      logs.main,
	}
	names := slices.Sorted(maps.Keys(cfg.Webhooks))
	if len(names) > 0 {
		sender.Metrics = newWebhookMetrics(reg)
	}
	for _, name := range names {
		w := cfg.Webhooks[name]
		headers := http.Header{}
		for key, value := range w.Headers {
			headers.Set(key, string(value))
		}
		sender.Endpoints = append(sender.Endpoints, events.Endpoint{
			Name: name, URL: string(w.URL), Headers: headers,
			Timeout: time.Duration(w.Timeout), Threshold: w.Threshold, Backoff: time.Duration(w.Backoff), MaxAge: time.Duration(w.MaxAge),
			IgnoreMediaTypes: w.IgnoreMediaTypes, IgnoreActions: w.IgnoreActions,
		})
	}
	s, err := events.New(sender)
	if err != nil {
		return nil, fmt.Errorf("origin.webhooks: %w", err)
	}
	return s, nil
}

// webhookMetrics counts deliveries.
type webhookMetrics struct {
	queued            *prometheus.GaugeVec
	delivered, failed *prometheus.CounterVec
	dropped           *prometheus.CounterVec
}

func newWebhookMetrics(reg prometheus.Registerer) *webhookMetrics {
	m := &webhookMetrics{
		queued: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entrepot_webhook_queue_events", Help: "Events that wait to be delivered, by webhook.",
		}, []string{"webhook"}),
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entrepot_webhook_delivered_total", Help: "Events that were delivered, by webhook.",
		}, []string{"webhook"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entrepot_webhook_failures_total", Help: "Deliveries that failed and are tried again, by webhook.",
		}, []string{"webhook"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entrepot_webhook_dropped_total", Help: "Events that were given up, by webhook and reason.",
		}, []string{"webhook", "reason"}),
	}
	reg.MustRegister(m.queued, m.delivered, m.failed, m.dropped)
	return m
}

func (m *webhookMetrics) Queued(endpoint string, events int) {
	m.queued.WithLabelValues(endpoint).Set(float64(events))
}
func (m *webhookMetrics) Delivered(endpoint string) { m.delivered.WithLabelValues(endpoint).Inc() }
func (m *webhookMetrics) Failed(endpoint string)    { m.failed.WithLabelValues(endpoint).Inc() }
func (m *webhookMetrics) Dropped(endpoint string, reason events.Reason) {
	m.dropped.WithLabelValues(endpoint, string(reason)).Inc()
}
