package warm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/proxy/tree"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Item is a name to be warmed: an image, or a file.
type Item struct {
	Name     string // as it was written
	Upstream string
	// Repository and Reference, a tag or digest, are of an image.
	Repository, Reference string
	Path                  string // of a file, percent-encoded
}

// Manifest is a manifest that came.
type Manifest struct {
	Digest digest.Digest
	Body   []byte
}

// Source brings content into a node. Its errors are final where they have a method
// StatusCode() int that returns a status of the client's mistakes (4xx, but 408 and
// 429); all others may pass.
type Source interface {
	// Manifest brings a manifest, by tag or digest, verified.
	Manifest(ctx context.Context, upstream, repository, reference string) (*Manifest, error)
	// Blob brings a blob, verified, and says how many bytes came: none where it was
	// there.
	Blob(ctx context.Context, upstream, repository string, blob ocispec.Descriptor) (int64, error)
	// File brings a file, and says how many bytes came.
	File(ctx context.Context, upstream, path string) (int64, error)
}

// Config says how to warm.
type Config struct {
	Source Source
	// Platforms are those of which images are wanted; none are all.
	Platforms []ocispec.Platform
	// Jobs bounds what is fetched at once; 0 means 8.
	Jobs int
	// Attempts is how often something is tried; 0 means 4.
	Attempts int
	// Backoff is the time before the second attempt, which doubles with each; 0
	// means a second.
	Backoff time.Duration
	// Report is told of each name that is done, one at a time; nil is not.
	Report func(Result)
}

// Result is what became of a name.
type Result struct {
	Item    Item
	Digest  digest.Digest // of an image
	Bytes   int64         // that came; what was there before does not count
	Blobs   int           // blobs that it has
	Seconds float64
	Err     error
}

// Summary is what became of all names.
type Summary struct {
	Names  int   `json:"names"`
	Failed int   `json:"failed"`
	Blobs  int   `json:"blobs"`
	Bytes  int64 `json:"bytes"` // that came
}

const (
	defaultJobs     = 8
	defaultAttempts = 4
	defaultBackoff  = time.Second
)

// Run warms all items, and returns when all are done or ctx has ended.
func Run(ctx context.Context, cfg Config, items []Item) Summary {
	if cfg.Jobs <= 0 {
		cfg.Jobs = defaultJobs
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = defaultAttempts
	}
	if cfg.Backoff <= 0 {
		cfg.Backoff = defaultBackoff
	}
	r := &run{cfg: cfg, slots: make(chan struct{}, cfg.Jobs), blobs: map[digest.Digest]*flight{}}
	next := make(chan Item)
	var workers sync.WaitGroup
	for range min(cfg.Jobs, len(items)) {
		workers.Go(func() {
			for item := range next {
				r.done(r.item(ctx, item))
			}
		})
	}
	for _, item := range items {
		next <- item
	}
	close(next)
	workers.Wait()
	return r.sum
}

// run is one run.
type run struct {
	cfg   Config
	slots chan struct{} // an element for each fetch that runs

	mu    sync.Mutex // guards what follows, and calls of Report
	blobs map[digest.Digest]*flight
	sum   Summary
}

// flight is a blob that is, or was, fetched in this run.
type flight struct {
	over chan struct{} // closed when it is
	err  error
}

func (r *run) done(result Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Names++
	r.sum.Bytes += result.Bytes
	r.sum.Blobs += result.Blobs
	if result.Err != nil {
		r.sum.Failed++
	}
	if r.cfg.Report != nil {
		r.cfg.Report(result)
	}
}

// item warms one name.
func (r *run) item(ctx context.Context, item Item) Result {
	result, start := Result{Item: item}, time.Now()
	if item.Repository == "" {
		result.Err = r.try(ctx, func() (err error) {
			result.Bytes, err = r.cfg.Source.File(ctx, item.Upstream, item.Path)
			return err
		})
	} else {
		i := &image{run: r, item: &item, result: &result}
		walker := tree.Walker{Visitor: i, Choose: i.wanted, Absent: absent}
		result.Digest, result.Err = walker.Walk(ctx, item.Reference)
		i.fetches.Wait()
		result.Err = errors.Join(result.Err, i.failed)
		result.Blobs = len(walker.Seen())
	}
	result.Seconds = time.Since(start).Seconds()
	return result
}

// image is one image on its way.
type image struct {
	*run
	item *Item

	fetches sync.WaitGroup
	mu      sync.Mutex // guards what follows
	result  *Result
	failed  error // of a blob, the first
}

// Manifest implements [tree.Visitor].
func (i *image) Manifest(ctx context.Context, reference string) (digest.Digest, []byte, error) {
	var m *Manifest
	err := i.try(ctx, func() (err error) {
		m, err = i.cfg.Source.Manifest(ctx, i.item.Upstream, i.item.Repository, reference)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return m.Digest, m.Body, nil
}

// wanted are the children of an index that are for a wanted platform, or for none.
func (i *image) wanted(children []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if len(i.cfg.Platforms) == 0 {
		return children, nil
	}
	var wanted []ocispec.Descriptor
	var others []string
	for _, c := range children {
		switch {
		case c.Platform == nil || slices.ContainsFunc(i.cfg.Platforms, func(p ocispec.Platform) bool { return isFor(&p, c.Platform) }):
			wanted = append(wanted, c)
		case c.Platform.OS != "unknown": // attestations have such
			others = append(others, platformName(c.Platform))
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("it is for none of the platforms that are wanted, but for %s", strings.Join(others, ", "))
	}
	return wanted, nil
}

// isFor says whether content for a platform is wanted by who wants another one. No
// variant wanted is any variant.
func isFor(wanted, of *ocispec.Platform) bool {
	return wanted.OS == of.OS && wanted.Architecture == of.Architecture && (wanted.Variant == "" || wanted.Variant == of.Variant)
}

func platformName(p *ocispec.Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// ParsePlatform reads a platform such as linux/amd64 or linux/arm/v7.
func ParsePlatform(text string) (ocispec.Platform, error) {
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return ocispec.Platform{}, fmt.Errorf("%q is no platform: want one such as linux/amd64 or linux/arm/v7", text)
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// Blob implements [tree.Visitor]: it brings a blob, in a goroutine of its own. One that this run has brought
// already, or is bringing for another image, is waited for; where that failed, this
// image's repository may have it.
func (i *image) Blob(ctx context.Context, d ocispec.Descriptor) error {
	i.run.mu.Lock()
	f, mine := i.blobs[d.Digest], false
	if f == nil {
		f, mine = &flight{over: make(chan struct{})}, true
		i.blobs[d.Digest] = f
	}
	i.run.mu.Unlock()
	i.fetches.Go(func() {
		var bytes int64
		var err error
		if !mine {
			<-f.over
		}
		if mine || f.err != nil {
			err = i.try(ctx, func() (err error) {
				bytes, err = i.cfg.Source.Blob(ctx, i.item.Upstream, i.item.Repository, d)
				return err
			})
		}
		if mine {
			f.err = err
			close(f.over)
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.result.Bytes += bytes
		if err != nil && i.failed == nil {
			i.failed = fmt.Errorf("blob %s: %w", d.Digest, err)
		}
	})
	return nil
}

// try fetches something when it is its turn, again and again while that may help.
func (r *run) try(ctx context.Context, fetch func() error) error {
	backoff := r.cfg.Backoff
	for attempt := 1; ; attempt++ {
		err := r.inTurn(ctx, fetch)
		if err == nil || ctx.Err() != nil || attempt == r.cfg.Attempts || final(err) {
			return err
		}
		if err := pause.For(ctx, backoff); err != nil {
			return err
		}
		backoff *= 2
	}
}

func (r *run) inTurn(ctx context.Context, fetch func() error) error {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.slots }()
	return fetch()
}

// final says whether an error stays however often one asks.
func final(err error) bool {
	status := statusOf(err)
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

// absent says whether there clearly is not what was asked for.
func absent(err error) bool { return statusOf(err) == http.StatusNotFound }

// statusOf is the status that an error stands for; 0 is none.
func statusOf(err error) int {
	var told interface{ StatusCode() int }
	if !errors.As(err, &told) {
		return 0
	}
	return told.StatusCode()
}
