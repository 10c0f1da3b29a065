package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"entrepot/geo/choice"
	"entrepot/registry/reach"
)

// How long and how much a [Presence] remembers, unless configured.
const (
	DefaultFoundFor  = 24 * time.Hour
	DefaultAbsentFor = 30 * time.Second
	DefaultAskWithin = 300 * time.Millisecond
	DefaultRemember  = 1 << 18
)

const (
	// answerWithin is how long a mirror may take to answer: who asked did not wait
	// so long, but who comes next finds the answer.
	answerWithin = 5 * time.Second
	// maxQuestions bounds those that are not answered yet: requests for content that
	// nobody has must not become as many to mirrors.
	maxQuestions = 256
)

// errUnanswered says that a mirror did not tell in time whether it has content.
var errUnanswered = errors.New("it did not say in time what it has")

// PresenceConfig configures a [Presence]. Zero values mean the defaults.
type PresenceConfig struct {
	Client *http.Client
	// RedirectHosts are those of [Config].
	RedirectHosts []string
	// FoundFor and AbsentFor are how long an answer holds. AskWithin bounds the wait
	// for one: after it the next mirror is taken.
	FoundFor, AbsentFor, AskWithin time.Duration
	// Remember bounds the answers that are kept, about 200 bytes for each.
	Remember int
}

// Presence asks mirrors whether they have content, and how large it is. It is safe
// for concurrent use.
type Presence struct {
	cfg     PresenceConfig
	ctx     context.Context // of questions: they outlive who asked
	end     context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	asking map[string]*question
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

// question is one that was not answered yet.
type question struct {
	since  time.Time
	done   chan struct{} // closed when answer and err hold
	answer answer
	err    error
	then   []func(size int64)
}

// NewPresence makes a presence that remembers nothing yet. It is to be closed.
func NewPresence(cfg PresenceConfig) *Presence {
	cfg.FoundFor, cfg.AbsentFor = cmp.Or(cfg.FoundFor, DefaultFoundFor), cmp.Or(cfg.AbsentFor, DefaultAbsentFor)
	cfg.AskWithin, cfg.Remember = cmp.Or(cfg.AskWithin, DefaultAskWithin), cmp.Or(cfg.Remember, DefaultRemember)
	if cfg.Client == nil {
		cfg.Client = reach.NewClient()
	}
	p := &Presence{cfg: cfg, young: map[string]answer{}, asking: map[string]*question{}}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// Close ends all questions. Nothing may be asked any more.
func (p *Presence) Close() {
	p.end()
	p.running.Wait()
}

// Has says whether a mirror has what a target means. However many ask, the mirror
// is asked once. An error says that it did not tell in time.
func (p *Presence) Has(ctx context.Context, m *choice.Mirror, secure bool, t *choice.Target) (bool, error) {
	a, err := p.answer(ctx, m, m.Location(secure, t))
	return a.has, err
}

// Size is how large a target is at a mirror, in bytes; negative when the mirror
// lacks it or does not say. Errors are those of [Presence.Has].
func (p *Presence) Size(ctx context.Context, m *choice.Mirror, t *choice.Target) (int64, error) {
	a, err := p.answer(ctx, m, m.Location(false, t))
	if err != nil || !a.has {
		return -1, err
	}
	return a.size, nil
}

// Tell calls then with the size of a target at a mirror: now when it is known, else
// from another goroutine when the mirror says so. It is not called when the mirror
// lacks the target, or does not say.
func (p *Presence) Tell(m *choice.Mirror, t *choice.Target, then func(size int64)) {
	location := m.Location(false, t)
	if location == "" {
		return
	}
	p.mu.Lock()
	a, known := p.recall(location)
	if !known {
		if q := p.question(m, location); q != nil {
			q.then = append(q.then, then)
		}
	}
	p.mu.Unlock()
	if known && a.has && a.size >= 0 {
		then(a.size)
	}
}

// answer waits for what a mirror says, but not for long.
func (p *Presence) answer(ctx context.Context, m *choice.Mirror, location string) (answer, error) {
	if location == "" {
		return answer{}, nil
	}
	p.mu.Lock()
	a, known := p.recall(location)
	var q *question
	if !known {
		q = p.question(m, location) //nolint:contextcheck // it outlives who asked: others wait for it
	}
	p.mu.Unlock()
	if known {
		return a, nil
	}
	if q == nil {
		return answer{}, fmt.Errorf("asking for %s: too many questions are not answered yet", location)
	}
	patience := time.NewTimer(time.Until(q.since.Add(p.cfg.AskWithin)))
	defer patience.Stop()
	select {
	case <-q.done:
		return q.answer, q.err
	case <-patience.C:
		return answer{}, fmt.Errorf("asking for %s: %w", location, errUnanswered)
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// question is the one that is asked already, or a new one; nil when there are too
// many. The caller holds mu.
func (p *Presence) question(m *choice.Mirror, location string) *question {
	if q := p.asking[location]; q != nil {
		return q
	}
	if len(p.asking) >= maxQuestions || p.ctx.Err() != nil {
		return nil
	}
	q := &question{since: time.Now(), done: make(chan struct{})}
	p.asking[location] = q
	p.running.Go(func() {
		q.answer, q.err = p.ask(m, location)
		p.mu.Lock()
		delete(p.asking, location)
		if q.err == nil {
			p.remember(location, &q.answer)
		}
		then := q.then
		p.mu.Unlock()
		close(q.done)
		if q.err == nil && q.answer.has && q.answer.size >= 0 {
			for _, f := range then {
				f(q.answer.size)
			}
		}
	})
	return q
}

// ask sends the question.
func (p *Presence) ask(m *choice.Mirror, location string) (answer, error) {
	ctx, cancel := context.WithTimeout(p.ctx, answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, location, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Accept", acceptAll)
	resp, err := following(p.cfg.Client, m, p.cfg.RedirectHosts).Do(req)
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

// recall is what is known of a location. The caller holds mu, as of remember and
// keep.
func (p *Presence) recall(location string) (answer, bool) {
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
	a.until = time.Now().Add(holds)
	p.keep(location, *a)
}

func (p *Presence) keep(location string, a answer) {
	if len(p.young) >= p.cfg.Remember/2 {
		p.old, p.young = p.young, map[string]answer{}
	}
	p.young[location] = a
}
