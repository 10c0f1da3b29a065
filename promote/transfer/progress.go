package transfer

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Progress is told what happens while it happens, by many goroutines at once.
type Progress interface {
	// Request is called for each HTTP request that is sent to a registry, or
	// operation on a bucket: GET, HEAD, POST, PUT, PATCH or DELETE.
	Request(host, method string)
	// Transferred is called for n bytes of blobs or files that were read from
	// their source and are on their way to the destination. Bytes that are
	// sent again after a failure are told again.
	Transferred(n int64)
	// Blob is called once for each blob that is settled at a destination.
	Blob(outcome BlobOutcome, size int64)
}

// BlobOutcome says how a blob came to be at its destination.
type BlobOutcome int

// The outcomes.
const (
	BlobPresent BlobOutcome = iota // it was there
	BlobMounted                    // the registry took it from another of its repositories
	BlobSent                       // it was uploaded
)

// Counters is a [Progress] that adds up. The zero value is ready for use.
type Counters struct {
	bytes                  atomic.Int64
	present, mounted, sent atomic.Int64

	mu       sync.Mutex
	requests map[string]int64
}

// Counts is what [Counters] have added up.
type Counts struct {
	Requests     map[string]int64 `json:"requests"` // by method
	Bytes        int64            `json:"bytes"`
	BlobsPresent int64            `json:"blobs_present"`
	BlobsMounted int64            `json:"blobs_mounted"`
	BlobsSent    int64            `json:"blobs_sent"`
}

// Request implements [Progress].
func (c *Counters) Request(_, method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests == nil {
		c.requests = make(map[string]int64)
	}
	c.requests[method]++
}

// Transferred implements [Progress].
func (c *Counters) Transferred(n int64) { c.bytes.Add(n) }

// Blob implements [Progress].
func (c *Counters) Blob(outcome BlobOutcome, _ int64) {
	switch outcome {
	case BlobPresent:
		c.present.Add(1)
	case BlobMounted:
		c.mounted.Add(1)
	case BlobSent:
		c.sent.Add(1)
	}
}

// Counts returns what was counted so far.
func (c *Counters) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counts{
		Requests: maps.Clone(c.requests), Bytes: c.bytes.Load(),
		BlobsPresent: c.present.Load(), BlobsMounted: c.mounted.Load(), BlobsSent: c.sent.Load(),
	}
}

// silence is the [Progress] of a client that has none.
type silence struct{}

func (silence) Request(string, string)  {}
func (silence) Transferred(int64)       {}
func (silence) Blob(BlobOutcome, int64) {}
