package events

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"entrepot/blobstore/pause"
)

const (
	// maxRetryAfter bounds how long an endpoint can ask to be left alone.
	maxRetryAfter = 10 * time.Minute
	// maxAnswer is the bytes of an answer that are read, so that its
	// connection can be used again.
	maxAnswer = 64 << 10
)

// delivery is an event on its way to an endpoint.
type delivery struct {
	body   []byte // the envelope
	id     string
	queued time.Time
}

// endpoint delivers events to a webhook, one after another.
type endpoint struct {
	Endpoint
	client  *http.Client
	metrics Metrics
	log     *slog.Logger
	now     func() time.Time
	waiting chan *delivery
	count   atomic.Int64 // events that wait or are being sent

	full     atomic.Bool // an event did not fit since the queue was last empty
	failures int         // in a row
	refused  bool        // the last event was
	unsent   int         // at the end
}

// check says what is wrong with a configured endpoint.
func (e *Endpoint) check() error {
	u, err := url.Parse(e.URL)
	// url.Parse repeats what it was given, which may hold a password.
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("its URL is not one such as https://hooks.example.org/registry")
	}
	for name, value := range map[string]int64{
		"timeout": int64(e.Timeout), "threshold": int64(e.Threshold), "backoff": int64(e.Backoff),
		"maximal age": int64(e.MaxAge), "queue": int64(e.Queue),
	} {
		if value < 0 {
			return fmt.Errorf("its %s is negative", name)
		}
	}
	if e.Name == "" {
		return errors.New("it has no name")
	}
	return nil
}

func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     time.Minute,
	}
}

func newEndpoint(configured Endpoint, cfg *Config) *endpoint {
	e := &endpoint{Endpoint: configured, metrics: cfg.Metrics, log: cfg.Logger.With("endpoint", configured.Name), now: cfg.Now}
	e.MediaType = cmp.Or(e.MediaType, MediaType)
	e.Timeout = cmp.Or(e.Timeout, DefaultTimeout)
	e.Threshold = cmp.Or(e.Threshold, DefaultThreshold)
	e.Backoff = cmp.Or(e.Backoff, DefaultBackoff)
	e.MaxAge = cmp.Or(e.MaxAge, DefaultMaxAge)
	e.waiting = make(chan *delivery, cmp.Or(e.Queue, DefaultQueue))
	e.client = &http.Client{
		Transport: cfg.Transport,
		// The headers may hold a secret, which is for this endpoint alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e
}

// ignores says whether an event is not for this endpoint.
func (e *endpoint) ignores(event *Event) bool {
	return slices.Contains(e.IgnoreActions, event.Action) || slices.Contains(e.IgnoreMediaTypes, event.Target.MediaType)
}

// queue takes an event, or drops it; it does not wait.
func (e *endpoint) queue(d *delivery) {
	waiting := e.count.Add(1)
	e.metrics.Queued(e.Name, int(waiting))
	if waiting == 1 {
		e.full.Store(false)
	}
	select {
	case e.waiting <- d:
	default:
		e.metrics.Queued(e.Name, int(e.count.Add(-1)))
		e.drop(ReasonFull)
		if !e.full.Swap(true) {
			e.log.Error("events are lost: as many wait as may", slog.Int("queue", cap(e.waiting)))
		}
	}
}

func (e *endpoint) drop(reason Reason) { e.metrics.Dropped(e.Name, reason) }

// run delivers until the queue is closed and empty.
func (e *endpoint) run(ctx context.Context) {
	for d := range e.waiting {
		e.deliver(ctx, d)
		e.metrics.Queued(e.Name, int(e.count.Add(-1)))
	}
}

// deliver tries until an event is delivered, or is dropped.
func (e *endpoint) deliver(ctx context.Context, d *delivery) {
	for {
		if ctx.Err() != nil {
			e.unsent++
			e.drop(ReasonShutdown)
			return
		}
		if age := e.now().Sub(d.queued); age >= e.MaxAge {
			e.drop(ReasonOld)
			e.log.Error("an event is lost: it could not be delivered", slog.String("event", d.id), slog.Duration("age", age))
			return
		}
		err := e.try(ctx, d)
		if err == nil {
			e.succeeded()
			return
		}
		if ctx.Err() != nil {
			continue
		}
		e.metrics.Failed(e.Name)
		answer, _ := errors.AsType[*answerError](err)
		if answer.refuses() {
			e.refuse(d, err)
			return
		}
		if e.failures++; e.failures == 1 {
			e.log.Warn("an endpoint fails: it is tried again", slog.Any("error", err))
		}
		_ = pause.For(ctx, max(e.delay(), answer.retryAfter()))
	}
}

func (e *endpoint) succeeded() {
	e.metrics.Delivered(e.Name)
	if e.failures > 0 {
		e.log.Info("an endpoint works again", slog.Int("failures", e.failures))
	}
	e.failures, e.refused = 0, false
}

// refuse drops an event that the endpoint will never take. It says so of the
// first in a row.
func (e *endpoint) refuse(d *delivery, err error) {
	e.drop(ReasonRefused)
	if !e.refused {
		e.log.Error("an event is lost: the endpoint does not take it", slog.String("event", d.id), slog.Any("error", err))
	}
	e.failures, e.refused = 0, true
}

// delay is the time until the next try.
func (e *endpoint) delay() time.Duration {
	return e.Backoff >> min(max(e.Threshold-e.failures, 0), 10)
}

// try delivers an event once.
func (e *endpoint) try(ctx context.Context, d *delivery) error {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(d.body))
	if err != nil {
		return withoutURL(err)
	}
	for name, values := range e.Headers {
		r.Header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	r.Header.Set("Content-Type", e.MediaType)
	answer, err := e.client.Do(r)
	if err != nil {
		return withoutURL(err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer)) // the status has said it
	if answer.StatusCode/100 != 2 {
		return &answerError{status: answer.StatusCode, after: answer.Header.Get("Retry-After")}
	}
	return nil
}

// withoutURL takes the URL out of an error: receivers have secrets in it.
func withoutURL(err error) error {
	if of, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("delivering an event: %w", of.Err)
	}
	return fmt.Errorf("delivering an event: %w", err)
}

// answerError is an answer other than that the event was taken.
type answerError struct {
	status int
	after  string // Retry-After
}

func (a *answerError) Error() string {
	if a.status/100 == 3 {
		return fmt.Sprintf("the endpoint redirects (status %d), which is not followed: configure where it leads", a.status)
	}
	return fmt.Sprintf("the endpoint answered with status %d %s", a.status, http.StatusText(a.status))
}

// refuses says whether the answer is about this event, and will be the same
// each time. All else may be put right at the endpoint.
func (a *answerError) refuses() bool {
	if a == nil {
		return false
	}
	switch a.status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// retryAfter is how long the endpoint asks to be left alone, in seconds (RFC
// 9110, section 10.2.3).
func (a *answerError) retryAfter() time.Duration {
	if a == nil {
		return 0
	}
	seconds, err := strconv.ParseInt(a.after, 10, 32)
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}
