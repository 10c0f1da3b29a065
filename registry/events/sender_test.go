package events_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entrepot/registry"
	"entrepot/registry/events"
	"entrepot/registry/filestore"
	"entrepot/registry/origin"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hook is a webhook without a connection. It answers 200 unless it has
// something else to answer.
type hook struct {
	start time.Time

	mu       sync.Mutex
	answers  []func(r *http.Request) (*http.Response, error)
	requests []string // when, and the event's actor
	headers  http.Header
	bodies   []string
}

func (h *hook) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var envelope events.Envelope
	if err := json.Unmarshal(body, &envelope); err != nil || len(envelope.Events) != 1 {
		return nil, fmt.Errorf("envelope %s: %w", body, err)
	}
	h.mu.Lock()
	h.requests = append(h.requests, fmt.Sprintf("%v %s", time.Since(h.start), envelope.Events[0].Actor.Name))
	h.bodies, h.headers = append(h.bodies, string(body)), r.Header
	answer := status(http.StatusOK)
	if len(h.answers) > 0 {
		answer = h.answers[0]
		h.answers = h.answers[1:]
	}
	h.mu.Unlock()
	return answer(r)
}

func (h *hook) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

func status(code int, headers ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		for _, header := range headers {
			name, value, _ := strings.Cut(header, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
		return w.Result(), nil
	}
}

func times[T any](n int, of T) []T { return slices.Repeat([]T{of}, n) }

// hang answers when the request is given up.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// counts is metrics that add up.
type counts struct {
	mu     sync.Mutex
	queued int
	lines  map[string]int
}

func (c *counts) add(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines == nil {
		c.lines = map[string]int{}
	}
	c.lines[line]++
}

func (c *counts) Queued(_ string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queued = n
}
func (c *counts) Delivered(e string)                { c.add(e + " delivered") }
func (c *counts) Failed(e string)                   { c.add(e + " failed") }
func (c *counts) Dropped(e string, r events.Reason) { c.add(e + " dropped: " + string(r)) }

func (c *counts) of(line string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[line]
}

type rig struct {
	*events.Sender
	hook   *hook
	counts *counts
	log    *bytes.Buffer
}

// newRig has a sender with one endpoint named "hook". Within synctest, the log
// is read when nothing runs.
func newRig(t *testing.T, e events.Endpoint, answers ...func(*http.Request) (*http.Response, error)) *rig {
	t.Helper()
	r := &rig{hook: &hook{start: time.Now(), answers: answers}, counts: &counts{}, log: &bytes.Buffer{}}
	e.Name = "hook"
	if e.URL == "" {
		e.URL = "https://hooks.example.org/secret-path?token=secret"
	}
	s, err := events.New(events.Config{
		Endpoints: []events.Endpoint{e}, Addr: "origin:5001", RegistryURL: "https://origin.example.org/", FilesURL: "https://origin.example.org/files",
		Metrics: r.counts, Transport: r.hook, Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Sender = s
	return r
}

func (r *rig) send(names ...string) {
	for _, name := range names {
		r.Send(&events.Event{Action: events.ActionPush, Actor: events.Actor{Name: name}})
	}
}

func (r *rig) close(t *testing.T) {
	t.Helper()
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func wantRequests(t *testing.T, h *hook, want ...string) {
	t.Helper()
	if got := h.seen(); !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
}

func TestEventsComeInOrderEachInAnEnvelope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{Headers: http.Header{"authorization": {"Bearer secret"}, "content-type": {"text/plain"}}})
		r.send("a", "b", "c")
		r.close(t)
		wantRequests(t, r.hook, "0s a", "0s b", "0s c")
		if got := r.hook.headers; got.Get("Authorization") != "Bearer secret" || got.Get("Content-Type") != "application/vnd.docker.distribution.events.v1+json" {
			t.Errorf("headers %v", got)
		}
		if r.counts.of("hook delivered") != 3 || r.counts.queued != 0 {
			t.Errorf("counted %v, %d wait", r.counts.lines, r.counts.queued)
		}
	})
}

func TestAFailedDeliveryIsTriedAgainFurtherAndFurtherApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unreachable := func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") }
		r := newRig(t, events.Endpoint{Threshold: 3, Backoff: 8 * time.Second},
			status(500), status(401), unreachable, status(503), status(404))
		r.send("a", "b")
		r.close(t)
		wantRequests(t, r.hook, "0s a", "2s a", "6s a", "14s a", "22s a", "30s a", "30s b")
		if r.counts.of("hook failed") != 5 || r.counts.of("hook delivered") != 2 {
			t.Errorf("counted %v", r.counts.lines)
		}
		log := r.log.String()
		if strings.Count(log, "an endpoint fails") != 1 || strings.Count(log, "works again") != 1 {
			t.Errorf("logged %s", log)
		}
	})
}

func TestAnEndpointCanAskToBeLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{Backoff: 16 * time.Second}, status(429, "Retry-After: 60"), status(503, "Retry-After: 99999999"), status(429, "Retry-After: soon"))
		r.send("a")
		r.close(t)
		wantRequests(t, r.hook, "0s a", "1m0s a", "11m0s a", "11m4s a")
	})
}

func TestADeliveryThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{Timeout: 3 * time.Second, Threshold: 1, Backoff: time.Second}, hang)
		r.send("a")
		r.close(t)
		wantRequests(t, r.hook, "0s a", "4s a")
	})
}

func TestAnEventThatIsTooOldIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{Threshold: 1, Backoff: 10 * time.Second, MaxAge: 25 * time.Second}, times(3, status(500))...)
		r.send("a")
		time.Sleep(20 * time.Second)
		r.send("b")
		r.close(t)
		wantRequests(t, r.hook, "0s a", "10s a", "20s a", "30s b")
		if r.counts.of("hook dropped: old") != 1 || !strings.Contains(r.log.String(), "could not be delivered") {
			t.Errorf("counted %v, logged %s", r.counts.lines, r.log)
		}
	})
}

func TestAnEventThatTheEndpointRefusesDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{}, status(400), status(413), status(415), status(422))
		r.send("a", "b", "c", "d", "e")
		r.close(t)
		wantRequests(t, r.hook, "0s a", "0s b", "0s c", "0s d", "0s e")
		if r.counts.of("hook dropped: refused") != 4 || strings.Count(r.log.String(), "does not take it") != 1 {
			t.Errorf("counted %v, logged %s", r.counts.lines, r.log)
		}
	})
}

func TestARedirectIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{Threshold: 1, Backoff: time.Second, Headers: http.Header{"Authorization": {"secret"}}},
			status(302, "Location: https://elsewhere.example.org/"))
		r.send("a")
		r.close(t)
		wantRequests(t, r.hook, "0s a", "1s a")
		if log := r.log.String(); !strings.Contains(log, "redirects (status 302)") {
			t.Errorf("logged %s", log)
		}
	})
}

func TestSecretsOfAnEndpointAreNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{URL: "https://user:secret@hooks.example.org/secret?token=secret", Threshold: 1, Backoff: time.Second},
			func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }, status(500), hang)
		r.send("a")
		r.close(t)
		if log := r.log.String(); strings.Contains(log, "secret") || !strings.Contains(log, "refused") {
			t.Errorf("logged %s", log)
		}
	})
}

func TestAFullQueueDropsAndDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{Queue: 2, Timeout: time.Minute}, hang)
		r.send("a")
		synctest.Wait() // it is being sent
		r.send("b", "c", "d", "e")
		if took := time.Since(r.hook.start); took != 0 {
			t.Errorf("sending waited for %v", took)
		}
		r.close(t)
		if n := r.counts.of("hook dropped: full"); n != 2 || strings.Count(r.log.String(), "as many wait as may") != 1 {
			t.Errorf("counted %v, logged %s", r.counts.lines, r.log)
		}
		got := r.hook.seen()
		if !strings.HasSuffix(got[len(got)-1], " c") || r.counts.of("hook delivered") != 3 {
			t.Errorf("requests %q", got)
		}
	})
}

func TestAtTheEndWhatWaitsIsSentWithinTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{Threshold: 1, Backoff: 10 * time.Second}, append([]func(*http.Request) (*http.Response, error){status(500), status(200)}, times(9, status(500))...)...)
		r.send("a", "b", "c")
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		err := r.Close(ctx)
		if err == nil || err.Error() != `ending the sending of events: 2 events for endpoint "hook" were not sent` {
			t.Errorf("got %v", err)
		}
		if took := time.Since(r.hook.start); took != 15*time.Second {
			t.Errorf("closing took %v", took)
		}
		wantRequests(t, r.hook, "0s a", "10s a", "10s b")
		r.send("late")
		if n := r.counts.of("hook dropped: shutdown"); n != 3 {
			t.Errorf("counted %v", r.counts.lines)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
}

func TestWhatIsIgnoredIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{IgnoreMediaTypes: []string{"application/octet-stream"}, IgnoreActions: []string{"delete"}})
		for _, e := range []struct{ name, action, mediaType string }{
			{"blob", "push", "application/octet-stream"}, {"manifest", "push", ocispec.MediaTypeImageManifest}, {"deleted", "delete", ocispec.MediaTypeImageManifest},
		} {
			r.Send(&events.Event{Action: e.action, Actor: events.Actor{Name: e.name}, Target: events.Target{Descriptor: ocispec.Descriptor{MediaType: e.mediaType}}})
		}
		r.close(t)
		wantRequests(t, r.hook, "0s manifest")
	})
}

func TestOneEndpointDoesNotHoldUpAnother(t *testing.T) {
	var delivered sync.WaitGroup
	delivered.Add(3)
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { delivered.Done() }))
	defer good.Close()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer bad.Close()
	s, err := events.New(events.Config{Endpoints: []events.Endpoint{{Name: "bad", URL: bad.URL}, {Name: "good", URL: good.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.Send(&events.Event{})
	}
	delivered.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), `3 events for endpoint "bad"`) {
		t.Errorf("got %v", err)
	}
}

func TestWithoutEndpointsNothingHappens(t *testing.T) {
	s, err := events.New(events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.Send(&events.Event{})
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEveryProblemOfTheEndpointsIsNamed(t *testing.T) {
	_, err := events.New(events.Config{Endpoints: []events.Endpoint{
		{Name: "a", URL: "hooks.example.org:secret"}, {Name: "a", URL: "https://hooks.example.org", Timeout: -1}, {URL: "http://x"}, {Name: "b", URL: "ftp://x:secret@y"},
	}})
	const want = `reading whom to send events to: endpoint 1 ("a"): its URL is not one such as https://hooks.example.org/registry
endpoint 2 ("a"): its timeout is negative
endpoint 2: there is another of the name "a"
endpoint 3 (""): it has no name
endpoint 4 ("b"): its URL is not one such as https://hooks.example.org/registry`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestWhatAnEnvelopeSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, events.Endpoint{})
		d := digest.FromString("x")
		caller := registry.Caller{Identity: "promoter", Address: "10.0.0.1:1", Host: "origin.example.org", Method: "PUT", UserAgent: "crane/1", RequestID: "12ab"}
		manifest := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 7}
		blob := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: 9}
		r.Registry().Pushed(origin.Event{Repository: "a/b", Descriptor: manifest, Tag: "v1", Caller: caller})
		r.Registry().Pushed(origin.Event{Repository: "a/b", Descriptor: blob, From: "c/d", Mounted: true, Caller: caller})
		r.Registry().Deleted(origin.Event{Repository: "a/b", Descriptor: manifest, Tag: "v1", Caller: caller})
		file := filestore.Event{Path: "r/ké", Digest: d, Size: 5, ContentType: "text/plain", Caller: caller}
		r.Files().Pushed(file)
		r.Files().Deleted(file)
		r.close(t)
		request := `"request":{"id":"12ab","addr":"10.0.0.1:1","host":"origin.example.org","method":"PUT","useragent":"crane/1"},"actor":{"name":"promoter"}`
		for i, want := range []string{
			`"action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(d) + `","size":7,"length":7,` +
				`"repository":"a/b","url":"https://origin.example.org/v2/a/b/manifests/` + string(d) + `","tag":"v1"},` + request,
			`"action":"mount","target":{"mediaType":"application/octet-stream","digest":"` + string(d) + `","size":9,"length":9,` +
				`"repository":"a/b","fromRepository":"c/d","url":"https://origin.example.org/v2/a/b/blobs/` + string(d) + `"},` + request,
			`"action":"delete","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(d) + `","size":7,"length":7,` +
				`"repository":"a/b","tag":"v1"},` + request,
			`"action":"push","target":{"mediaType":"text/plain","digest":"` + string(d) + `","size":5,` +
				`"annotations":{"org.opencontainers.image.title":"r/ké"},"length":5,"url":"https://origin.example.org/files/r/k%C3%A9"},` + request,
			`"action":"delete","target":{"mediaType":"text/plain","digest":"` + string(d) + `","size":5,` +
				`"annotations":{"org.opencontainers.image.title":"r/ké"},"length":5},` + request,
		} {
			if !strings.Contains(r.hook.bodies[i], want) {
				t.Errorf("got  %s\nwant …%s…", r.hook.bodies[i], want)
			}
		}
		var first, second events.Envelope
		if err := errors.Join(json.Unmarshal([]byte(r.hook.bodies[0]), &first), json.Unmarshal([]byte(r.hook.bodies[1]), &second)); err != nil {
			t.Fatal(err)
		}
		a, b := first.Events[0], second.Events[0]
		if a.ID == "" || a.ID == b.ID || !a.Timestamp.Equal(r.hook.start) || a.Source.Addr != "origin:5001" || a.Source.InstanceID == "" || a.Source != b.Source {
			t.Errorf("got %+v and %+v", a, b)
		}
	})
}
