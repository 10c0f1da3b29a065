package main

import (
	"maps"
	"sync"
)

// tally counts, by name, what happened.
type tally struct {
	mu     sync.Mutex
	counts map[string]int64
}

func newTally() *tally { return &tally{counts: map[string]int64{}} }

func (t *tally) add(name string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[name] += n
}

// most keeps the largest of the numbers given for a name.
func (t *tally) most(name string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[name] = max(t.counts[name], n)
}

func (t *tally) all() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}

// What is promised to be 0, as it is called in the tally.
const (
	wrongBytes = "wrong bytes delivered"
	lostBlobs  = "verified blobs lost"
	lostNames  = "acknowledged names lost"
	stuck      = "stuck transfers"
	leaks      = "leaked goroutines, files and temporary files"
	absences   = "names that exist and were said not to"
	late       = "names that were not served again within 10 s"
	uncaught   = "mirrors that sent wrong bytes, and were not out of use within 10 s"
	slandered  = "mirrors in quarantine that never sent a wrong artifact"
)

// promises lists them in the order of the report.
func promises() []string {
	return []string{wrongBytes, lostBlobs, lostNames, stuck, leaks, absences, late, uncaught, slandered}
}

// What else is counted.
const (
	complete      = "complete answers, all bytes compared"
	completeBytes = "bytes in them"
	broken        = "transfers that broke visibly"
	refused       = "answers that told of a failure (5xx, 429)"
	earlyEnds     = "transfers that clients gave up early"
	unverified    = "ranges with a changed byte, of blobs still on their way"
	mended        = "downloads in pieces that the client's own digest refused"
	heads         = "HEAD requests"
	lied          = "wrong blobs of the dishonest mirror that the client's own digest refused"
	caughtAfter   = "ms until the dishonest mirror was out of use, at most"
	held          = "pulls by containerd that succeeded, all content in its store verified"
	heldRouted    = "of them through the router"
	heldBad       = "pulls by containerd that failed visibly"
	pulls         = "pulls by crane, skopeo and curl that succeeded"
	pullsBad      = "pulls by them that failed visibly"
	pushes        = "pushes to the origin that it acknowledged"
	promotions    = "promotions that ended well"
	changed       = "bytes of content changed on their way to a node"
	evictedEarly  = "blobs that left the directory before a bucket, and were only in memory or upstream then"
	evicted       = "blobs evicted by nodes"
	rotten        = "blobs found to be wrong on a node's disk, put aside and fetched again"
	killed        = "promotions killed or failed, and made good by the next"
)
