package peers

import (
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	// firstRest, doubled by each failure in a row, is how long a peer that
	// failed is left alone, at most the interval. Then it is greeted: only who
	// answers that is asked for content again.
	firstRest = 250 * time.Millisecond
	maxDouble = 16
)

// Peer is another node, at one address.
type Peer struct {
	name      string // for people: its URL, or its address
	base      *url.URL
	transport *http.Transport

	mu       sync.Mutex
	id       string // as it last said; "" before it did
	up       bool
	self     bool      // it is this node
	due      time.Time // when it is to be greeted next
	failures int       // in a row, without a byte of content between
	trouble  string    // that was logged last, "" when there is none
}

// String is the peer's URL or address.
func (p *Peer) String() string { return p.name }

func (p *Peer) state() (id string, up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id, p.up
}

// counts says whether the peer is another node, and up or down.
func (p *Peer) counts(up bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.self && p.up == up
}

// answered takes in that the peer answered a greeting.
func (p *Peer) answered(id string, next time.Time) (cameUp bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cameUp = !p.up
	p.id, p.up, p.self, p.due, p.trouble = id, true, false, next, ""
	return cameUp
}

// isSelf takes in that the address is this node's own.
func (p *Peer) isSelf(next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id, p.up, p.self, p.due, p.trouble = "", false, true, next, ""
}

// gave takes in that the peer sent content.
func (p *Peer) gave() {
	p.mu.Lock()
	p.failures = 0
	p.mu.Unlock()
}

// failed takes in that the peer is not to be asked for now. It reports whether
// that is news.
func (p *Peer) failed(why error, now time.Time, longest time.Duration) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := min(firstRest<<min(p.failures, maxDouble), longest)
	p.failures++
	news = p.up || p.trouble != why.Error()
	p.up, p.self, p.due, p.trouble = false, false, now.Add(rest), why.Error()
	return news
}

// isDue says whether the peer is to be greeted now.
func (p *Peer) isDue(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !now.Before(p.due)
}
