package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// Kind is what stood in the way of an answer.
type Kind uint8

const (
	// NotFound is a 404 (or 410) from every endpoint.
	NotFound Kind = iota + 1
	// Denied is a 401 or 403 after authentication, or a 451.
	Denied
	// RateLimited is a 429, or not being asked because of a recent one.
	RateLimited
	// Unavailable is no connection, no answer in time, a 5xx, or not being asked
	// because of recent failures.
	Unavailable
	// Invalid is an answer that breaks the protocol or a rule of safety.
	Invalid
)

func (k Kind) String() string {
	switch k {
	case NotFound:
		return "not found"
	case Denied:
		return "denied"
	case RateLimited:
		return "rate limited"
	case Unavailable:
		return "unavailable"
	case Invalid:
		return "invalid answer"
	}
	return "kind " + strconv.Itoa(int(k))
}

// weight orders the kinds by how little they say about the content: absence is
// believed only when nothing else stood in the way.
func (k Kind) weight() int {
	switch k {
	case Unavailable:
		return 5
	case RateLimited:
		return 4
	case Invalid:
		return 3
	case Denied:
		return 2
	case NotFound:
		return 1
	}
	return 0
}

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

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Kind.String()
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// at says what was being done when e happened.
func (e *Error) at(what string) *Error {
	told := *e
	told.Err = fmt.Errorf("%s: %w", what, e.orKind())
	return &told
}

func (e *Error) orKind() error {
	if e.Err != nil {
		return e.Err
	}
	return errors.New(e.Kind.String())
}

func invalidf(format string, args ...any) *Error {
	return &Error{Kind: Invalid, Err: fmt.Errorf(format, args...)}
}

// networkError is a failure below HTTP: no connection, no answer, a broken
// body.
type networkError struct{ err error }

func (e *networkError) Error() string { return e.err.Error() }
func (e *networkError) Unwrap() error { return e.err }

// statusError judges a status. It returns nil for the good ones: 200, 206, and
// 304 to a conditional request. Whether a 206 is the right one is for
// [Request.place] to say.
func statusError(resp *http.Response, conditional bool) *Error {
	e := &Error{Status: resp.StatusCode, Err: fmt.Errorf("answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
	switch s := resp.StatusCode; {
	case s == http.StatusOK, s == http.StatusPartialContent, s == http.StatusNotModified && conditional:
		return nil
	case s == http.StatusNotFound, s == http.StatusGone:
		e.Kind = NotFound
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusUnavailableForLegalReasons:
		e.Kind = Denied
	case s == http.StatusTooManyRequests:
		e.Kind = RateLimited
	case s == http.StatusLoopDetected:
		// It is about what this request passed, which its client says too, and
		// nothing that the endpoint could mend.
		e.Kind = Invalid
	case s >= http.StatusInternalServerError, s == http.StatusRequestTimeout:
		e.Kind = Unavailable
	default:
		e.Kind = Invalid
	}
	if e.Kind == RateLimited || e.Kind == Unavailable {
		e.RetryAfter = retryAfter(resp.Header, time.Now())
	}
	return e
}

// sendError judges a failure to get an answer at all.
func sendError(err error) *Error {
	var (
		told    *Error
		network *networkError
	)
	switch {
	case errors.As(err, &told):
		return told
	case errors.As(err, &network):
		return &Error{Kind: Unavailable, Timeout: isTimeout(err), Err: clean(err)}
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return &Error{Kind: Denied, Status: http.StatusUnauthorized, Err: errors.New("it asks for a user name and password, and none is configured")}
	}
	// What is left is the auth client's refusal of a challenge or token.
	return &Error{Kind: Invalid, Err: clean(err)}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, errNoAnswer) || errors.Is(err, errStalled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &ne) && ne.Timeout()
}

// maxRetryAfter bounds how long an upstream can ask to be left alone.
const maxRetryAfter = time.Hour

// retryAfter reads the header of that name (RFC 9110 section 10.2.3): seconds,
// or a date, which is counted from the answer's own Date so that clocks need not
// agree. 0 when it does not say, or says at once.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if isDigits(value) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter // too many digits for a number are many seconds
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// clean rewrites an error's text without what URLs in it may hide: user
// information, and queries, which hold signatures. The error can still be asked
// what it is.
func clean(err error) error {
	var ue *url.Error
	for errors.As(err, &ue) { // "Get \"https://…?…\": cause"
		err = ue.Err
	}
	text := err.Error()
	if cut := withoutSecrets(text); cut != text {
		return &cleaned{cut, err}
	}
	return err
}

type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string        { return e.text }
func (e *cleaned) Is(target error) bool { return errors.Is(e.err, target) }

// withoutSecrets cuts user information and queries out of every URL in text.
func withoutSecrets(text string) string {
	var out strings.Builder
	for {
		scheme := strings.Index(text, "://")
		if scheme < 0 {
			out.WriteString(text)
			return out.String()
		}
		start := scheme + len("://")
		out.WriteString(text[:start])
		text = text[start:]
		end := strings.IndexAny(text, " \t\r\n\"'<>`")
		if end < 0 {
			end = len(text)
		}
		address := text[:end]
		if at := strings.LastIndexByte(address, '@'); at >= 0 {
			address = address[at+1:]
		}
		if query := strings.IndexAny(address, "?#"); query >= 0 {
			address = address[:query]
		}
		out.WriteString(address)
		text = text[end:]
	}
}
