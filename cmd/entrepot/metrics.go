package main

import (
	"net/http"
	"strconv"
	"time"

	"entrepot/blobstore"
	"entrepot/cmd/internal/certs"
	"entrepot/registry"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// How many kinds and outcomes there are: the lengths of what is indexed by them.
const (
	kinds    = int(registry.KindFile) + 1
	outcomes = int(registry.OutcomeError) + 1
)

// kindLabel is a kind as metrics call it.
func kindLabel(k registry.Kind) string {
	return [kinds]string{
		registry.KindBase: "base", registry.KindManifest: "manifest", registry.KindBlob: "blob",
		registry.KindTags: "tags", registry.KindReferrers: "referrers", registry.KindUpload: "upload",
		registry.KindFile: "file",
	}[k]
}

// outcomeLabel is an outcome as metrics and the access log call it.
func outcomeLabel(o registry.Outcome) string {
	return [outcomes]string{
		registry.OutcomeNone: "none", registry.OutcomeHit: "hit", registry.OutcomeMiss: "miss",
		registry.OutcomeStale: "stale", registry.OutcomeError: "error",
	}[o]
}

// noUpstream is the label of requests that reached no upstream's name.
const noUpstream = "none"

// requestMetrics counts requests. Every series exists from the start, and a
// request finds its own by index, so that counting costs a few atomic adds.
// Labels are bounded by the configuration: a client cannot make series.
type requestMetrics struct {
	upstreams map[string]*upstreamSeries
	others    *upstreamSeries // under noUpstream
	durations [kinds][outcomes]prometheus.Observer
	failures  map[string]prometheus.Counter // by failureReason
}

type upstreamSeries struct {
	requests [kinds][outcomes]prometheus.Counter
	bytes    [outcomes]prometheus.Counter
}

func newRequestMetrics(reg prometheus.Registerer, upstreams []string) *requestMetrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entrepot_requests_total",
		Help: "Requests of clients, by upstream, what they asked for, and how they were served.",
	}, []string{"upstream", "kind", "outcome"})
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entrepot_response_bytes_total",
		Help: "Bytes of response bodies sent to clients, by upstream and how they were served.",
	}, []string{"upstream", "outcome"})
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "entrepot_request_duration_seconds",
		Help:    "Time from a client's request to the end of its response.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 11), // 0.1 ms to 105 s
	}, []string{"kind", "outcome"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entrepot_request_failures_total",
		Help: "Requests that failed for no fault of the client, by the status that it was told, or cut: the transfer was broken off.",
	}, []string{"reason"})
	reg.MustRegister(requests, bytes, durations, failures)

	m := &requestMetrics{upstreams: make(map[string]*upstreamSeries, len(upstreams)), failures: map[string]prometheus.Counter{}}
	for _, reason := range failureReasons() {
		m.failures[reason] = failures.WithLabelValues(reason)
	}
	series := func(upstream string) *upstreamSeries {
		s := new(upstreamSeries)
		for o := range registry.Outcome(outcomes) {
			s.bytes[o] = bytes.WithLabelValues(upstream, outcomeLabel(o))
			for k := range registry.Kind(kinds) {
				s.requests[k][o] = requests.WithLabelValues(upstream, kindLabel(k), outcomeLabel(o))
			}
		}
		return s
	}
	for _, name := range upstreams {
		m.upstreams[name] = series(name)
	}
	m.others = series(noUpstream)
	for k := range registry.Kind(kinds) {
		for o := range registry.Outcome(outcomes) {
			m.durations[k][o] = durations.WithLabelValues(kindLabel(k), outcomeLabel(o))
		}
	}
	return m
}

// count takes in one request that sent so many bytes of body.
func (m *requestMetrics) count(kind registry.Kind, upstream string, outcome registry.Outcome, bytes int64, took time.Duration) {
	s := m.upstreams[upstream]
	if s == nil {
		s = m.others
	}
	s.requests[kind][outcome].Inc()
	s.bytes[outcome].Add(float64(bytes))
	m.durations[kind][outcome].Observe(took.Seconds())
}

// failureReasons are why a request failed, as metrics call it. Other statuses from
// 500 on count as 500.
func failureReasons() []string { return []string{"500", "502", "503", "504", "cut"} }

// fail counts a request that was answered with a status, or cut.
func (m *requestMetrics) fail(status int, cut bool) {
	switch c := m.failures[strconv.Itoa(status)]; {
	case c != nil:
		c.Inc()
	case status >= http.StatusInternalServerError:
		m.failures["500"].Inc()
	case cut:
		m.failures["cut"].Inc()
	}
}

// storeMetrics tell what the directory and the memory tier hold.
func storeMetrics(dir *blobstore.Dir, memory *blobstore.Memory) []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("entrepot_store_bytes", "Bytes of blobs in the directory.",
			func() float64 { return float64(dir.Usage().Bytes) }),
		gauge("entrepot_store_limit_bytes", "Most bytes of blobs that the directory may have; 0 without a limit.",
			func() float64 { return float64(dir.Limit()) }),
		gauge("entrepot_store_blobs", "Blobs in the directory.",
			func() float64 { return float64(dir.Usage().Blobs) }),
		gauge("entrepot_store_partial_bytes", "Bytes in the directory of blobs that are not whole yet.",
			func() float64 { return float64(dir.Usage().PartialBytes) }),
		counter("entrepot_store_evictions_total", "Blobs and partials evicted from the directory.",
			func() float64 { return float64(dir.Usage().Evictions) }),
		counter("entrepot_store_evicted_bytes_total", "Bytes evicted from the directory.",
			func() float64 { return float64(dir.Usage().EvictedBytes) }),
		counter("entrepot_store_quarantined_total", "Blobs that were found to be wrong on the disk, and put aside.",
			func() float64 { return float64(dir.Usage().Quarantined) }),
		gauge("entrepot_store_quarantine_bytes", "Bytes that are kept of what was put aside.",
			func() float64 { return float64(dir.Usage().QuarantineBytes) }),
		gauge("entrepot_memory_bytes", "Bytes that the memory tier uses, about.",
			func() float64 { used, _ := memory.Usage(); return float64(used) }),
		gauge("entrepot_memory_limit_bytes", "Bytes that the memory tier may use.",
			func() float64 { _, limit := memory.Usage(); return float64(limit) }),
	}
}

// scrubMetrics tell how reading directories through goes, of all together.
func scrubMetrics(scrubs ...*blobstore.Scrubber) []prometheus.Collector {
	gauge := func(name, help string, value func(st *blobstore.ScrubStatus) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { st := scrubStatus(scrubs); return value(&st) })
	}
	counter := func(name, help string, value func(st *blobstore.ScrubStatus) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { st := scrubStatus(scrubs); return value(&st) })
	}
	return []prometheus.Collector{
		counter("entrepot_scrub_blobs_total", "Blobs that scrubbing found to be right.",
			func(st *blobstore.ScrubStatus) float64 { return float64(st.Blobs) }),
		counter("entrepot_scrub_bytes_total", "Bytes that scrubbing read from the disk.",
			func(st *blobstore.ScrubStatus) float64 { return float64(st.Bytes) }),
		counter("entrepot_scrub_rotten_total", "Blobs that scrubbing found to be wrong, and put aside.",
			func(st *blobstore.ScrubStatus) float64 { return float64(st.Rotten) }),
		counter("entrepot_scrub_unreadable_total", "Blobs that scrubbing could not read.",
			func(st *blobstore.ScrubStatus) float64 { return float64(st.Unreadable) }),
		gauge("entrepot_scrub_running", "1 while the directory is being read through.", func(st *blobstore.ScrubStatus) float64 {
			return oneIf(st.Running)
		}),
		gauge("entrepot_scrub_progress_ratio", "How much of the directory this pass has read, or the last one: 0 to 1.",
			func(st *blobstore.ScrubStatus) float64 {
				if st.PassTotal == 0 {
					return 0
				}
				return float64(st.PassBytes) / float64(st.PassTotal)
			}),
		gauge("entrepot_scrub_finished_timestamp_seconds", "When a pass last came to its end, in seconds since 1970, of the directory where that was longest ago; 0 when none ever did.",
			func(st *blobstore.ScrubStatus) float64 {
				if st.LastFinished.IsZero() {
					return 0
				}
				return float64(st.LastFinished.Unix())
			}),
	}
}

// scrubStatus is the status of all scrubbers together.
func scrubStatus(scrubs []*blobstore.Scrubber) blobstore.ScrubStatus {
	all := scrubs[0].Status()
	for _, s := range scrubs[1:] {
		st := s.Status()
		all.Running = all.Running || st.Running
		all.Blobs += st.Blobs
		all.Bytes += st.Bytes
		all.Rotten += st.Rotten
		all.Unreadable += st.Unreadable
		all.PassBytes += st.PassBytes
		all.PassTotal += st.PassTotal
		if st.LastFinished.Before(all.LastFinished) {
			all.LastFinished = st.LastFinished
		}
	}
	return all
}

// certMetric tells when a role's certificate ends.
func certMetric(role string, pair *certs.Pair) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "entrepot_certificate_expiry_timestamp_seconds",
		Help:        "When the certificate that a role serves with ends, in seconds since 1970.",
		ConstLabels: prometheus.Labels{"role": role},
	}, func() float64 { return float64(pair.Expiry().Unix()) })
}

// buildMetrics tell what runs and how the process does.
func buildMetrics(v buildVersion) []prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "entrepot_build_info", Help: "1, with the version as labels.",
		ConstLabels: prometheus.Labels{"version": v.Version, "commit": v.Commit, "goversion": v.Go},
	})
	info.Set(1)
	return []prometheus.Collector{
		info,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
}
