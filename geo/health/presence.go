package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"entrepot/geo/choice"

	"golang.org/x/sync/singleflight"
)

// How long and how much a [Presence] remembers, unless configured.
const (
	DefaultFoundFor  = 24 * time.Hour
	DefaultAbsentFor = 30 * time.Second
	DefaultAskWithin = 300 * time.Millisecond
	DefaultRemember  = 1 << 18
)

// PresenceConfig configures a [Presence]. Zero values mean the defaults.
type PresenceConfig struct {
	Client *http.Client
	// FoundFor and AbsentFor are how long an answer holds. AskWithin bounds a
	// question: after it the next mirror is taken.
	FoundFor, AbsentFor, AskWithin time.Duration
	// Remember bounds the answers that are kept, about 200 bytes for each.
	Remember int
}

// Presence asks mirrors whether they have content, and how large it is. It is safe
// for concurrent use.
type Presence struct {
	cfg     PresenceConfig
	flights singleflight.Group

	mu sync.Mutex
	// Two generations bound what is kept: when young is full it becomes old, and
	// what was old is forgotten. Answers in use move to young.
	young, old map[string]answer
}

// answer is what a mirror said.
type answer struct {
	has   bool
	size  int64 // bytes; negative when it did not say
	until time.Time
}

// NewPresence makes a presence that remembers nothing yet.
func NewPresence(cfg PresenceConfig) *Presence {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&cfg.FoundFor, DefaultFoundFor)
	set(&cfg.AbsentFor, DefaultAbsentFor)
	set(&cfg.AskWithin, DefaultAskWithin)
	if cfg.Remember == 0 {
		cfg.Remember = DefaultRemember
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{}
	}
	return &Presence{cfg: cfg, young: map[string]answer{}}
}

// Has says whether a mirror has what a target means. However many ask, the mirror
// is asked once. An error says that it did not tell in time; it is not remembered.
func (p *Presence) Has(ctx context.Context, m *choice.Mirror, secure bool, t *choice.Target) (bool, error) {
	a, err := p.answer(ctx, m.Location(secure, t))
	return a.has, err
}

// Size is how large a target is at a mirror, in bytes; negative when the mirror
// lacks it or does not say. Errors are those of [Presence.Has].
func (p *Presence) Size(ctx context.Context, m *choice.Mirror, t *choice.Target) (int64, error) {
	a, err := p.answer(ctx, m.Location(false, t))
	if err != nil || !a.has {
		return -1, err
	}
	return a.size, nil
}

func (p *Presence) answer(ctx context.Context, location string) (answer, error) {
	if location == "" {
		return answer{}, nil
	}
	if a, ok := p.recall(location); ok {
		return a, nil
	}
	// The question outlives who asked first: others wait for it.
	asking := context.WithoutCancel(ctx)
	result := p.flights.DoChan(location, func() (any, error) {
		bounded, cancel := context.WithTimeout(asking, p.cfg.AskWithin)
		defer cancel()
		a, err := p.ask(bounded, location)
		if err == nil {
			p.remember(location, &a)
		}
		return a, err
	})
	select {
	case r := <-result:
		return r.Val.(answer), r.Err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// ask sends the question.
func (p *Presence) ask(ctx context.Context, location string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, location, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	resp, err := p.cfg.Client.Do(req)
	if err != nil {
		return answer{}, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return answer{has: true, size: resp.ContentLength}, nil
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden:
		return answer{}, nil // a bucket that nobody may list says 403 of what is not there
	}
	return answer{}, fmt.Errorf("asking for %s: %w", location, errors.New(resp.Status))
}

func (p *Presence) recall(location string) (answer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.young[location]
	if !ok {
		if a, ok = p.old[location]; ok {
			p.keep(location, a)
		}
	}
	return a, ok && time.Now().Before(a.until)
}

func (p *Presence) remember(location string, a *answer) {
	holds := p.cfg.AbsentFor
	if a.has {
		holds = p.cfg.FoundFor
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a.until = time.Now().Add(holds)
	p.keep(location, *a)
}

func (p *Presence) keep(location string, a answer) {
	if len(p.young) >= p.cfg.Remember/2 {
		p.old, p.young = p.young, map[string]answer{}
	}
	p.young[location] = a
}
