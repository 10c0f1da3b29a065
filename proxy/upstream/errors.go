package upstream

import (
	"time"
)

// Kind is what stood in the way of an answer.
type Kind uint8

// The kinds, from the one that says least about the content to the one that is
// only believed when nothing else stood in the way.
const (
	// Unavailable: no connection, no answer in time, status 5xx, or not asked
	// because of recent failures.
	Unavailable Kind = iota
	// RateLimited: status 429.
	RateLimited
	// Invalid: the answer breaks the protocol or a rule of safety.
	Invalid
	// Denied: status 401 or 403 after authentication.
	Denied
	// NotFound: status 404 from every endpoint.
	NotFound
)

// Error is why no endpoint of an upstream could answer.
type Error struct {
	Kind Kind
	// Status is upstream's, 0 when it gave none.
	Status int
	// RetryAfter is how long to wait before asking again can help, 0 when
	// unknown.
	RetryAfter time.Duration
	// Timeout reports that upstream was too slow rather than unreachable.
	Timeout bool
	// Err is the cause. Its text has no credential, token or signed query.
	Err error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }
