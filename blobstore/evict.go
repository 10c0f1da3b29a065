package blobstore

import (
	"errors"
	"fmt"
	"syscall"
)

// reserve accounts for n bytes that are about to be written to the spool, and
// makes room for them when they would pass MaxSize. Errors: ErrNoSpace.
func (d *Dir) reserve(n int64) error {
	d.spool.bytes.Add(n)
	used := d.used.Add(n)
	if d.cfg.MaxSize == 0 || used <= d.high {
		return nil
	}
	d.wakeEvictor()
	if used <= d.cfg.MaxSize {
		return nil
	}
	// One at a time, so that of two writers of whom only one fits, one gets
	// the room that the other gives back.
	d.evicting.Lock()
	defer d.evicting.Unlock()
	for d.used.Load() > d.cfg.MaxSize {
		if _, ok := d.evictOne(); !ok {
			d.release(n)
			return fmt.Errorf("%w: the limit is %d bytes, and all that is left is in use or held", ErrNoSpace, d.cfg.MaxSize)
		}
	}
	return nil
}

// release gives back what reserve took.
func (d *Dir) release(n int64) {
	d.spool.bytes.Add(-n)
	d.used.Add(-n)
}

// wakeEvictor has the evictor look, if the store is above its high watermark.
func (d *Dir) wakeEvictor() {
	if d.cfg.MaxSize == 0 || d.used.Load() <= d.high {
		return
	}
	select {
	case d.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// runEvictor evicts whenever it is woken, until the store is closed.
func (d *Dir) runEvictor() {
	for {
		select {
		case <-d.stop:
			return
		case <-d.wake:
			d.evictToLow()
		}
	}
}

func (d *Dir) evictToLow() {
	var count, bytes int64
	for {
		size, ok := d.evictAbove(d.low)
		if !ok {
			break
		}
		count, bytes = count+1, bytes+size
	}
	if count > 0 {
		d.log.Info("evicted least recently used", "count", count, "bytes", bytes,
			"used", d.used.Load(), "max_size", d.cfg.MaxSize)
	}
}

// evictAbove is evictOne while more than limit bytes are used: writers evict
// too.
func (d *Dir) evictAbove(limit int64) (size int64, ok bool) {
	d.evicting.Lock()
	defer d.evicting.Unlock()
	if d.used.Load() <= limit || d.closed.Load() {
		return 0, false
	}
	return d.evictOne()
}

// evictOne evicts the blob or idle partial that was used longest ago, and
// tells how many bytes it had. It returns false when everything is in use.
// d.evicting is held.
func (d *Dir) evictOne() (size int64, ok bool) {
	for !ok {
		e, blobUsed := d.index.victim()
		raw, partialUsed := d.spool.oldestIdle()
		// Unless ok, the victim was opened or removed since it was picked:
		// pick again.
		switch {
		case e == nil && raw == "":
			return 0, false
		case raw != "" && (e == nil || partialUsed.Before(blobUsed)):
			if size, ok = d.spool.removeIdle(raw); ok {
				d.release(size)
			}
		default:
			size, ok = e.size, d.remove(e, true)
		}
	}
	d.evicted.count.Add(1)
	d.evicted.bytes.Add(size)
	return size, true
}

// When the disk is full, a write is tried again after room was made, at most
// roomRounds times: whoever fills the disk faster than that would else empty
// the store. Each time, roomShare of the store goes, or roomLeast bytes if that
// is more, so that the next writes find room too.
const (
	roomRounds = 3
	roomShare  = 20       // a twentieth
	roomLeast  = 16 << 20 // bytes
)

// withRoom does what writes to the disk, and does it again after it made room
// when the disk was full. No lock of a name is held.
func (d *Dir) withRoom(write func() error) error {
	for round := 0; ; round++ {
		seen := d.madeRoom.Load()
		err := write()
		if !diskFull(err) || !d.cfg.EvictWhenFull || round == roomRounds || !d.makeRoom(seen) {
			return err
		}
	}
}

// makeRoom evicts because the disk is full. Of many writers that saw it full,
// one evicts: seen is madeRoom from before the caller's write.
func (d *Dir) makeRoom(seen uint64) bool {
	d.evicting.Lock()
	defer d.evicting.Unlock()
	if d.madeRoom.Load() != seen {
		return true
	}
	want := max(d.used.Load()/roomShare, roomLeast)
	count, freed := 0, d.aside.empty()
	for freed < want {
		size, ok := d.evictOne()
		if !ok {
			break
		}
		count, freed = count+1, freed+size
	}
	if freed == 0 {
		return false
	}
	d.madeRoom.Add(1)
	d.log.Warn("the disk is full: evicted least recently used", "path", d.path, "count", count, "bytes", freed,
		"used", d.used.Load())
	return true
}

// diskFull tells a full disk from the store's own limit.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
