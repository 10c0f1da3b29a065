package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/promote/catalog"
	"entrepot/promote/ledger"
	"entrepot/proxy"
	"entrepot/proxy/mirror"
	"entrepot/proxy/upstream"
	"entrepot/proxy/warm"
	"entrepot/registry"
	"entrepot/registry/access"

	"github.com/prometheus/client_golang/prometheus"
)

// checkTimeout bounds how long a bucket is tried when the node starts.
const checkTimeout = 30 * time.Second

// node is the role of a pull-through node, ready to be served.
type node struct {
	http   http.Handler
	engine *proxy.Node
	// readers say who may pull; nil where all may.
	readers *access.Readers
	follow  []*ledger.Follower
	// ledgers are those of follow, as ledgerID calls them.
	ledgers map[string]*ledger.Follower
	// staged are ledgers that are not in their place yet, as ledgerID calls them: of an import.
	staged   map[string]ledger.Reader
	dir      *blobstore.Dir
	scrub    *blobstore.Scrubber // nil when it is turned off
	mirror   *mirror.Mirror      // nil when nothing is held
	prefetch *warm.Prefetcher    // nil without schedules
	memory   *blobstore.Memory
	remote   *blobstore.S3 // nil without a bucket

	running sync.WaitGroup
	end     context.CancelFunc // of what runs
}

// openNode opens the stores and makes the engine and its HTTP surface, of which start
// runs what goes on by itself. It asks
// no upstream and no bucket: those may be down.
func openNode(cfg *NodeConfig, logs *loggers, reg prometheus.Registerer, build buildVersion) (*node, error) {
	return new(node).open(cfg, logs, reg, build)
}

func (n *node) open(cfg *NodeConfig, logs *loggers, reg prometheus.Registerer, build buildVersion) (_ *node, err error) {
	n.end = func() {}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.closeStores())
		}
	}()
	if n.readers, err = openReaders(cfg, logs.main); err != nil {
		return nil, err
	}
	if err := n.openStores(cfg, logs); err != nil {
		return nil, err
	}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"role": "node"}, reg)
	reg.MustRegister(storeMetrics(n.dir, n.memory)...)
	if n.scrub != nil {
		reg.MustRegister(scrubMetrics(n.scrub)...)
	}
	engine := proxy.Config{
		Local:           n.dir,
		Memory:          n.memory,
		Default:         cfg.DefaultUpstream,
		MaxFills:        cfg.MaxFills,
		MaxFillsWaiting: cfg.MaxFillsWaiting,
		MaxFillWait:     time.Duration(cfg.MaxFillWait),
		Peers:           peersOf(cfg.Peers),
		VerifyReads:     cfg.Store.VerifyReads,
		MaxNames:        cfg.Store.MaxNames,
		Logger:          logs.main,
		Registerer:      reg,
	}
	if n.remote != nil {
		// Only then: an interface that holds a nil *S3 is not nil.
		engine.Remote = n.remote
		if cfg.Store.S3.Redirect {
			engine.RedirectExpiry = time.Duration(cfg.Store.S3.RedirectExpiry)
		}
	}
	names := slices.Sorted(maps.Keys(cfg.Upstreams))
	for _, name := range names {
		u := upstreamOf(name, cfg.Upstreams[name], logs.main, build)
		if l := cfg.Upstreams[name].Ledger; l != nil {
			if u.Ledger, err = n.openLedger(name, u.URLs, l, cfg.Store, logs, reg); err != nil {
				return nil, fmt.Errorf("node.upstreams.%s.ledger: %w", name, err)
			}
		}
		engine.Upstreams = append(engine.Upstreams, u)
	}
	if engine.Files, err = n.openFiles(cfg, logs, reg, build); err != nil {
		return nil, err
	}
	engine.DefaultFiles = cfg.DefaultFiles
	if n.engine, err = proxy.New(engine); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if cfg.Mirror != nil {
		if err := n.openMirror(cfg, &engine, logs, reg); err != nil {
			return nil, fmt.Errorf("node.mirror: %w", err)
		}
	}
	if len(cfg.Prefetch) > 0 {
		if n.prefetch, err = n.openPrefetch(cfg, &engine, logs, reg); err != nil {
			return nil, fmt.Errorf("node.prefetch: %w", err)
		}
	}
	names = slices.AppendSeq(names, maps.Keys(cfg.Files))
	surface := registry.Config{
		Backend:        n.engine,
		Logger:         logs.main,
		Done:           observe(newRequestMetrics(reg, names), logs.access),
		WriteTimeout:   cfg.Limits.pace(),
		ManifestMemory: int64(cfg.ManifestMemory),
	}
	if n.readers != nil { // only then: an interface that holds a nil *Readers is not nil
		surface.Readers = regionReaders{n.readers}
	}
	n.http = registry.NewHandler(surface)
	if len(cfg.Files) > 0 {
		n.http = &nodeSurface{registry: n.http, files: registry.NewFileHandler(catalog.NewBackend(n.engine, n.catalogs(cfg, engine.Files), cfg.DefaultFiles), surface)}
	}
	if n.http, err = withDescription(n.http, cfg.description()); err != nil {
		return nil, err
	}
	n.http = n.engine.Handler(n.http)
	return n, nil
}

func (n *node) openStores(cfg *NodeConfig, logs *loggers) (err error) {
	key, path, size := "node.store.dir", cfg.Store.Dir, cfg.Store.MaxSize
	if cfg.Store.S3 != nil {
		key, path, size = "node.store.cache.dir", cfg.Store.Cache.Dir, cfg.Store.Cache.MaxSize
	}
	n.dir, err = blobstore.OpenDir(string(path), blobstore.DirConfig{
		MaxSize:       int64(size),
		HighWatermark: float64(cfg.Store.HighWatermark) / 100,
		LowWatermark:  float64(cfg.Store.LowWatermark) / 100,
		EvictWhenFull: true, // upstream has it all
		KeepHeld:      cfg.Mirror != nil && cfg.Store.S3 == nil || cfg.offline(),
		Logger:        logs.main,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if rate := cfg.Store.Scrub.Rate; rate > 0 {
		n.scrub, err = blobstore.NewScrubber(blobstore.ScrubConfig{
			Dir: n.dir, Rate: int64(rate), Every: time.Duration(cfg.Store.Scrub.Every), Logger: logs.main,
		})
		if err != nil {
			return fmt.Errorf("node.store.scrub: %w", err)
		}
	}
	if n.memory, err = blobstore.NewMemory(int64(cfg.Memory)); err != nil {
		return fmt.Errorf("node.memory: %w", err)
	}
	if cfg.Store.S3 == nil {
		return nil
	}
	if n.remote, err = openBucket(cfg.Store.S3, logs); err != nil {
		return fmt.Errorf("node.store.s3: %w", err)
	}
	return nil
}

// start follows the ledgers, scrubs the directory, and tells an operator of a bucket that is not there
// or not writable. The node serves without: the bucket may come back.
func (n *node) start(log *slog.Logger) {
	running, end := context.WithCancel(context.Background())
	n.end = end
	for _, f := range n.follow {
		n.running.Go(func() { _ = f.Run(running) }) // it returns when running ends
	}
	if n.scrub != nil {
		n.running.Go(func() { n.scrub.Run(running) })
	}
	if n.mirror != nil {
		n.running.Go(func() { n.mirror.Run(running) })
	}
	if n.readers != nil {
		n.running.Go(func() { n.readers.Run(running) })
	}
	if n.prefetch != nil {
		n.running.Go(func() { n.prefetch.Run(running) })
	}
	if n.remote == nil {
		return
	}
	n.running.Go(func() {
		ctx, cancel := context.WithTimeout(running, checkTimeout)
		defer cancel()
		if err := n.remote.Check(ctx); err != nil && running.Err() == nil {
			log.Error("node.store.s3 cannot be used; serving without it until it can", "error", err)
		}
	})
}

func (n *node) handler() http.Handler { return n.http }

// close ends the engine, which keeps its fills for the next start, then closes
// the stores below it. The HTTP server is shut down before.
func (n *node) close(ctx context.Context) error {
	n.end()
	n.running.Wait()
	return errors.Join(n.engine.Close(ctx), n.closeStores())
}

func (n *node) closeStores() error {
	var errs []error
	if n.memory != nil {
		n.memory.Close()
	}
	if n.remote != nil {
		errs = append(errs, n.remote.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}

// upstreamOf is an upstream as the engine takes it.
func upstreamOf(name string, u UpstreamConfig, log *slog.Logger, build buildVersion) proxy.UpstreamConfig {
	urls := make([]string, len(u.URLs))
	for i, url := range u.URLs {
		urls[i] = string(url)
	}
	return proxy.UpstreamConfig{
		Config: upstream.Config{
			Name:            name,
			URLs:            urls,
			Offline:         u.Offline,
			Username:        u.Username,
			Password:        string(u.Password),
			DockerConfig:    string(u.DockerConfig),
			TokenHosts:      u.TokenHosts,
			RedirectHosts:   u.RedirectHosts,
			CAFile:          string(u.CA),
			CertFile:        string(u.Cert),
			KeyFile:         string(u.Key),
			MaxConcurrent:   u.MaxConcurrent,
			BandwidthLimit:  int64(u.Bandwidth),
			UserAgent:       "entrepot/" + build.Version,
			Logger:          log,
			ConnectTimeout:  time.Duration(u.ConnectTimeout),
			ResponseTimeout: time.Duration(u.ResponseTimeout),
			StallTimeout:    time.Duration(u.StallTimeout),
		},
		Policy: proxy.Policy{
			TTL:                  time.Duration(u.TagTTL),
			StaleWhileRevalidate: time.Duration(u.StaleWhileRevalidate),
			MaxStale:             time.Duration(u.MaxStale),
			NegativeTTL:          time.Duration(u.NegativeTTL),
		},
		Private: u.Private,
	}
}
