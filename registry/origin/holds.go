package origin

import (
	"hash/maphash"
	"sync"

	"github.com/opencontainers/go-digest"
)

// holds keeps the collection of garbage off blobs that are just being pushed
// or mounted.
//
// Who makes a blob known to a repository holds it from before it looks whether
// the bytes are there until the record is written. Collection first begins to
// remember what is held, then lists all records, and removes bytes that none
// of them names only while nobody holds them and nobody has since it began: a
// record that the listing missed was written by somebody who held the blob
// until then.
type holds struct {
	seed    maphash.Seed
	stripes [256]sync.RWMutex // by digest

	mu     sync.Mutex
	recent map[digest.Digest]struct{} // held since; nil when nobody collects
}

func (h *holds) init() { h.seed = maphash.MakeSeed() }

func (h *holds) stripe(d digest.Digest) *sync.RWMutex {
	return &h.stripes[maphash.String(h.seed, string(d))%uint64(len(h.stripes))]
}

// hold keeps a blob's bytes from being collected until release.
func (h *holds) hold(d digest.Digest) (release func()) {
	stripe := h.stripe(d)
	stripe.RLock()
	return func() {
		h.mu.Lock()
		if h.recent != nil {
			h.recent[clone(d)] = struct{}{}
		}
		h.mu.Unlock()
		stripe.RUnlock()
	}
}

// remember begins to remember what is held, until forget.
func (h *holds) remember() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recent = map[digest.Digest]struct{}{}
}

func (h *holds) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recent = nil
}

// unlessHeld does something while nobody holds a blob, if nobody does and
// nobody has since remember; it does not wait.
func (h *holds) unlessHeld(d digest.Digest, do func() error) (done bool, err error) {
	stripe := h.stripe(d)
	if !stripe.TryLock() {
		return false, nil
	}
	defer stripe.Unlock()
	h.mu.Lock()
	_, held := h.recent[d]
	h.mu.Unlock()
	if held {
		return false, nil
	}
	return true, do()
}
