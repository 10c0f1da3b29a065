// Package origin is a registry that is written to: the backend of package
// registry that keeps what is pushed, over a blobstore.
//
// Blobs and manifests lie in the store by their digest, once, whoever pushed
// them. What a repository holds is small records beside them (names.go): its
// tags, its manifests, its blobs and the referrers of each subject. Only what a
// repository has a record of can be read from it. Uploads in progress lie in a
// directory of their own and survive a restart.
//
// A push is visible at once and whole, or not at all: bytes come before the
// record that names them, a manifest after what it names, a tag last. Nothing
// is lost by a crash in between but unnamed bytes, which [Origin.Collect]
// removes later.
//
// It fetches nothing, and decides nothing about who may write: registry asks an
// Authorizer. One process uses a store at a time: what the records say is
// remembered in memory.
package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// Store is where an origin keeps what is pushed. It never evicts.
type Store interface {
	blobstore.Store
	blobstore.Records
}

// Config is what an origin is made of.
type Config struct {
	// Store keeps content and names: a [blobstore.Dir] without a size limit,
	// or a [blobstore.S3].
	Store Store
	// Uploads is the directory of uploads in progress, for this origin alone.
	// It is made when only it, and not its parent, is missing. On the file
	// system of a Dir, uploads are moved into it and not copied.
	Uploads string
	// Memory is the tier for manifests; nil for none.
	Memory *blobstore.Memory
	// Listener is told what was pushed and deleted; nil for nobody.
	Listener Listener
	// UploadTTL is the age at which an upload that nobody goes on with is
	// removed. 0 means 24 hours.
	UploadTTL time.Duration
	// CollectEvery is how often [Origin.Run] collects garbage; 0 means never.
	CollectEvery time.Duration
	// Logger is for what an operator should know; nil discards.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Origin is a registry over a store. It implements [registry.Backend] and
// [registry.Writer], and is safe for concurrent use.
type Origin struct {
	store    Store
	files    fileOpener // store, where it can open files; else nil
	adopter  adopter    // store, where it can take over files; else nil
	memory   *blobstore.Memory
	names    *names
	uploads  *uploads
	holds    holds
	listener Listener
	log      *slog.Logger
	now      func() time.Time

	collectEvery time.Duration
	collecting   sync.Mutex // held while Collect runs
}

var (
	_ registry.Backend = (*Origin)(nil)
	_ registry.Writer  = (*Origin)(nil)
)

// fileOpener is a store whose blobs are files, which the kernel can send.
type fileOpener interface {
	OpenFile(d digest.Digest) (*blobstore.File, error)
}

// adopter is a store that takes a file over instead of copying it.
type adopter interface {
	Adopt(ctx context.Context, d digest.Digest, path string) error
}

// New makes an origin. It finds the uploads that an earlier process left, and
// removes those that are too old. Close gives the directory free.
func New(cfg Config) (*Origin, error) {
	if limited, ok := cfg.Store.(interface{ Limit() int64 }); ok && limited.Limit() > 0 {
		return nil, fmt.Errorf("opening the origin: its store is limited to %d bytes and would evict what was pushed: set no limit", limited.Limit())
	}
	o := &Origin{
		store:        cfg.Store,
		memory:       cfg.Memory,
		listener:     cfg.Listener,
		log:          cfg.Logger,
		now:          cfg.Now,
		collectEvery: cfg.CollectEvery,
	}
	o.files, _ = cfg.Store.(fileOpener)
	o.adopter, _ = cfg.Store.(adopter)
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.listener == nil {
		o.listener = nobody{}
	}
	o.holds.init()
	var err error
	if o.names, err = newNames(cfg.Store); err != nil {
		return nil, fmt.Errorf("opening the origin: %w", err)
	}
	if o.uploads, err = openUploads(cfg.Uploads, cmp.Or(cfg.UploadTTL, defaultUploadTTL), o.now); err != nil {
		return nil, fmt.Errorf("opening the origin: %w", err)
	}
	return o, nil
}

// expireEvery is how often Run looks for uploads that are too old.
const expireEvery = time.Hour

// Run does what is to be done from time to time, until ctx ends: it removes
// uploads that are too old, and garbage when Config.CollectEvery says so.
func (o *Origin) Run(ctx context.Context) {
	expire := time.NewTicker(expireEvery)
	defer expire.Stop()
	var collect <-chan time.Time
	if o.collectEvery > 0 {
		ticker := time.NewTicker(o.collectEvery)
		defer ticker.Stop()
		collect = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-expire.C:
			if n := o.uploads.expire(); n > 0 {
				o.log.InfoContext(ctx, "removed uploads that nobody went on with", "uploads", n)
			}
		case <-collect:
			collected, err := o.Collect(ctx, CollectOptions{})
			if errors.Is(err, ErrCollecting) || ctx.Err() != nil {
				continue
			}
			if err != nil {
				o.log.ErrorContext(ctx, "collecting garbage", "error", err)
			}
			o.log.InfoContext(ctx, "collected garbage", "blobs", collected.Blobs, "bytes", collected.Bytes, "links", collected.Links)
		}
	}
}

// Close gives the directory of uploads free. No request is under way any more.
func (o *Origin) Close() error { return o.uploads.close() }
