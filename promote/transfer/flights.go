package transfer

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// flights make work that many want be done once at a time. Unlike those of
// golang.org/x/sync/singleflight, they do not fail everybody when the one who
// does the work is told to stop.
type flights struct {
	mu      sync.Mutex
	running map[string]*flight
}

type flight struct {
	done   chan struct{}
	err    error
	gaveUp bool // its context ended: somebody else has to do it
}

// do does work, or waits for whoever does it under the same key.
func (f *flights) do(ctx context.Context, key string, work func() error) error {
	for {
		mine, theirs := f.join(key)
		if mine != nil {
			mine.err = work()
			mine.gaveUp = mine.err != nil && ctx.Err() != nil
			f.mu.Lock()
			delete(f.running, key)
			f.mu.Unlock()
			close(mine.done)
			return mine.err
		}
		select {
		case <-theirs.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !theirs.gaveUp {
			return theirs.err
		}
	}
}

func (f *flights) join(key string) (mine, theirs *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if theirs = f.running[key]; theirs != nil {
		return nil, theirs
	}
	if f.running == nil {
		f.running = make(map[string]*flight)
	}
	mine = &flight{done: make(chan struct{})}
	f.running[key] = mine
	return mine, nil
}

// maxHolders is how many repositories are remembered for a blob, to mount from.
const maxHolders = 4

// holdings remember which repositories are known to hold which blobs.
type holdings struct {
	mu sync.Mutex
	// in is by repository and digest; at is by host and digest, the names of
	// repositories.
	in map[string]bool
	at map[string][]string
}

func (h *holdings) key(r *repo, d digest.Digest) string { return r.String() + "@" + d.String() }

func (h *holdings) has(r *repo, d digest.Digest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.in[h.key(r, d)]
}

func (h *holdings) add(r *repo, d digest.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.in == nil {
		h.in, h.at = make(map[string]bool), make(map[string][]string)
	}
	h.in[h.key(r, d)] = true
	at := r.Host + "@" + d.String()
	if names := h.at[at]; len(names) < maxHolders {
		h.at[at] = append(names, r.Name)
	}
}

// other is a repository of r's registry that holds the blob, "" if none is
// known.
func (h *holdings) other(r *repo, d digest.Digest) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range h.at[r.Host+"@"+d.String()] {
		if name != r.Name {
			return name
		}
	}
	return ""
}
