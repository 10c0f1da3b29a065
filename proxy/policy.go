package proxy

import "time"

// Policy says for how long what upstream answered about a name holds.
type Policy struct {
	// TTL is how long a name is fresh: answered without asking upstream.
	TTL time.Duration
	// StaleWhileRevalidate is how long after that it is still answered at once,
	// while upstream is asked in the background (RFC 5861).
	StaleWhileRevalidate time.Duration
	// MaxStale is how old, past TTL, an answer may be when upstream cannot be
	// asked; 0 means without limit.
	MaxStale time.Duration
	// NegativeTTL is how long an absent name is remembered as absent.
	NegativeTTL time.Duration
}

// action is what a request for a known name does.
type action uint8

const (
	serve          action = iota // the record is fresh
	serveAndCheck                // answer at once, ask upstream in the background
	checkThenServe               // ask upstream, answer the record when that fails
	checkOnly                    // ask upstream; the record is too old to be used
)

// decide is the freshness rule: age is the time since the last check.
func (p *Policy) decide(age time.Duration) action {
	switch {
	case age < p.TTL:
		return serve
	case p.MaxStale > 0 && age >= p.TTL+p.MaxStale:
		return checkOnly
	case age < p.TTL+p.StaleWhileRevalidate:
		return serveAndCheck
	default:
		return checkThenServe
	}
}
