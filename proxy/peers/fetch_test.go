package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// giver is a peer with content of a hundred bytes, and a group that asks it.
func giver(t *testing.T, deadline time.Duration, have int64, content http.HandlerFunc) (g *Group, p *Peer) {
	t.Helper()
	of := newGroup(t, Config{ID: "b", Progress: func(context.Context, digest.Digest) int64 { return have }})
	s := httptest.NewServer(of.Handler(content))
	t.Cleanup(s.Close)
	g = newGroup(t, Config{ID: "a", URLs: []string{s.URL}, Deadline: deadline})
	p = g.members()[0]
	g.greet(t.Context(), p)
	if g.Count(true) != 1 {
		t.Fatal("the peer is not up")
	}
	return g, p
}

func someDigest() digest.Digest { return digest.FromString("some content") }

// stuck sends ten bytes of a hundred, and then nothing.
func stuck(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, "0123456789")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func TestPeerThatDoesNotSendWhatItHasIsGivenUpAfterTheDeadline(t *testing.T) {
	const deadline = 400 * time.Millisecond
	g, p := giver(t, deadline, 100, stuck)
	start := time.Now()
	body, total, _, err := g.Open(t.Context(), p, &Request{URI: "/x", Digest: someDigest()})
	if err != nil || total != 100 {
		t.Fatal(total, err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if len(got) != 10 || err == nil {
		t.Errorf("%q, %v", got, err)
	}
	if took := time.Since(start); took < deadline/2 || took > patience/2 {
		t.Errorf("it took %v", took)
	}
	if g.Count(true) != 0 {
		t.Error("the peer counts as up")
	}
}

func TestPeerThatHasNoMoreYetIsWaitedFor(t *testing.T) {
	const deadline = 2 * time.Second
	more := make(chan struct{})
	g, p := giver(t, deadline, 10, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "20")
		_, _ = io.WriteString(w, "0123456789")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "0123456789")
	})
	time.AfterFunc(2*deadline, func() { close(more) })
	body, _, _, err := g.Open(t.Context(), p, &Request{URI: "/x", Digest: someDigest()})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); len(got) != 20 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPeerThatDoesNotAnswerItsRequestIsGivenUpAfterTheDeadline(t *testing.T) {
	const deadline = 400 * time.Millisecond
	g, p := giver(t, deadline, 100, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	start := time.Now()
	_, _, _, err := g.Open(t.Context(), p, &Request{URI: "/x", Digest: someDigest()})
	var refused *RefusedError
	if err == nil || errors.As(err, &refused) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("it took %v", took)
	}
}

func TestAnswerOfAPeerThatIsNotWhatWasAskedForIsRefused(t *testing.T) {
	answer := func(status int, contentRange string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "0123456789")
		}
	}
	for name, c := range map[string]struct {
		offset, length int64
		content        http.HandlerFunc
		total          int64 // negative where it is refused
	}{
		"all":                       {0, 0, answer(200, ""), 10},
		"the end":                   {90, 0, answer(206, "bytes 90-99/100"), 100},
		"a part":                    {10, 10, answer(206, "bytes 10-19/100"), 100},
		"a part where all is asked": {0, 0, answer(206, "bytes 0-9/100"), -1},
		"all where a part is asked": {10, 0, answer(200, ""), -1},
		"another part":              {10, 0, answer(206, "bytes 20-29/100"), -1},
		"a part of nothing known":   {10, 0, answer(206, "bytes 10-19/*"), -1},
		"an unnamed part":           {10, 0, answer(206, ""), -1},
		"a redirect":                {0, 0, answer(307, ""), -1},
		"nothing":                   {0, 0, answer(404, ""), -1},
		"nothing at hand":           {0, 0, answer(504, ""), -1},
	} {
		t.Run(name, func(t *testing.T) {
			g, p := giver(t, 20*time.Second, 0, c.content)
			body, total, _, err := g.Open(t.Context(), p, &Request{URI: "/x", Digest: someDigest(), Offset: c.offset, Length: c.length})
			var refused *RefusedError
			switch {
			case c.total < 0 && !errors.As(err, &refused):
				t.Errorf("error %v; want it refused", err)
			case c.total >= 0 && (err != nil || total != c.total):
				t.Errorf("total %d, %v", total, err)
			case err == nil:
				got, err := io.ReadAll(body)
				if string(got) != "0123456789" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				_ = body.Close()
			}
			if g.Count(true) != 1 {
				t.Error("the peer is left alone, though it answers")
			}
		})
	}
}

func TestPeerThatFailsRestsLongerEachTimeUntilItGives(t *testing.T) {
	g := newGroup(t, Config{ID: "a", URLs: []string{"http://127.0.0.1:1"}})
	p := g.members()[0]
	now := time.Now()
	var rests []string
	for range 4 {
		p.failed(errors.New("refused"), now, time.Second)
		rests = append(rests, fmt.Sprint(p.due.Sub(now)))
	}
	p.gave()
	p.failed(errors.New("refused"), now, time.Second)
	rests = append(rests, fmt.Sprint(p.due.Sub(now)))
	if got, want := strings.Join(rests, " "), "250ms 500ms 1s 1s 250ms"; got != want {
		t.Errorf("it rests %s; want %s", got, want)
	}
}
