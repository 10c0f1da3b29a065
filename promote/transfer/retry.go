package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"entrepot/blobstore/pause"
)

const (
	// limitedFactor is how many times more often a request that is answered 429
	// is made than one that fails.
	limitedFactor = 10
	// downAfter is how many requests in a row have to use up their attempts
	// until a host is taken to be down.
	downAfter = 5
	// maxBackoff bounds the pause between two attempts.
	maxBackoff = 20 * time.Second
	// maxErrorBody is how much of a refusal is read, and maxErrorText how much
	// is told, in bytes.
	maxErrorBody = 8 << 10
	maxErrorText = 300
)

// retry makes an attempt until it is well, fails for good, or has failed too
// often. A 429 pauses everybody who talks with the host.
func (h *host) retry(ctx context.Context, attempt func() error) error {
	failed, limited := 0, 0
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		if last, ok := errors.AsType[final](err); ok {
			return last.error
		}
		told, ok := errors.AsType[*Error](err)
		switch {
		case ctx.Err() != nil, !ok:
			return err
		case told.is(ErrRateLimited):
			limited++
			if told.RetryAfter > h.cfg.MaxPause || limited >= limitedFactor*h.cfg.Attempts {
				return fmt.Errorf("%w (%d attempts)", err, failed+limited)
			}
			h.limited(told)
		case told.is(ErrUnavailable):
			failed++
			if failed >= h.attempts() || told.RetryAfter > h.cfg.MaxPause {
				h.gaveUp.Add(1)
				return fmt.Errorf("%w (%d attempts)", err, failed+limited)
			}
			h.log.Info("trying again", slog.String("host", h.name), slog.Any("error", err))
			h.gate.busy(told.RetryAfter, time.Now())
			if cause := pause.For(ctx, h.cfg.backoff(failed)); cause != nil {
				return fmt.Errorf("%w, after: %w", cause, told.Err)
			}
		default:
			return err
		}
	}
}

// attempts is how many are worth while: thousands of images need not wait one
// by one for a host that is down.
func (h *host) attempts() int {
	if h.gaveUp.Load() >= downAfter {
		return 1
	}
	return h.cfg.Attempts
}

// limited makes everybody who talks with the host wait.
func (h *host) limited(told *Error) {
	wait := h.gate.limited(told.RetryAfter, time.Now())
	h.log.Info("rate limited", slog.String("host", h.name), slog.Duration("pause", wait))
}

// final is an error that had its attempts elsewhere.
type final struct{ error }

// Unwrap returns the error.
func (f final) Unwrap() error { return f.error }

// orNil is f, or nil if there was no error.
func (f final) orNil() error {
	if f.error == nil {
		return nil
	}
	return f
}

// backoff is the pause after a number of failures.
func (c *Config) backoff(failed int) time.Duration {
	most := min(c.FirstBackoff<<min(failed-1, 16), maxBackoff)
	return most/2 + rand.N(most/2+1) //nolint:gosec // no secret
}

// answer is what a request without a large body came to.
type answer struct {
	header http.Header
	status int
	length int64 // Content-Length, -1 when there is none
	body   []byte
	path   string // where redirects led to
}

// fetch makes a request until it is answered and reads the answer, at most
// limit bytes of it. Errors: [*Error], the end of ctx.
func (h *host) fetch(ctx context.Context, r *request, limit int64) (*answer, error) {
	var a *answer
	err := h.retry(ctx, func() error {
		if err := h.gate.enter(ctx); err != nil {
			return fmt.Errorf("%s: %w", r.what(), err)
		}
		defer h.gate.leave()
		resp, err := h.do(ctx, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var body bytes.Buffer
		if r.method != http.MethodHead {
			if _, err := body.ReadFrom(io.LimitReader(resp.Body, limit+1)); err != nil {
				return readError(r, err)
			}
		}
		if int64(body.Len()) > limit {
			return failf(ErrRefused, "%s: the answer has more than %d bytes", r.what(), limit)
		}
		if resp.ContentLength > int64(body.Len()) && r.method != http.MethodHead {
			return failf(ErrUnavailable, "%s: the answer ended after %d of %d bytes", r.what(), body.Len(), resp.ContentLength)
		}
		a = &answer{header: resp.Header, status: resp.StatusCode, length: resp.ContentLength, body: body.Bytes(), path: resp.Request.URL.Path}
		return nil
	})
	return a, err
}

// readError says what broke a body.
func readError(r *request, err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return sendError(r, err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return failf(ErrUnavailable, "%s: the answer was cut short", r.what())
	}
	return fmt.Errorf("%s: %w", r.what(), err)
}

// statusError is what an answer that is not 2xx says.
func statusError(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, Kind: ErrRefused, Err: refusal(resp)}
	switch s := resp.StatusCode; {
	case s == http.StatusNotFound, s == http.StatusGone:
		e.Kind = ErrNotFound
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusProxyAuthRequired:
		e.Kind = ErrUnauthorized
	case s == http.StatusConflict, s == http.StatusPreconditionFailed:
		e.Kind = ErrConflict
	case s == http.StatusTooManyRequests:
		e.Kind = ErrRateLimited
		e.RetryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	case s == http.StatusNotImplemented, s == http.StatusHTTPVersionNotSupported, s == http.StatusInsufficientStorage:
	case s == http.StatusRequestTimeout, s >= 500:
		e.Kind = ErrUnavailable
		e.RetryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return e
}

// refusal is the status, and what an OCI error body says of it.
func refusal(resp *http.Response) error {
	status := fmt.Sprintf("answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var told struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err != nil || json.Unmarshal(content, &told) != nil || len(told.Errors) == 0 {
		return errors.New(status)
	}
	text := told.Errors[0].Code + ": " + told.Errors[0].Message
	text = strings.ToValidUTF8(text[:min(len(text), maxErrorText)], "")
	return fmt.Errorf("%s, %q", status, text)
}

// parseRetryAfter reads a Retry-After header (RFC 9110, section 10.2.3), seconds
// or a date. It is 0 when there is none or it says nothing.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		const century = 100 * 365 * 24 * 3600
		return time.Duration(min(max(seconds, 0), century)) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(0, at.Sub(now))
}
