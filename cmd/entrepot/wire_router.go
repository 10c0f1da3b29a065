package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"entrepot/geo"
	"entrepot/geo/choice"
	"entrepot/geo/health"
	"entrepot/geo/locate"
	"entrepot/promote/catalog"
	"entrepot/promote/ledger"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// listInterval is how often the file with the list of mirrors is looked at,
	// and geoInterval those with places.
	listInterval = 2 * time.Second
	geoInterval  = 30 * time.Second
)

// routerRole is the router, ready to be served.
type routerRole struct {
	http     http.Handler
	router   *geo.Router
	prober   *health.Prober
	presence *health.Presence
	locator  *locate.Locator
	follow   map[string]*ledger.Follower // by ledgerID

	end     context.CancelFunc // of what runs
	running sync.WaitGroup
}

// openRouter makes the router. file is the configuration, whose list of mirrors
// is taken into use when it changes; "" when there is none. node serves who is not
// redirected; nil when this process has none.
func openRouter(cfg *RouterConfig, file string, node http.Handler, logs *loggers, reg prometheus.Registerer) (*routerRole, error) {
	o := &routerRole{end: func() {}, follow: map[string]*ledger.Follower{}}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"role": "router"}, reg)
	reloads := newReloadMetrics(reg)
	atlas, err := locate.NewAtlas()
	if err != nil {
		return nil, err
	}
	list, err := cfg.mirrors(atlas)
	if err != nil {
		return nil, fmt.Errorf("router.mirrors: %w", err)
	}
	where, err := cfg.Geo.location(atlas)
	if err != nil {
		return nil, fmt.Errorf("router.geo: %w", err)
	}
	where.Logger = logs.main
	if o.locator, err = locate.Open(where); err != nil {
		return nil, fmt.Errorf("router.geo: %w", err)
	}
	o.presence = health.NewPresence(health.PresenceConfig{RedirectHosts: cfg.Probes.RedirectHosts})
	surface, err := o.surface(cfg, node, logs, reg)
	if err != nil {
		return nil, err
	}
	sampler := o.sampler(cfg, &surface, logs)
	o.prober, err = health.New(health.Config{
		List: list, Interval: time.Duration(cfg.Probes.Interval), Timeout: time.Duration(cfg.Probes.Timeout),
		Samples: sampler.Samples(), RedirectHosts: cfg.Probes.RedirectHosts,
		QuarantineFile: string(cfg.Probes.Quarantine), Logger: logs.main, Registerer: reg,
	})
	if err != nil {
		return nil, fmt.Errorf("router.probes.quarantine: %w", err)
	}
	surface.Mirrors, surface.Suspect, surface.Registerer = o.prober.States, o.prober.Suspect, reg
	if o.router, err = geo.New(surface); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if o.http, err = withDescription(o.router, cfg.description()); err != nil {
		return nil, err
	}
	running, end := context.WithCancel(context.Background())
	o.end = end
	o.running.Go(func() { o.router.Run(running) })
	o.running.Go(func() { o.prober.Run(running) })
	o.running.Go(func() { sampler.Run(running) })
	o.running.Go(func() { o.locator.Watch(running, geoInterval) })
	for _, f := range o.follow {
		o.running.Go(func() { _ = f.Run(running) }) // it returns when running ends
	}
	if file != "" {
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP) // from now on it ends nothing
		first, _ := os.Stat(file)             // before anybody is served: what changes later is seen
		o.running.Go(func() {
			defer signal.Stop(hangup)
			o.watchList(running, file, first, hangup, atlas, logs.main, reloads)
		})
	}
	return o, nil
}

// surface is the router as it is configured, with the ledgers that it follows.
func (o *routerRole) surface(cfg *RouterConfig, node http.Handler, logs *loggers, reg prometheus.Registerer) (geo.Config, error) {
	trusted, err := prefixes(cfg.TrustedProxies)
	if err != nil {
		return geo.Config{}, fmt.Errorf("router.trusted_proxies: %w", err)
	}
	clients, err := prefixes(cfg.Fixed.Clients)
	if err != nil {
		return geo.Config{}, fmt.Errorf("router.fixed.clients: %w", err)
	}
	surface := geo.Config{
		Locate: o.locator.Locate, Forwarders: locate.NewForwarders(trusted),
		Presence:      o.presence,
		DefaultImages: cfg.DefaultUpstream, DefaultFiles: cfg.DefaultFiles,
		Fallback: otherNode("fallback", cfg.Fallback), Cosign: otherNode("cosign", cfg.Cosign),
		Fixed:  geo.Fixed{Hosts: cfg.Fixed.Hosts, Clients: clients, Handler: node},
		Logger: logs.main, Done: observeRouter(logs.access),
	}
	if surface.Images, surface.Files, err = cfg.upstreams(); err != nil {
		return surface, fmt.Errorf("router.files: %w", err)
	}
	for i := range surface.Images {
		up := &surface.Images[i]
		c := cfg.Upstreams[up.Name].Ledger
		if c == nil {
			continue
		}
		follower, err := o.openLedger(up.Name, c, logs, reg)
		if err != nil {
			return surface, fmt.Errorf("router.upstreams.%s.ledger: %w", up.Name, err)
		}
		up.Ledger, up.Destinations = follower, ledgerNames(c, up.Name, nil)
	}
	for i := range surface.Files {
		f := &surface.Files[i]
		c := cfg.Files[f.Name].Ledger
		if c == nil {
			continue
		}
		follower, err := o.openLedger("files/"+f.Name, c, logs, reg)
		if err != nil {
			return surface, fmt.Errorf("router.files.%s.ledger: %w", f.Name, err)
		}
		f.Ledger, f.Destinations = follower, ledgerNames(c, f.Name, nil)
		f.Folders = catalog.New(follower.State, f.Destinations...)
	}
	return surface, nil
}

// otherNode is a node that is no mirror; nil without a URL.
func otherNode(name string, location URL) *choice.Mirror {
	u, err := url.Parse(string(location))
	if location == "" || err != nil {
		return nil
	}
	return &choice.Mirror{Name: name, Kind: choice.Node, Tier: choice.Origin, URLs: []*url.URL{u}}
}

// openLedger follows a ledger, once, however many upstreams have it.
func (o *routerRole) openLedger(upstream string, cfg *LedgerConfig, logs *loggers, reg prometheus.Registerer) (*ledger.Follower, error) {
	if f := o.follow[ledgerID(cfg)]; f != nil {
		return f, nil
	}
	source, err := ledger.OpenStorage(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	key, err := ledger.LoadKey(string(cfg.Key))
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	follower, err := ledger.NewFollower(context.Background(), ledger.FollowerConfig{
		Source: source, Key: key, Interval: time.Duration(cfg.Interval),
		Polled: observePolls(reg, upstream), Logger: logs.main,
	})
	if err != nil {
		return nil, err
	}
	o.follow[ledgerID(cfg)] = follower
	return follower, nil
}

// watchList takes a changed list of mirrors into use, when the file changes or
// with SIGHUP. A list that cannot be used is refused, and the old one serves on.
func (o *routerRole) watchList(
	ctx context.Context, file string, last os.FileInfo, hangup <-chan os.Signal, atlas *locate.Atlas, log *slog.Logger, reloads *reloadMetrics,
) {
	tick := time.NewTicker(listInterval)
	defer tick.Stop()
	for {
		now := false
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			now = true
		case <-tick.C:
		}
		info, err := os.Stat(file) // of what a link leads to: a ConfigMap changes by its link
		if !now && (err != nil || last != nil && os.SameFile(info, last) && info.ModTime().Equal(last.ModTime()) && info.Size() == last.Size()) {
			continue // what is away for a moment is being replaced
		}
		last = info
		list, err := readList(file, atlas)
		if err != nil {
			reloads.refuse()
			log.Error("the new list of mirrors cannot be used; the old one serves on", "error", err)
			continue
		}
		o.prober.SetList(list)
		o.router.Refresh()
		reloads.take()
		log.Info("took the list of mirrors into use", "mirrors", list.Len())
	}
}

// reloadMetrics tell what became of changed lists of mirrors.
type reloadMetrics struct {
	taken, refused prometheus.Counter
	stale          prometheus.Gauge
}

func newReloadMetrics(reg prometheus.Registerer) *reloadMetrics {
	reloads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entrepot_mirror_list_reloads_total", Help: "Changed lists of mirrors that were taken into use, or refused.",
	}, []string{"result"})
	stale := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "entrepot_mirror_list_stale", Help: "1 while the list of mirrors in the file cannot be used, and an older one serves on.",
	})
	reg.MustRegister(reloads, stale)
	return &reloadMetrics{reloads.WithLabelValues("taken"), reloads.WithLabelValues("refused"), stale}
}

func (m *reloadMetrics) take()   { m.taken.Inc(); m.stale.Set(0) }
func (m *reloadMetrics) refuse() { m.refused.Inc(); m.stale.Set(1) }

// readList reads the list of mirrors of a configuration file.
func readList(file string, atlas *locate.Atlas) (*choice.List, error) {
	cfg, err := loadConfig(file)
	switch {
	case err != nil:
		return nil, err
	case cfg.Router == nil:
		return nil, errors.New(file + " has no router any more")
	}
	return cfg.Router.mirrors(atlas)
}

// sampler is what mirrors are compared by: the blobs that are configured, and what
// the ledgers say was promoted.
func (o *routerRole) sampler(cfg *RouterConfig, surface *geo.Config, logs *loggers) *health.Sampler {
	config := health.SamplerConfig{Origin: o.origin, Retry: time.Duration(cfg.Probes.Interval), Logger: logs.main}
	for _, text := range cfg.Probes.Blobs {
		if b, err := parseProbeBlob(text, cfg); err == nil { // the configuration was checked
			config.Blobs = append(config.Blobs, b)
		}
	}
	for i := range surface.Images {
		if up := &surface.Images[i]; up.Ledger != nil {
			config.Promoted = append(config.Promoted, health.Promoted{Namespace: up.Name, Names: up.Destinations, State: up.Ledger.State, Private: up.IsPrivate})
		}
	}
	for i := range surface.Files {
		if up := &surface.Files[i]; up.Ledger != nil {
			config.Promoted = append(config.Promoted, health.Promoted{
				Namespace: up.Name, Names: up.Destinations, State: up.Ledger.State,
				Immutable: up.Keeps, Private: func(string) bool { return up.Private },
			})
		}
	}
	if len(config.Promoted)+len(config.Blobs) == 0 && slices.ContainsFunc(cfg.Mirrors, func(m MirrorConfig) bool { return m.Tier == "community" }) {
		logs.main.Warn("mirrors of tier community are compared with nothing, so that wrong bytes go unnoticed: set router.probes.blobs, or the ledger of an upstream")
	}
	return health.NewSampler(config)
}

// origin is who has what is right: the first origin that is not known to be down.
func (o *routerRole) origin() (origin *choice.Mirror) {
	list, states := o.prober.States()
	for i := range list.Len() {
		if m := list.Mirror(i); m.Tier == choice.Origin && m.Kind != choice.Bucket && (origin == nil || states[i].Up) {
			origin = m
			if states[i].Up {
				break
			}
		}
	}
	return origin
}

// observeRouter writes the access log of a router.
func observeRouter(access slog.Handler) func(*geo.Observation) {
	if access == nil {
		return nil
	}
	return func(o *geo.Observation) {
		line := slog.NewRecord(o.Start.Add(o.Duration), slog.LevelInfo, "request", 0)
		line.AddAttrs(slog.String("client", o.Client.String()), slog.String("method", o.Method), slog.String("path", o.Path),
			slog.String("country", o.Place.Country.String()), slog.String("region", o.Place.Region), slog.Int("status", o.Status),
			slog.String("mirror", o.Mirror), slog.Int("attempt", o.Attempt), slog.Float64("duration", math.Round(o.Duration.Seconds()*1e6)/1e6))
		if o.Err != nil {
			line.AddAttrs(slog.String("error", reason(o.Err)))
		}
		_ = access.Handle(context.Background(), line) // where would one tell that the log failed?
	}
}

func (o *routerRole) handler() http.Handler { return o.http }

// close ends what runs. The HTTP server is shut down before.
func (o *routerRole) close(context.Context) error {
	o.end()
	o.running.Wait()
	o.presence.Close()
	return nil
}
