package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// maxProbeBlob bounds a blob that mirrors are compared by: it is kept in memory.
	maxProbeBlob = 8 << 20
)

// routerRole is the router, ready to be served.
type routerRole struct {
	router  *geo.Router
	prober  *health.Prober
	locator *locate.Locator
	follow  []*ledger.Follower

	end     context.CancelFunc // of what runs
	running sync.WaitGroup
}

// openRouter makes the router. file is the configuration, whose list of mirrors
// is taken into use when it changes; "" when there is none. node serves who is not
// redirected; nil when this process has none.
func openRouter(cfg *RouterConfig, file string, node http.Handler, logs *loggers, reg prometheus.Registerer) (*routerRole, error) {
	o := &routerRole{end: func() {}}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"role": "router"}, reg)
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
	samples := newProbeSamples(cfg, list)
	o.prober, err = health.New(health.Config{
		List: list, Interval: time.Duration(cfg.Probes.Interval), Timeout: time.Duration(cfg.Probes.Timeout),
		Samples: health.Samples{Content: samples.content}, RedirectHosts: cfg.Probes.RedirectHosts,
		QuarantineFile: string(cfg.Probes.Quarantine), Logger: logs.main, Registerer: reg,
	})
	if err != nil {
		return nil, fmt.Errorf("router.probes.quarantine: %w", err)
	}
	surface, err := o.surface(cfg, node, logs)
	if err != nil {
		return nil, err
	}
	surface.Registerer = reg
	if o.router, err = geo.New(surface); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	running, end := context.WithCancel(context.Background())
	o.end = end
	o.running.Go(func() { o.router.Run(running) })
	o.running.Go(func() { o.prober.Run(running) })
	o.running.Go(func() { o.locator.Watch(running, geoInterval) })
	for _, f := range o.follow {
		o.running.Go(func() { _ = f.Run(running) }) // it returns when running ends
	}
	if file != "" {
		o.running.Go(func() { o.watchList(running, file, atlas, logs.main) })
	}
	return o, nil
}

// surface is the router as it is configured, with the ledgers that it follows.
func (o *routerRole) surface(cfg *RouterConfig, node http.Handler, logs *loggers) (geo.Config, error) {
	trusted, err := prefixes(cfg.TrustedProxies)
	if err != nil {
		return geo.Config{}, fmt.Errorf("router.trusted_proxies: %w", err)
	}
	clients, err := prefixes(cfg.Fixed.Clients)
	if err != nil {
		return geo.Config{}, fmt.Errorf("router.fixed.clients: %w", err)
	}
	surface := geo.Config{
		Mirrors: o.prober.States, Locate: o.locator.Locate, Forwarders: locate.NewForwarders(trusted),
		Presence:      health.NewPresence(health.PresenceConfig{}),
		DefaultImages: cfg.DefaultUpstream, DefaultFiles: cfg.DefaultFiles,
		Fallback: otherNode("fallback", cfg.Fallback), Cosign: otherNode("cosign", cfg.Cosign),
		Fixed:  geo.Fixed{Hosts: cfg.Fixed.Hosts, Clients: clients, Handler: node},
		Logger: logs.main, Done: observeRouter(logs.access),
	}
	if surface.Images, surface.Files, err = cfg.upstreams(); err != nil {
		return surface, fmt.Errorf("router.files: %w", err)
	}
	for i := range surface.Files {
		f := &surface.Files[i]
		if err := o.openLedger(f, cfg.Files[f.Name].Ledger, logs); err != nil {
			return surface, fmt.Errorf("router.files.%s.ledger: %w", f.Name, err)
		}
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

// openLedger follows the ledger of an upstream of files, if it has one.
func (o *routerRole) openLedger(f *geo.Files, cfg *LedgerConfig, logs *loggers) error {
	if cfg == nil {
		return nil
	}
	source, err := ledger.OpenStorage(cfg.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	key, err := ledger.LoadKey(string(cfg.Key))
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	follower, err := ledger.NewFollower(context.Background(), ledger.FollowerConfig{
		Source: source, Key: key, Interval: time.Duration(cfg.Interval), Logger: logs.main,
	})
	if err != nil {
		return err
	}
	o.follow = append(o.follow, follower)
	if f.Destinations = cfg.Names; f.Destinations == nil {
		f.Destinations = []string{f.Name, "https://" + f.Name}
	}
	f.Ledger, f.Folders = follower, catalog.New(follower.State, f.Destinations...)
	return nil
}

// watchList takes a changed list of mirrors into use, when the file changes or
// with SIGHUP. A list that cannot be used is refused, and the old one serves on.
func (o *routerRole) watchList(ctx context.Context, file string, atlas *locate.Atlas, log *slog.Logger) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(listInterval)
	defer tick.Stop()
	last, _ := os.Stat(file)
	for {
		now := false
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			now = true
		case <-tick.C:
		}
		info, err := os.Stat(file)
		if err != nil || !now && last != nil && info.ModTime().Equal(last.ModTime()) && info.Size() == last.Size() {
			continue
		}
		last = info
		list, err := readList(file, atlas)
		if err != nil {
			log.Error("the new list of mirrors cannot be used; the old one serves on", "error", err)
			continue
		}
		o.prober.SetList(list)
		o.router.Refresh()
		log.Info("took the list of mirrors into use", "mirrors", list.Len())
	}
}

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

// probeSamples are the blobs that mirrors are compared by, as an origin has them.
type probeSamples struct {
	from  *choice.Mirror // an origin
	blobs []probeBlob

	mu   sync.Mutex
	have map[probeBlob][]byte
}

func newProbeSamples(cfg *RouterConfig, list *choice.List) *probeSamples {
	s := &probeSamples{have: map[probeBlob][]byte{}}
	for i := range list.Len() {
		if m := list.Mirror(i); s.from == nil && m.Tier == choice.Origin && m.Kind != choice.Bucket {
			s.from = m
		}
	}
	for _, text := range cfg.Probes.Blobs {
		if b, err := parseProbeBlob(text, cfg); err == nil { // the configuration was checked
			s.blobs = append(s.blobs, b)
		}
	}
	return s
}

// content is the sample for a mirror: the first blob of an upstream that it has.
func (s *probeSamples) content(m *choice.Mirror) (health.Sample, bool) {
	for _, b := range s.blobs {
		if s.from == nil || len(m.Namespaces) > 0 && !slices.Contains(m.Namespaces, b.namespace) {
			continue
		}
		data, err := s.load(b)
		if err != nil {
			return health.Sample{}, false
		}
		return health.Sample{
			What: choice.Blob, Size: int64(len(data)), Target: b.target(),
			Read: func(_ context.Context, offset, length int64) ([]byte, error) {
				return data[offset : offset+length], nil
			},
		}, true
	}
	return health.Sample{}, false
}

func (b probeBlob) target() choice.Target {
	return choice.Target{Namespace: b.namespace, Repository: b.repository, Route: "blobs/" + string(b.digest), Digest: b.digest}
}

// load fetches a blob from the origin, once, and checks it.
func (s *probeSamples) load(b probeBlob) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data, ok := s.have[b]; ok {
		return data, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), health.DefaultTimeout)
	defer cancel()
	target := b.target()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.from.Location(false, &target), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBlob+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK || len(data) > maxProbeBlob || b.digest.Algorithm().FromBytes(data) != b.digest:
		return nil, fmt.Errorf("the origin does not have %s, of at most %v", b.digest, Size(maxProbeBlob))
	}
	s.have[b] = data
	return data, nil
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

func (o *routerRole) handler() http.Handler { return o.router }

// close ends what runs. The HTTP server is shut down before.
func (o *routerRole) close(context.Context) error {
	o.end()
	o.running.Wait()
	return nil
}
