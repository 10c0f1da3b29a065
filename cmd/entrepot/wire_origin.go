package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/promote/ledger"
	"entrepot/registry"
	"entrepot/registry/access"
	"entrepot/registry/events"
	"entrepot/registry/filestore"
	"entrepot/registry/origin"

	"github.com/prometheus/client_golang/prometheus"
)

// ledgerPrefix is where an origin serves its ledger.
const ledgerPrefix = "/ledger/"

// originRole is the production registry, ready to be served.
type originRole struct {
	http   http.Handler
	origin *origin.Origin
	dir    *blobstore.Dir // nil with a bucket
	bucket *blobstore.S3  // nil with a directory
	memory *blobstore.Memory
	files  io.Closer // the store of files
	events *events.Sender
	scrubs []*blobstore.Scrubber // of its directories

	end     context.CancelFunc // of what runs
	running sync.WaitGroup
}

// openOrigin opens the store and makes the registry over it.
func openOrigin(cfg *OriginConfig, logs *loggers, reg prometheus.Registerer) (_ *originRole, err error) {
	o := &originRole{end: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.closeStores())
		}
	}()
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"role": "origin"}, reg)
	store, err := o.openStore(cfg, logs)
	if err != nil {
		return nil, err
	}
	if o.memory, err = blobstore.NewMemory(int64(cfg.Memory)); err != nil {
		return nil, fmt.Errorf("origin.memory: %w", err)
	}
	if o.events, err = openWebhooks(cfg, logs, reg); err != nil {
		return nil, err
	}
	o.origin, err = origin.New(origin.Config{
		Store:        store,
		Listener:     o.events.Registry(),
		Uploads:      string(cfg.Uploads),
		Memory:       o.memory,
		UploadTTL:    time.Duration(cfg.UploadTTL),
		CollectEvery: time.Duration(cfg.CollectEvery),
		Logger:       logs.main,
	})
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	var writers *access.Access
	if cfg.Htpasswd != "" {
		if writers, err = access.New(access.Config{File: string(cfg.Htpasswd), Rules: rulesOf(cfg.Rules), Logger: logs.main}); err != nil {
			return nil, fmt.Errorf("origin.htpasswd: %w", err)
		}
	}
	if err := o.openSurface(cfg, writers, logs, reg); err != nil {
		return nil, err
	}
	if len(o.scrubs) > 0 {
		reg.MustRegister(scrubMetrics(o.scrubs...)...)
	}
	running, end := context.WithCancel(context.Background())
	o.end = end
	o.running.Go(func() { o.origin.Run(running) })
	for _, s := range o.scrubs {
		o.running.Go(func() { s.Run(running) })
	}
	return o, nil
}

// openSurface puts the parts of the origin's HTTP surface together.
func (o *originRole) openSurface(cfg *OriginConfig, writers *access.Access, logs *loggers, reg prometheus.Registerer) error {
	api := registry.Config{
		Backend: o.origin,
		Logger:  logs.main,
		Name:    "entrepot-origin",
		Done:    observe(newRequestMetrics(reg, nil), logs.access),

		WriteTimeout:   cfg.Limits.pace(),
		ManifestMemory: int64(cfg.ManifestMemory),
	}
	if writers != nil {
		// Only then: an interface that holds a nil *Access is not nil.
		api.Authorizer = writers.Repositories()
	}
	files, err := o.openFiles(cfg, writers, logs)
	if err != nil {
		return err
	}
	surface := surface{registry: registry.NewHandler(api), ledger: http.NotFoundHandler(), files: files}
	if cfg.Ledger != "" {
		storage, err := ledger.OpenStorage(cfg.Ledger)
		if err != nil {
			return fmt.Errorf("origin.ledger: %w", err)
		}
		public := ""
		if cfg.LedgerKey != "" {
			key, err := ledger.LoadKey(string(cfg.LedgerKey))
			if err != nil {
				return fmt.Errorf("origin.ledger_key: %w", err)
			}
			public = key.Public() + "\n"
		}
		surface.ledger = ledger.NewHandler(storage, ledgerPrefix, public, logs.main)
	}
	o.http = &surface
	return nil
}

// surface sends a request to the part of an origin that its path names. An
// [http.ServeMux] would change paths on the way, which mean what they say here.
type surface struct{ registry, ledger, files http.Handler }

func (s *surface) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case registry.IsAPI(r.URL.Path):
		s.registry.ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, ledgerPrefix):
		s.ledger.ServeHTTP(w, r)
	default:
		s.files.ServeHTTP(w, r)
	}
}

// openFiles opens the file store, which is beside the registry's and of the
// same kind: the one must not collect what the other names.
func (o *originRole) openFiles(cfg *OriginConfig, writers *access.Access, logs *loggers) (http.Handler, error) {
	files := filestore.Config{
		Logger: logs.main, Done: observeFiles(logs.access), Listener: o.events.Files(), WriteTimeout: cfg.Limits.pace(),
	}
	if writers != nil {
		files.Authorizer = writers.Files()
	}
	if s3 := cfg.Store.S3; s3 != nil {
		beside := *s3
		beside.Prefix = path.Join(s3.Prefix, filesBeside)
		bucket, err := openBucket(&beside, logs)
		if err != nil {
			return nil, fmt.Errorf("origin.store.s3: %w", err)
		}
		files.Store, o.files = bucket, bucket
	} else {
		dir, err := o.openDir(filepath.Join(string(cfg.Store.Dir), filesBeside), &cfg.Store.Scrub, logs)
		if err != nil {
			return nil, err
		}
		files.Store, o.files = dir, dir
	}
	store, err := filestore.New(files)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	return store, nil
}

// filesBeside is where the file store lies below the origin's.
const filesBeside = "files"

func (o *originRole) openStore(cfg *OriginConfig, logs *loggers) (origin.Store, error) {
	if s3 := cfg.Store.S3; s3 != nil {
		bucket, err := openBucket(s3, logs)
		if err != nil {
			return nil, fmt.Errorf("origin.store.s3: %w", err)
		}
		o.bucket = bucket
		return bucket, nil
	}
	dir, err := o.openDir(string(cfg.Store.Dir), &cfg.Store.Scrub, logs)
	if err != nil {
		return nil, err
	}
	o.dir = dir
	return dir, nil
}

// openDir opens a directory, and has it scrubbed. What is wrong in it is kept
// without a bound: there may be no other copy.
func (o *originRole) openDir(path string, scrub *ScrubConfig, logs *loggers) (*blobstore.Dir, error) {
	dir, err := blobstore.OpenDir(path, blobstore.DirConfig{QuarantineSize: -1, Logger: logs.main})
	if err != nil {
		return nil, fmt.Errorf("origin.store.dir: %w", err)
	}
	if scrub.Rate == 0 {
		return dir, nil
	}
	s, err := blobstore.NewScrubber(blobstore.ScrubConfig{
		Dir: dir, Rate: int64(scrub.Rate), Every: time.Duration(scrub.Every), Logger: logs.main,
	})
	if err != nil {
		return nil, fmt.Errorf("origin.store.scrub: %w", errors.Join(err, dir.Close()))
	}
	o.scrubs = append(o.scrubs, s)
	return dir, nil
}

// openBucket opens a bucket as the configuration describes it.
func openBucket(s3 *S3Config, logs *loggers) (*blobstore.S3, error) {
	return blobstore.OpenS3(blobstore.S3Config{
		Endpoint:  string(s3.Endpoint),
		Bucket:    s3.Bucket,
		Prefix:    s3.Prefix,
		Region:    s3.Region,
		AccessKey: string(s3.AccessKey),
		SecretKey: string(s3.SecretKey),
		PartSize:  int64(s3.PartSize),
		Logger:    logs.main,
	})
}

func rulesOf(configured []RuleConfig) []access.Rule {
	rules := make([]access.Rule, len(configured))
	for i, r := range configured {
		rules[i] = access.Rule{Identity: r.Identity, Repositories: r.Repositories, Files: r.Files}
		for _, action := range r.Actions {
			rules[i].Actions = append(rules[i].Actions, registry.Action(action))
		}
	}
	return rules
}

func (o *originRole) handler() http.Handler { return o.http }

// close ends what runs, then closes the stores. The HTTP server is shut down
// before.
func (o *originRole) close(ctx context.Context) error {
	o.end()
	o.running.Wait()
	return errors.Join(o.events.Close(ctx), o.origin.Close(), o.closeStores())
}

func (o *originRole) closeStores() error {
	var errs []error
	if o.memory != nil {
		o.memory.Close()
	}
	if o.files != nil {
		errs = append(errs, o.files.Close())
	}
	if o.bucket != nil {
		errs = append(errs, o.bucket.Close())
	}
	if o.dir != nil {
		errs = append(errs, o.dir.Close())
	}
	return errors.Join(errs...)
}
