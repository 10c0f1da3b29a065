package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"entrepot/blobstore"
	"entrepot/proxy"

	"github.com/opencontainers/go-digest"
)

// heldRecords are the bucket's own records of what a mirror put there or found there, and is
// to take away when it leaves: mirror/held/<digest>. All else in the bucket is of nodes.
const heldRecords = "mirror/held"

// bucket is a node's bucket. What is held of it is listed once, and then known: a bucket
// has one mirror.
type bucket struct {
	*blobstore.S3

	node *proxy.Node

	changing sync.RWMutex // read-locked while the bucket is changed, locked while it is listed

	mu     sync.Mutex // guards what follows
	looked bool
	marked map[digest.Digest]bool           // as held
	there  map[digest.Digest]blobstore.Info // of what is marked
	bytes  int64                            // of that
}

func (b *bucket) look(ctx context.Context, anew bool) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	b.mu.Lock()
	known := b.looked
	b.mu.Unlock()
	if known && !anew {
		return nil
	}
	marked := map[digest.Digest]bool{}
	for key, err := range b.RecordKeys(ctx, heldRecords) {
		if err != nil {
			return fmt.Errorf("listing what is held in the bucket: %w", err)
		}
		marked[digest.Digest(strings.TrimPrefix(key, heldRecords+"/"))] = true
	}
	there, bytes := map[digest.Digest]blobstore.Info{}, int64(0)
	for info, err := range b.Blobs(ctx) {
		if err != nil {
			return fmt.Errorf("listing the bucket: %w", err)
		}
		if marked[info.Digest] {
			there[info.Digest] = info
			bytes += info.Size
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.looked, b.marked, b.there, b.bytes = true, marked, there, bytes
	return nil
}

func (b *bucket) has(_ context.Context, d digest.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.there[d]
	return ok
}

// held are also those that are marked and not there: their marks are to go, too.
func (b *bucket) held() []blobstore.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Collect(maps.Values(b.there))
	for d := range b.marked {
		if _, ok := b.there[d]; !ok {
			all = append(all, blobstore.Info{Digest: d})
		}
	}
	return all
}

func (b *bucket) usage() (blobs int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.there), b.bytes
}

// hold marks content before it is there, so that nothing is left that nobody knows of.
func (b *bucket) hold(ctx context.Context, d digest.Digest) error {
	b.changing.RLock()
	defer b.changing.RUnlock()
	b.mu.Lock()
	marked := b.marked[d]
	_, there := b.there[d]
	b.mu.Unlock()
	if there {
		return nil
	}
	if !marked {
		if err := b.PutRecord(ctx, heldRecords+"/"+string(d), nil); err != nil {
			return fmt.Errorf("marking %s as held in the bucket: %w", d, err)
		}
	}
	if err := b.node.Keep(ctx, d); err != nil {
		return err
	}
	info, err := b.Stat(ctx, d)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.there[d]; !there {
		b.marked[d], b.there[d] = true, info
		b.bytes += info.Size
	}
	return nil
}

func (b *bucket) drop(ctx context.Context, d digest.Digest) error {
	b.changing.RLock()
	defer b.changing.RUnlock()
	if err := errors.Join(b.node.Drop(ctx, d), b.Delete(ctx, d)); err != nil && !errors.Is(err, blobstore.ErrNotExist) {
		return err
	}
	if err := b.DeleteRecord(ctx, heldRecords+"/"+string(d)); err != nil && !errors.Is(err, blobstore.ErrNotExist) {
		return err
	}
	b.forget(d)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.marked, d)
	return nil
}

// putAside leaves what the directory has: it is verified when it is sent again.
func (b *bucket) putAside(ctx context.Context, d digest.Digest, _ error) error {
	b.changing.RLock()
	defer b.changing.RUnlock()
	if err := b.Delete(ctx, d); err != nil && !errors.Is(err, blobstore.ErrNotExist) {
		return fmt.Errorf("removing %s, which is wrong: %w", d, err)
	}
	b.forget(d)
	return nil
}

// forget is told that content is not there any more.
func (b *bucket) forget(d digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= b.there[d].Size
	delete(b.there, d)
}

func (b *bucket) verifier(rate int64) (verifier, error) { return b.Verifier(rate) }
