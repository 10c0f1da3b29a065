package blobstore

import (
	"sync"
	"time"
)

// index knows every blob of a Dir and the order in which they were last used,
// so that a hit or a miss is decided without asking the disk. It costs about
// 120 bytes a sha256 blob, map included.
type index struct {
	mu        sync.Mutex
	entries   map[string]*entry
	ring      entry // sentinel: ring.older is the newest entry, ring.newer the oldest
	bytes     int64 // of all entries
	held      int   // entries that are held
	heldBytes int64 // bytes of them
}

// entry is a blob in the index. Its fields but sum and size, which never
// change, are guarded by index.mu.
type entry struct {
	sum          string // raw digest: 32 or 64 bytes
	size         int64  // bytes
	newer, older *entry
	used         uint32 // seconds since 1970: the data file's mtime
	pins         int32  // readers that have it open
	held         bool   // not to be evicted
	spared       bool   // to be evicted after others
}

// persistUse is how far the mtime of a data file may lag behind the blob's last
// use, in seconds. It keeps hits from writing to the disk.
const persistUse = 60

func newIndex() *index {
	x := &index{entries: map[string]*entry{}}
	x.ring.newer, x.ring.older = &x.ring, &x.ring
	return x
}

// add makes a blob known as the one used last. Adding what is known does nothing.
func (x *index) add(s *sum, size int64, used time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, known := x.entries[string(s.bytes())]; known {
		return
	}
	x.insert(&entry{sum: string(s.bytes()), size: size, used: seconds(used)})
}

// insert adds an entry as the newest; x.mu is held, or x is not shared yet.
func (x *index) insert(e *entry) {
	x.entries[e.sum] = e
	x.bytes += e.size
	x.countHeld(e, 1)
	x.linkNewest(e)
}

// entry is the entry of s, or nil.
func (x *index) entry(s *sum) *entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.entries[string(s.bytes())]
}

// info describes e, whose digest the caller knows.
func (x *index) info(e *entry) (size int64, used time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return e.size, time.Unix(int64(e.used), 0)
}

// use marks a blob as the one used last. It returns nil when there is none.
// stale says that its mtime lags too far behind and is now to be set to now.
func (x *index) use(s *sum, now time.Time, pins int32) (e *entry, stale bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e = x.entries[string(s.bytes())]
	if e == nil {
		return nil, false
	}
	e.pins += pins
	if x.ring.older != e {
		e.newer.older, e.older.newer = e.older, e.newer
		x.linkNewest(e)
	}
	if stale = int64(seconds(now))-int64(e.used) >= persistUse; stale {
		e.used = seconds(now)
	}
	return e, stale
}

func (x *index) unpin(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.pins--
}

// remove forgets e, if it is still there, and, with unpinned set, if nobody
// reads it and it is not held.
func (x *index) remove(e *entry, unpinned bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.entries[e.sum] != e || unpinned && (e.pins > 0 || e.held) {
		return false
	}
	delete(x.entries, e.sum)
	e.newer.older, e.older.newer = e.older, e.newer
	x.bytes -= e.size
	x.countHeld(e, -1)
	return true
}

// setHeld sets whether a blob may be evicted, and tells whether it was held.
func (x *index) setHeld(s *sum, held bool) (was, known bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[string(s.bytes())]
	if e == nil {
		return false, false
	}
	x.countHeld(e, -1)
	was, e.held = e.held, held
	x.countHeld(e, 1)
	return was, true
}

// countHeld counts e, if it is held, n times; x.mu is held, or x is not shared yet.
func (x *index) countHeld(e *entry, n int) {
	if e.held {
		x.held += n
		x.heldBytes += int64(n) * e.size
	}
}

// heldInfo describes e if it is there still, and held.
func (x *index) heldInfo(e *entry) (size int64, used time.Time, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return e.size, time.Unix(int64(e.used), 0), e.held && x.entries[e.sum] == e
}

// maxSpared bounds how many blobs are passed over in the search for one that is not
// spared.
const maxSpared = 256

// victim is the blob that was used longest ago of those that are neither pinned
// nor held, and when; nil when there is none. One that is spared is it when those
// that follow it are too.
func (x *index) victim() (*entry, time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var oldest *entry
	passed := 0
	for e := x.ring.newer; e != &x.ring && passed < maxSpared; e = e.newer {
		if e.pins > 0 || e.held {
			continue
		}
		if oldest == nil || !e.spared {
			oldest = e
		}
		if !e.spared {
			break
		}
		passed++
	}
	if oldest == nil {
		return nil, time.Time{}
	}
	return oldest, time.Unix(int64(oldest.used), 0)
}

// spare sets whether a blob is to be evicted after others.
func (x *index) spare(s *sum, spared bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[string(s.bytes())]; e != nil {
		e.spared = spared
	}
}

// snapshot is all entries at this moment; they may be removed meanwhile.
func (x *index) snapshot() []*entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := make([]*entry, 0, len(x.entries))
	for _, e := range x.entries {
		all = append(all, e)
	}
	return all
}

// holds says whether e is still in the index.
func (x *index) holds(e *entry) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.entries[e.sum] == e
}

func (x *index) usage(u *Usage) {
	x.mu.Lock()
	defer x.mu.Unlock()
	u.Bytes, u.Blobs = x.bytes, len(x.entries)
	u.HeldBytes, u.Held = x.heldBytes, x.held
}

func (x *index) linkNewest(e *entry) {
	e.newer, e.older = &x.ring, x.ring.older
	e.newer.older, e.older.newer = e, e
}

// seconds is a time as entries keep it.
func seconds(t time.Time) uint32 { return uint32(max(0, min(t.Unix(), 1<<32-1))) }
