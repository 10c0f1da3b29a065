package warm

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/proxy"
	"entrepot/proxy/mirror"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// Schedule is what is fetched, and when.
type Schedule struct {
	Name     string // a label
	Every    time.Duration
	Windows  mirror.Windows
	Patterns []Pattern
	// Platforms are those of which images are wanted; none are all.
	Platforms []ocispec.Platform
	// Limit bounds the names of each pattern.
	Limit int
	// Jobs bounds what is fetched at once, Bandwidth the bytes a second; 0 is the
	// default, and no bound.
	Jobs      int
	Bandwidth int64
}

// PrefetchConfig is what a [Prefetcher] is made of.
type PrefetchConfig struct {
	Source    Source
	Names     Names
	Schedules []Schedule
	Now       func() time.Time // nil means time.Now
	Logger    *slog.Logger     // nil discards
	// Registerer takes the metrics; nil leaves them out.
	Registerer prometheus.Registerer
}

// Prefetcher fetches what its schedules say, when they say it.
type Prefetcher struct {
	cfg     PrefetchConfig
	metrics prefetchMetrics
}

// prefetchMetrics are of the last run of each schedule.
type prefetchMetrics struct {
	finished, names, failed *prometheus.GaugeVec
	bytes                   *prometheus.CounterVec
}

// NewPrefetcher makes a prefetcher.
func NewPrefetcher(cfg PrefetchConfig) *Prefetcher {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"prefetch"})
	}
	m := prefetchMetrics{
		finished: gauge("entrepot_prefetch_last_run_timestamp_seconds", "When the last run of a prefetch ended."),
		names:    gauge("entrepot_prefetch_names", "Names that the last run of a prefetch found."),
		failed:   gauge("entrepot_prefetch_failures", "Names and patterns that failed in the last run of a prefetch."),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entrepot_prefetch_bytes_total", Help: "Bytes that a prefetch brought; what was there does not count.",
		}, []string{"prefetch"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(m.finished, m.names, m.failed, m.bytes)
	}
	return &Prefetcher{cfg, m}
}

// Run runs all schedules until ctx ends: each at once, and then again and again, in
// its windows only.
func (p *Prefetcher) Run(ctx context.Context) {
	var running sync.WaitGroup
	for i := range p.cfg.Schedules {
		running.Go(func() { p.schedule(ctx, &p.cfg.Schedules[i]) })
	}
	running.Wait()
}

func (p *Prefetcher) schedule(ctx context.Context, s *Schedule) {
	for {
		start := p.cfg.Now()
		open, until := s.Windows.At(start)
		if !open {
			if pause.For(ctx, until.Sub(start)) != nil {
				return
			}
			continue
		}
		err := p.inWindow(ctx, s, start, until)
		next := start.Add(s.Every)
		if err != nil { // its time was over: it goes on in the next window
			next = until
		}
		if pause.For(ctx, next.Sub(p.cfg.Now())) != nil {
			return
		}
	}
}

// errWindow is the end of a window before that of a run.
var errWindow = errors.New("the time for fetching is over")

// inWindow fetches until all is there or the window ends, which is an error.
func (p *Prefetcher) inWindow(ctx context.Context, s *Schedule, now, until time.Time) error {
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, until.Sub(now), errWindow)
		defer cancel()
	}
	p.Once(ctx, s)
	if errors.Is(context.Cause(ctx), errWindow) {
		return errWindow
	}
	return nil
}

// Once fetches what a schedule says, now.
func (p *Prefetcher) Once(ctx context.Context, s *Schedule) Summary {
	log := p.cfg.Logger.With("prefetch", s.Name)
	if s.Bandwidth > 0 {
		burst := min(max(s.Bandwidth/50, 16<<10), 1<<20)
		ctx = proxy.WithPace(ctx, rate.NewLimiter(rate.Limit(s.Bandwidth), int(burst)))
	}
	items, bad := p.resolve(ctx, s, log)
	sum := Run(ctx, Config{
		Source: p.cfg.Source, Platforms: s.Platforms, Jobs: cmp.Or(s.Jobs, 4),
		Report: func(r Result) {
			p.metrics.bytes.WithLabelValues(s.Name).Add(float64(r.Bytes))
			if r.Err != nil && ctx.Err() == nil {
				log.Warn("a name could not be fetched; it is tried again in the next run", "name", r.Item.Name, "error", r.Err)
			}
		},
	}, items)
	sum.Failed += bad
	p.metrics.finished.WithLabelValues(s.Name).Set(float64(p.cfg.Now().Unix()))
	p.metrics.names.WithLabelValues(s.Name).Set(float64(sum.Names))
	p.metrics.failed.WithLabelValues(s.Name).Set(float64(sum.Failed))
	switch {
	case errors.Is(context.Cause(ctx), errWindow):
		log.Info("prefetching stops for now; its time is over", "names", sum.Names, "bytes", sum.Bytes)
	case ctx.Err() == nil:
		log.Info("prefetched", "names", sum.Names, "failed", sum.Failed, "bytes", sum.Bytes)
	}
	return sum
}

// resolve are the names that the patterns mean now, and how many patterns failed.
func (p *Prefetcher) resolve(ctx context.Context, s *Schedule, log *slog.Logger) (items []Item, bad int) {
	for i := range s.Patterns {
		found, cut, err := s.Patterns[i].Resolve(ctx, p.cfg.Names, s.Limit)
		if err != nil {
			bad++
			if ctx.Err() == nil {
				log.Warn("a pattern could not be resolved; it is tried again in the next run", "error", err)
			}
		}
		if err == nil && len(found) == 0 {
			log.Info("a pattern means no name now", "pattern", s.Patterns[i].text)
		}
		if cut > 0 {
			log.Info("a pattern means more names than its limit; the highest are fetched", "pattern", s.Patterns[i].text, "limit", s.Limit, "left", cut)
		}
		for _, item := range found {
			if !slices.Contains(items, item) {
				items = append(items, item)
			}
		}
	}
	return items, bad
}
