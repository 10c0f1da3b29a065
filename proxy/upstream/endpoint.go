package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// failuresToOpen is how many failures in a row open an endpoint's circuit.
	failuresToOpen = 3
	// firstPause and lastPause bound for how long it stays open.
	firstPause = time.Second
	lastPause  = time.Minute
	// rateLimitPause is for a 429 that does not say how long.
	rateLimitPause = 10 * time.Second
	// probeTime is how long others wait for one request to try an endpoint whose
	// circuit was open.
	probeTime = 2 * time.Second
)

// Endpoint is one URL of an upstream, with its own health: after failures in a
// row it is left alone for a time that doubles, and for as long as it says
// itself.
type Endpoint struct {
	base   *url.URL // without credentials; Path is a prefix of repository names
	client *auth.Client

	mu       sync.Mutex
	failures int       // in a row
	until    time.Time // left alone until
	reason   *Error    // why
}

// String is the URL, which holds no credentials.
func (e *Endpoint) String() string { return e.base.String() }

// host is what metrics call it.
func (e *Endpoint) host() string { return e.base.Host }

// prefix is what stands before repository names, "" or ending in "/".
func (e *Endpoint) prefix() string {
	if p := strings.Trim(e.base.Path, "/"); p != "" {
		return p + "/"
	}
	return ""
}

// url is the address of a request below /v2/.
func (e *Endpoint) url(path, query string) *url.URL {
	return &url.URL{Scheme: e.base.Scheme, Host: e.base.Host, Path: "/v2/" + e.prefix() + path, RawQuery: query}
}

// admit says whether the endpoint may be asked now; if not, why. After a pause,
// one request is let through to try it.
func (e *Endpoint) admit(now time.Time) *Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reason == nil {
		return nil
	}
	left := e.until.Sub(now)
	if left > 0 {
		refusal := *e.reason
		refusal.RetryAfter = left
		refusal.Err = fmt.Errorf("%s is left alone after: %w", e, e.reason.Err)
		return &refusal
	}
	e.until = now.Add(probeTime)
	return nil
}

// answered takes in an answer that shows the endpoint to be well.
func (e *Endpoint) answered() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures, e.reason, e.until = 0, nil, time.Time{}
}

// failed takes in a failure.
func (e *Endpoint) failed(err *Error, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures++
	var pause time.Duration
	switch {
	case err.RetryAfter > 0:
		pause = err.RetryAfter
	case err.Kind == RateLimited:
		pause = rateLimitPause
	case e.failures >= failuresToOpen:
		pause = min(lastPause, firstPause<<min(e.failures-failuresToOpen, 10))
		pause += time.Duration(rand.Int64N(int64(pause)/5 + 1)) // #nosec G404 -- spreads retries, no secret
	default:
		return
	}
	if until := now.Add(pause); until.After(e.until) || e.reason == nil {
		e.until = until
	}
	e.reason = err
	if e.reason.Err == nil {
		e.reason.Err = errors.New(err.Kind.String())
	}
}

// Penalize tells that content of the endpoint was found to be wrong or
// broken, which counts like a failure to answer.
func (e *Endpoint) Penalize(err error) {
	e.failed(&Error{Kind: Unavailable, Err: err}, time.Now())
}
