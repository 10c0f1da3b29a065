// Package events tells webhooks what happened at an origin, in the envelope
// that distribution uses.
//
// Sending never holds up a push: an event is put into a queue of each endpoint,
// and delivered in order. What cannot be delivered is tried again, further and
// further apart, until it is too old; what does not fit the queue is dropped.
// Both are counted and logged. At shutdown, what waits is sent within a
// deadline.
//
// The queue lies in memory: the ledger is the lasting record of what changed,
// and an event is a hint to look. A queue on the disk would cost each push a
// write that is synced, to outlive only crashes of this process.
package events

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Defaults of Endpoint.
const (
	DefaultTimeout   = 5 * time.Second
	DefaultThreshold = 5
	DefaultBackoff   = 10 * time.Second
	DefaultMaxAge    = time.Hour
	DefaultQueue     = 10_000
)

// Config says who is told.
type Config struct {
	// Endpoints are the webhooks. Their names differ.
	Endpoints []Endpoint
	// Addr is this process's host:port, as the events' source.
	Addr string
	// RegistryURL and FilesURL are the base URLs of the registry
	// ("https://origin.example.org") and of the file store
	// ("https://origin.example.org/files"), for the events' URLs. Without
	// them, events have none: a request does not tell by which it came.
	RegistryURL, FilesURL string
	// Metrics are told of each delivery; nil for none.
	Metrics Metrics
	// Transport carries the requests; nil means one of its own.
	Transport http.RoundTripper
	// Logger is told when an endpoint fails and when it works again. Nil
	// discards it.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Endpoint is a webhook.
type Endpoint struct {
	Name string // for logs and metrics
	URL  string
	// Headers are sent with each event, such as Authorization.
	Headers http.Header
	// MediaType is what events are sent as; "" means the package's MediaType.
	MediaType string
	// Timeout bounds a delivery. 0 means DefaultTimeout.
	Timeout time.Duration
	// Threshold is the number of failures in a row after which Backoff lies
	// between two tries; before, it is a half, a quarter and so on. 0 means
	// DefaultThreshold and DefaultBackoff.
	Threshold int
	Backoff   time.Duration
	// MaxAge is how long an event is tried. 0 means DefaultMaxAge.
	MaxAge time.Duration
	// Queue is the most events that wait. 0 means DefaultQueue.
	Queue int
	// IgnoreMediaTypes and IgnoreActions are of targets and events that are
	// not sent.
	IgnoreMediaTypes, IgnoreActions []string
}

// Metrics counts deliveries. Its methods return at once.
type Metrics interface {
	Queued(endpoint string, events int)     // that wait now, with the one that is being sent
	Delivered(endpoint string)              // an event
	Failed(endpoint string)                 // a try
	Dropped(endpoint string, reason Reason) // an event
}

// Reason is why an event was dropped.
type Reason string

// The reasons.
const (
	ReasonFull     Reason = "full"     // the queue
	ReasonOld      Reason = "old"      // MaxAge is over
	ReasonRefused  Reason = "refused"  // the endpoint does not take this event
	ReasonShutdown Reason = "shutdown" // it ended first
)

// uncounted counts nothing.
type uncounted struct{}

func (uncounted) Queued(string, int)     {}
func (uncounted) Delivered(string)       {}
func (uncounted) Failed(string)          {}
func (uncounted) Dropped(string, Reason) {}

// Sender sends events to all endpoints. It is safe for concurrent use.
type Sender struct {
	cfg       Config
	instance  string
	endpoints []*endpoint
	own       *http.Transport // nil when the transport is the caller's

	cancel context.CancelFunc // ends deliveries
	work   sync.WaitGroup

	mu     sync.RWMutex // held shared while an event is queued
	closed bool
}

// New starts a sender. Its error names every problem of the endpoints. Close
// ends it.
func New(cfg Config) (*Sender, error) {
	if cfg.Metrics == nil {
		cfg.Metrics = uncounted{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Sender{cfg: cfg, instance: uuid.NewString()}
	var problems []error
	for i := range cfg.Endpoints {
		e := cfg.Endpoints[i]
		if err := e.check(); err != nil {
			problems = append(problems, fmt.Errorf("endpoint %d (%q): %w", i+1, e.Name, err))
		}
		if slices.ContainsFunc(cfg.Endpoints[:i], func(other Endpoint) bool { return other.Name == e.Name }) {
			problems = append(problems, fmt.Errorf("endpoint %d: there is another of the name %q", i+1, e.Name))
		}
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("reading whom to send events to: %w", errors.Join(problems...))
	}
	if cfg.Transport == nil && len(cfg.Endpoints) > 0 {
		s.own = newTransport()
		cfg.Transport = s.own
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for _, configured := range cfg.Endpoints {
		e := newEndpoint(configured, &cfg)
		s.endpoints = append(s.endpoints, e)
		s.work.Go(func() { e.run(ctx) })
	}
	return s, nil
}

// Send queues an event. What the event lacks of ID, Timestamp and Source is
// filled in.
func (s *Sender) Send(event *Event) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.endpoints) == 0 {
		return
	}
	now := s.cfg.Now()
	filled := *event
	filled.ID = cmp.Or(filled.ID, uuid.NewString())
	if filled.Timestamp.IsZero() {
		filled.Timestamp = now.UTC()
	}
	if filled.Source == (Source{}) {
		filled.Source = Source{Addr: s.cfg.Addr, InstanceID: s.instance}
	}
	body, err := json.Marshal(Envelope{Events: []Event{filled}})
	if err != nil { // a time outside of years 0 to 9999
		s.cfg.Logger.Error("an event has no JSON form", "error", err)
		return
	}
	for _, e := range s.endpoints {
		switch {
		case e.ignores(&filled):
		case s.closed:
			e.drop(ReasonShutdown)
		default:
			e.queue(&delivery{body: body, id: filled.ID, queued: now})
		}
	}
}

// Close takes no more events, and sends those that wait until ctx ends; what
// was not sent by then is dropped, and said in the error.
func (s *Sender) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for _, e := range s.endpoints {
		close(e.waiting)
	}
	s.mu.Unlock()
	sent := make(chan struct{})
	go func() {
		s.work.Wait()
		close(sent)
	}()
	select {
	case <-sent:
	case <-ctx.Done():
	}
	s.cancel()
	<-sent
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
	var problems []error
	for _, e := range s.endpoints {
		if n := e.unsent; n > 0 {
			problems = append(problems, fmt.Errorf("%d events for endpoint %q were not sent", n, e.Name))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("ending the sending of events: %w", errors.Join(problems...))
	}
	return nil
}
