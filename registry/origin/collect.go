package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

// DefaultGrace is how long what nothing names is kept, unless told otherwise:
// a push sends blobs first, and may take its time.
const DefaultGrace = 24 * time.Hour

// ErrCollecting says that another collection runs.
var ErrCollecting = errors.New("garbage is being collected already")

// CollectOptions says what is garbage.
type CollectOptions struct {
	// Grace is how long what nothing names is kept after it was pushed,
	// mounted or last used. 0 means DefaultGrace; negative means not at all.
	Grace time.Duration
	// Untagged has manifests removed too that no tag leads to: directly,
	// through an index, or as the referrer of one that is kept. Without it
	// every manifest stays until it is deleted: much is pulled by digest.
	Untagged bool
	// DryRun only counts.
	DryRun bool
}

// Collected is what was removed.
type Collected struct {
	Manifests int   // taken out of repositories
	Links     int   // blobs taken out of repositories
	Blobs     int   // removed from the store
	Bytes     int64 // of those blobs
}

// Collect removes blobs that no manifest of their repository names from it, and
// bytes that no repository has from the store. The origin goes on serving, and
// takes pushes, meanwhile. What cannot be understood is kept, and said in the
// error beside what was done. Errors: ErrCollecting.
func (o *Origin) Collect(ctx context.Context, options CollectOptions) (Collected, error) {
	if !o.collecting.TryLock() {
		return Collected{}, ErrCollecting
	}
	defer o.collecting.Unlock()
	o.holds.remember() // before anything is listed
	defer o.holds.forget()
	g := &collection{
		Origin:  o,
		options: options,
		oldest:  o.now().Add(-max(cmp.Or(options.Grace, DefaultGrace), 0)),
		needed:  map[digest.Digest]struct{}{},
	}
	err := g.run(ctx)
	if err != nil {
		err = fmt.Errorf("collecting garbage: %w", err)
	}
	return g.done, err
}

// collection is one run of Collect.
type collection struct {
	*Origin
	options CollectOptions
	oldest  time.Time                  // what is younger stays
	needed  map[digest.Digest]struct{} // bytes that some repository has
	done    Collected
}

func (g *collection) run(ctx context.Context) error {
	repositories, err := g.repositories(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for repository := range repositories {
		if err := g.collectRepository(ctx, repository); err != nil {
			failed = append(failed, fmt.Errorf("repository %s: %w", repository, err))
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...) // what is needed is not known: no bytes go
	}
	return g.collectBytes(ctx)
}

// repositories is all that have a record.
func (g *collection) repositories(ctx context.Context) (map[string]struct{}, error) {
	all := map[string]struct{}{}
	for _, kind := range []string{manifestRecords, blobRecords} {
		for key, err := range g.names.records.RecordKeys(ctx, kind) {
			if err != nil {
				return nil, fmt.Errorf("listing repositories: %w", err)
			}
			if repository, _, ok := splitKey(kind, key); ok {
				all[repository] = struct{}{}
			}
		}
	}
	return all, nil
}

// collectRepository removes the links of one repository. What takes long, to
// read all manifests, is done before it is locked; then only those are read
// that came since.
func (g *collection) collectRepository(ctx context.Context, repository string) error {
	read := map[digest.Digest]*node{}
	if err := g.readGraph(ctx, repository, read); err != nil {
		return err
	}
	lock := g.names.lock(repository)
	lock.Lock()
	defer lock.Unlock()
	if err := g.readGraph(ctx, repository, read); err != nil {
		return err
	}
	if g.options.Untagged {
		if err := g.removeUntagged(ctx, repository, read); err != nil {
			return err
		}
	}
	named := map[digest.Digest]struct{}{}
	for d, n := range read {
		g.needed[d] = struct{}{}
		n.names(named)
	}
	return g.removeLinks(ctx, repository, named)
}

// removeLinks takes blobs out of a repository whose lock is held: those that
// are not named and old enough.
func (g *collection) removeLinks(ctx context.Context, repository string, named map[digest.Digest]struct{}) error {
	links, err := g.names.list(ctx, blobRecords, repository)
	if err != nil {
		return err
	}
	for _, name := range links {
		d := digest.Digest(name)
		if _, ok := named[d]; !ok {
			linked, err := g.names.blobLinked(ctx, repository, d)
			if err != nil {
				return err
			}
			if linked.Before(g.oldest) {
				g.done.Links++
				if g.options.DryRun {
					continue
				}
				if err := g.names.deleteBlob(ctx, repository, d); err != nil {
					return err
				}
				continue
			}
		}
		g.needed[d] = struct{}{}
	}
	return nil
}

// collectBytes removes what no repository has from the store.
func (g *collection) collectBytes(ctx context.Context) error {
	for info, err := range g.store.Blobs(ctx) {
		if err != nil {
			return fmt.Errorf("listing the store: %w", err)
		}
		if _, ok := g.needed[info.Digest]; ok || !info.ModTime.Before(g.oldest) {
			continue
		}
		removed, err := g.holds.unlessHeld(info.Digest, func() error {
			if g.options.DryRun {
				return nil
			}
			return g.store.Delete(ctx, info.Digest)
		})
		if errors.Is(err, blobstore.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("removing %s: %w", info.Digest, err)
		}
		if removed {
			g.done.Blobs++
			g.done.Bytes += info.Size
			if g.memory != nil && !g.options.DryRun {
				g.memory.Remove(info.Digest)
			}
		}
	}
	return nil
}
