package transfer

import (
	"context"
	"sync"
	"time"

	"entrepot/blobstore/pause"

	"golang.org/x/time/rate"
)

const (
	// firstPause, doubled by each further 429 up to lastPause, is for those
	// that do not say how long.
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// gate is how all of a client's work gets to one host. It bounds the requests
// that are under way, their rate, and keeps the pauses that the host asks for.
//
// A 429 halves how many requests may be under way, and every answer that is
// none adds a little (as TCP does): workers that go on at once after a pause
// would only be refused again.
type gate struct {
	most int
	rate *rate.Limiter // nil without a limit

	mu      sync.Mutex
	allowed float64 // 1 to most
	inside  int
	queue   []chan struct{} // of those that wait, first come first
	until   time.Time       // nobody enters before
	refused int             // 429 in a row
}

func newGate(most int, perSecond float64) *gate {
	g := &gate{most: most, allowed: float64(most)}
	if perSecond > 0 {
		g.rate = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/10)))
	}
	return g
}

// enter waits until a request may be made. Whoever entered leaves.
func (g *gate) enter(ctx context.Context) error {
	for {
		wait, turn := g.tryEnter(time.Now())
		switch {
		case turn != nil:
			select {
			case <-turn:
			case <-ctx.Done():
				g.giveUp(turn)
				return context.Cause(ctx)
			}
		case wait > 0:
			if err := pause.For(ctx, wait); err != nil {
				return err
			}
		default:
			if err := g.pace(ctx); err != nil {
				g.leave()
				return err
			}
			return nil
		}
	}
}

// tryEnter enters, or says how long to wait, or for what.
func (g *gate) tryEnter(now time.Time) (wait time.Duration, turn chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if wait = g.until.Sub(now); wait > 0 {
		return wait, nil
	}
	if g.inside >= int(g.allowed) {
		turn = make(chan struct{})
		g.queue = append(g.queue, turn)
		return 0, turn
	}
	g.inside++
	return 0, nil
}

// giveUp leaves the queue; a turn that came meanwhile goes to the next.
func (g *gate) giveUp(turn chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, waiting := range g.queue {
		if waiting == turn {
			g.queue = append(g.queue[:i], g.queue[i+1:]...)
			return
		}
	}
	g.wake()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.wake()
}

// wake lets as many of those in the queue try as there is room for.
func (g *gate) wake() {
	for room := int(g.allowed) - g.inside; room > 0 && len(g.queue) > 0; room-- {
		close(g.queue[0])
		g.queue = g.queue[1:]
	}
}

// pass waits as enter does, for a request that is bounded in another way.
func (g *gate) pass(ctx context.Context) error {
	for {
		g.mu.Lock()
		wait := time.Until(g.until)
		g.mu.Unlock()
		if wait <= 0 {
			return g.pace(ctx)
		}
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
}

func (g *gate) pace(ctx context.Context) error {
	if g.rate == nil {
		return nil
	}
	r := g.rate.Reserve()
	if err := pause.For(ctx, r.Delay()); err != nil {
		r.Cancel()
		return err
	}
	return nil
}

// limited reports a 429. It returns how long everybody waits now; retryAfter is
// 0 when the host did not say.
func (g *gate) limited(retryAfter time.Duration, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := max(0, g.until.Sub(now))
	if left == 0 { // else it is of a request that was under way
		g.refused++
		g.allowed = max(1, g.allowed/2)
	}
	if retryAfter <= 0 {
		retryAfter = min(firstPause<<min(max(g.refused-1, 0), 10), lastPause)
		if left > 0 {
			retryAfter = left
		}
	}
	if retryAfter > left {
		g.until = now.Add(retryAfter)
	}
	return g.until.Sub(now)
}

// busy reports that the host wants to be left alone for a while, as a 503 can.
func (g *gate) busy(retryAfter time.Duration, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until := now.Add(retryAfter); until.After(g.until) {
		g.until = until
	}
}

// well reports an answer.
func (g *gate) well() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = 0
	if g.allowed < float64(g.most) {
		g.allowed = min(float64(g.most), g.allowed+1/g.allowed)
		g.wake()
	}
}
