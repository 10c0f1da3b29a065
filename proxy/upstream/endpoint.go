package upstream

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// failuresToOpen is how many failures in a row open an endpoint's circuit.
	failuresToOpen = 3
	// firstPause, doubled by each further failure up to lastPause, is how long
	// it stays open.
	firstPause = time.Second
	lastPause  = time.Minute
	// rateLimitPause is for a 429 that does not say how long.
	rateLimitPause = 10 * time.Second
	// probePause is what others are told to wait while one request tries an
	// endpoint whose circuit was open.
	probePause = time.Second
)

// Endpoint is one URL of an upstream, with its own health. After failures in a
// row, or when it asks for it, it is left alone for a time (its circuit is
// open); then one request tries it.
type Endpoint struct {
	base   *url.URL // scheme and host
	prefix string   // before repository names: "" or "some/prefix/"
	text   string
	files  bool // a file server: see [Config.Files]
	client *auth.Client
	tokens *tokenCache
	jitter func() float64 // in [0, 1)
	log    *slog.Logger

	mu       sync.Mutex
	failures int       // in a row
	until    time.Time // left alone until then; zero when the circuit is closed
	reason   *Error    // why
	probing  bool      // a request is trying it
}

// String is the URL, which has no credentials.
func (e *Endpoint) String() string { return e.text }

// Penalize counts a failure that the caller found: content that is not what its
// digest says. err is the reason given to those who find the circuit open.
func (e *Endpoint) Penalize(err error) {
	e.failed(&Error{Kind: Unavailable, Err: clean(err)}, time.Now())
}

// url is where path below /v2/ is, or of a file server the path that is
// percent-encoded as it is to be sent.
func (e *Endpoint) url(path, query string) *url.URL {
	if e.files {
		u := &url.URL{Scheme: e.base.Scheme, Host: e.base.Host, Path: "/" + e.prefix, RawQuery: query}
		u.RawPath = u.EscapedPath() + path
		if decoded, err := url.PathUnescape(path); err == nil { // or RawPath would not count
			u.Path += decoded
		}
		return u
	}
	u := &url.URL{Scheme: e.base.Scheme, Host: e.base.Host, Path: "/v2/", RawQuery: query}
	if path != "" {
		u.Path += e.prefix + path
	}
	return u
}

// admit says whether the endpoint may be asked now; if not, why. Whoever was
// admitted reports back, through exactly one of the methods below.
func (e *Endpoint) admit(now time.Time) *Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.until.IsZero() {
		return nil
	}
	left := e.until.Sub(now)
	if left <= 0 && !e.probing {
		e.probing = true
		return nil
	}
	if left <= 0 {
		left = probePause
	}
	refusal := *e.reason
	refusal.RetryAfter = left
	refusal.Err = fmt.Errorf("%s is left alone for %v after: %w", e, left.Round(time.Millisecond), e.reason.orKind())
	return &refusal
}

// well reports an exchange that went right to its end.
func (e *Endpoint) well() {
	e.mu.Lock()
	e.failures = 0
	e.mu.Unlock()
	e.answered()
}

// answered reports an answer whose body is still to come. It closes the
// circuit but forgets no failures, so that an endpoint whose bodies always
// stall is found out.
func (e *Endpoint) answered() {
	e.mu.Lock()
	wasOpen := !e.until.IsZero()
	e.until, e.reason, e.probing = time.Time{}, nil, false
	e.mu.Unlock()
	if wasOpen {
		e.log.Info("upstream endpoint is back", "url", e.text)
	}
}

// undecided reports an exchange that says nothing of the endpoint's health.
func (e *Endpoint) undecided() {
	e.mu.Lock()
	e.probing = false
	e.mu.Unlock()
}

// failed reports a failure, and returns for how long the endpoint is left alone
// now, 0 when it is not.
func (e *Endpoint) failed(err *Error, now time.Time) time.Duration {
	left, opened := e.fail(err, now)
	if opened {
		e.log.Warn("upstream endpoint is left alone", "url", e.text, "for", left, "error", err)
	}
	return left
}

func (e *Endpoint) fail(err *Error, now time.Time) (left time.Duration, opened bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.probing = false
	left = max(0, e.until.Sub(now))
	pause := err.RetryAfter
	if pause == 0 && err.Kind == RateLimited {
		pause = rateLimitPause
	}
	if pause == 0 {
		if left > 0 {
			return left, false // of a request that began before the circuit opened
		}
		e.failures++
		if e.failures < failuresToOpen {
			return 0, false
		}
		pause = firstPause << min(e.failures-failuresToOpen, 10)
		pause = min(pause, lastPause)
		pause -= time.Duration(0.2 * e.jitter() * float64(pause))
	}
	if pause <= left {
		return left, false
	}
	e.until, e.reason = now.Add(pause), err
	return pause, true
}

// parseBase reads a configured URL.
func parseBase(text string) (base *url.URL, prefix string, err error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("URL %q: %w", withoutSecrets(text), clean(err))
	case u.User != nil:
		return nil, "", fmt.Errorf("URL of %s: credentials belong in username and password", u.Host)
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, "", fmt.Errorf("URL %q: want https://host[:port][/prefix]", withoutSecrets(text))
	case u.RawQuery != "" || u.Fragment != "":
		return nil, "", fmt.Errorf("URL %q: want no query and no fragment", withoutSecrets(text))
	}
	if prefix = strings.Trim(u.Path, "/"); prefix != "" {
		prefix += "/"
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, prefix, nil
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostPort(a) == hostPort(b)
}

// hostPort is the lower-case host and the port, also when it is the scheme's
// own.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	case u.Scheme == "socks5", u.Scheme == "socks5h":
		port = "1080"
	default:
		port = "80"
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}
