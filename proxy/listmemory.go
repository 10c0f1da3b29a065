package proxy

import (
	"runtime"
	"sync"
	"time"

	"entrepot/registry/admission"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// defaultListMemory bounds what lists take in memory, in bytes.
	defaultListMemory = 192 << 20
	// maxListWeight bounds one list, in bytes of memory: some 600,000 tags.
	maxListWeight = 48 << 20
	// roomStep is in what steps memory is counted, in bytes. Lists below it, which almost
	// all are, are bounded by their number.
	roomStep = 64 << 10
	// reclaimInterval is how often memory is looked for that nobody uses any more.
	reclaimInterval = time.Second
	// listRetry is when it is worth another try where there was no memory for a list.
	listRetry = 5 * time.Second
)

// listMemory bounds what lists of tags and referrers take, in the cache, on their way
// here and on their way to clients: whoever answers for upstream says how long they
// are. It is safe for concurrent use.
type listMemory struct {
	most int64
	drop func() // the cached lists

	mu    sync.Mutex
	taken int64 // bytes

	reclaiming sync.Mutex
	reclaimed  time.Time
}

func (m *listMemory) tryTake(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.taken+n > m.most {
		return false
	}
	m.taken += n
	return true
}

func (m *listMemory) giveBack(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken -= n
}

func (m *listMemory) inUse() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.taken
}

// take counts n bytes. Errors: [*admission.Busy].
func (m *listMemory) take(n int64) error {
	if m.tryTake(n) {
		return nil
	}
	m.reclaim()
	if m.tryTake(n) {
		return nil
	}
	return &admission.Busy{What: "memory for lists", RetryAfter: listRetry}
}

// reclaim drops the cache, and has what nobody uses any more given back now.
func (m *listMemory) reclaim() {
	m.reclaiming.Lock()
	defer m.reclaiming.Unlock()
	if time.Since(m.reclaimed) < reclaimInterval {
		return
	}
	before := m.inUse()
	m.drop()
	runtime.GC()
	for range 20 { // what is found to be unused is given back behind the collection
		if m.inUse() < before {
			break
		}
		time.Sleep(reclaimInterval / 200)
	}
	m.reclaimed = time.Now()
}

// room is what one list takes while it is made. It is used by one goroutine.
type room struct {
	of          *listMemory
	used, taken int64 // bytes
}

// grow counts n more bytes. Errors: [*admission.Busy].
func (r *room) grow(n int64) error {
	r.used += n
	if r.used < roomStep || r.used <= r.taken {
		return nil
	}
	step := max(roomStep, r.used-r.taken)
	if err := r.of.take(step); err != nil {
		return err
	}
	r.taken += step
	return nil
}

// close gives everything back.
func (r *room) close() {
	r.of.giveBack(r.taken)
	r.used, r.taken = 0, 0
}

// keep has the room be given back when a list is no more in use, wherever that is.
func keep[T any](r *room, items []T) {
	if r.taken == 0 || len(items) == 0 {
		r.close()
		return
	}
	runtime.AddCleanup(&items[0], r.of.giveBack, r.taken)
	r.used, r.taken = 0, 0
}

// tagWeight is what a tag takes in a list, about: its header, its bytes, and as much of
// the list as it may grow at once.
func tagWeight(tag string) int64 { return 48 + int64(len(tag)) }

// descriptorWeight is what a descriptor takes in a list, about.
func descriptorWeight(d ocispec.Descriptor) int64 {
	n := 320 + len(d.MediaType) + len(d.Digest) + len(d.ArtifactType) + len(d.Data)
	for _, u := range d.URLs {
		n += 32 + len(u)
	}
	for k, v := range d.Annotations {
		n += 96 + len(k) + len(v)
	}
	if p := d.Platform; p != nil {
		n += 128 + len(p.Architecture) + len(p.OS) + len(p.OSVersion) + len(p.Variant)
		for _, f := range p.OSFeatures {
			n += 32 + len(f)
		}
	}
	return int64(n)
}
