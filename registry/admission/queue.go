package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Busy is why a [Queue] refused a place.
type Busy struct {
	What string // is scarce, in the plural: "downloads from upstream"
	// Share says that the client is over its own share, others are not refused.
	Share bool
	// Waited is how long it waited; 0 when too many wait already.
	Waited     time.Duration
	RetryAfter time.Duration // when it is worth another try
}

func (e *Busy) Error() string {
	switch {
	case e.Waited > 0:
		return fmt.Sprintf("all %s were taken for %v", e.What, e.Waited.Round(time.Millisecond))
	case e.Share:
		return fmt.Sprintf("too many of this client's requests wait for %s", e.What)
	}
	return fmt.Sprintf("too many requests wait for %s", e.What)
}

// queueRetry is when a client whom a queue refused should come back.
const queueRetry = 5 * time.Second

// QueueConfig configures a [Queue].
type QueueConfig struct {
	What     string        // is scarce, for messages
	Places   int           // that can be taken at once
	Waiting  int           // that may wait for one; 0 means without limit
	Patience time.Duration // for which one may wait; 0 means without limit
}

// Queue hands out places fairly: each client has a line of its own, and the lines
// take turns, so that one who wants a thousand places delays one who wants a
// single one by the time of one. It is safe for concurrent use.
type Queue struct {
	cfg QueueConfig

	mu      sync.Mutex
	free    int
	waiting int
	lines   map[Client]*line
	turns   []*line // with somebody in them; whose turn it is comes first
	stats   QueueStats
}

// QueueStats is the state of a queue.
type QueueStats struct {
	Taken, Waiting int
	// Refused since the start: of who was over its share, of whom none was left
	// to wait in, and who had waited for too long.
	RefusedShare, RefusedFull, RefusedLate uint64
}

// line is what a client has and wants.
type line struct {
	client  Client
	taken   int
	waiting int
	waiters []*waiter // in their order; some may be over
	inTurns bool
}

// waiter is a party that waits, in the lines of all its clients.
type waiter struct {
	served chan struct{}
	over   bool    // it was served, or gave up
	by     *line   // that served it
	in     []*line // in which it waits
}

// NewQueue makes a queue of free places.
func NewQueue(cfg QueueConfig) *Queue {
	return &Queue{cfg: cfg, free: cfg.Places, lines: make(map[Client]*line)}
}

// Acquire takes a place for the clients that ctx counts for, and returns what gives
// it back. Errors: [*Busy], and the end of ctx.
func (q *Queue) Acquire(ctx context.Context) (release func(), err error) {
	p := partyOf(ctx)
	p.mu.Lock()
	patient := ctx.Value(patienceKey{}) != nil
	l, w, err := q.enter(p.clients, patient)
	if w != nil {
		p.queue, p.waiter = q, w
	}
	p.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case l != nil:
		return func() { q.release(l) }, nil
	}
	defer func() {
		p.mu.Lock()
		p.queue, p.waiter = nil, nil
		p.mu.Unlock()
	}()
	var late <-chan time.Time
	if q.cfg.Patience > 0 && !patient {
		timer := time.NewTimer(q.cfg.Patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-w.served:
		return func() { q.release(w.by) }, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-late:
		err = &Busy{What: q.cfg.What, Waited: q.cfg.Patience, RetryAfter: queueRetry}
	}
	if _, late := errors.AsType[*Busy](err); !q.giveUp(w, late) { // served in this moment
		return func() { q.release(w.by) }, nil
	}
	return nil, err
}

// Stats tells the state of the queue.
func (q *Queue) Stats() QueueStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.Taken, s.Waiting = q.cfg.Places-q.free, q.waiting
	return s
}

// enter takes a place, or begins to wait in the lines of the clients.
func (q *Queue) enter(clients []Client, patient bool) (*line, *waiter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	room, fits := q.cfg.Waiting-q.waiting, q.cfg.Waiting == 0 || patient
	for _, c := range clients {
		var taken, waiting int
		if l := q.lines[c]; l != nil {
			taken, waiting = l.taken, l.waiting
		}
		// Who waits already has the first claim to what it may take.
		if q.free > 0 && waiting == 0 && mayTake(taken, q.free) {
			l := q.line(c)
			q.take(l)
			return l, nil, nil
		}
		fits = fits || mayTake(waiting, room)
	}
	switch {
	case !fits && room > 0:
		q.stats.RefusedShare++
		return nil, nil, &Busy{What: q.cfg.What, Share: true, RetryAfter: queueRetry}
	case !fits:
		q.stats.RefusedFull++
		return nil, nil, &Busy{What: q.cfg.What, RetryAfter: queueRetry}
	}
	w := &waiter{served: make(chan struct{})}
	q.waiting++
	for _, c := range clients {
		q.wait(w, c)
	}
	return nil, w, nil
}

// line is a client's. Call with mu held.
func (q *Queue) line(c Client) *line {
	l := q.lines[c]
	if l == nil {
		l = &line{client: c}
		q.lines[c] = l
	}
	return l
}

// tidy forgets a line that has nothing and wants nothing. Call with mu held.
func (q *Queue) tidy(l *line) {
	if l.taken == 0 && !l.inTurns {
		delete(q.lines, l.client)
	}
}

// take gives a place to a line. Call with mu held.
func (q *Queue) take(l *line) {
	l.taken++
	q.free--
}

// wait puts a waiter at the end of a client's line. Call with mu held.
func (q *Queue) wait(w *waiter, c Client) {
	l := q.line(c)
	l.waiters = append(l.waiters, w)
	l.waiting++
	w.in = append(w.in, l)
	if !l.inTurns {
		l.inTurns = true
		q.turns = append(q.turns, l)
	}
}

// addLine has one who waits wait in another client's line, too.
func (q *Queue) addLine(w *waiter, c Client) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.over {
		return
	}
	q.wait(w, c)
	q.serve() // that client may be entitled to what is free
}

// end notes that a waiter waits no more. Call with mu held.
func (q *Queue) end(w *waiter) {
	w.over = true
	q.waiting--
	for _, l := range w.in {
		l.waiting--
		if len(l.waiters) > 2*l.waiting+manyOver {
			l.waiters = slices.DeleteFunc(l.waiters, func(w *waiter) bool { return w.over })
		}
	}
	w.in = nil
}

// manyOver is how many who wait no more a line may have besides as many as wait.
const manyOver = 16

// giveUp takes a waiter away; false says that it was served before.
func (q *Queue) giveUp(w *waiter, late bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.over {
		return false
	}
	q.end(w)
	if late {
		q.stats.RefusedLate++
	}
	if len(q.turns) > 2*q.waiting+manyOver {
		q.turns = slices.DeleteFunc(q.turns, func(l *line) bool {
			if l.waiting > 0 {
				return false
			}
			l.waiters, l.inTurns = nil, false
			q.tidy(l)
			return true
		})
	}
	return true
}

func (q *Queue) release(l *line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.taken--
	q.free++
	q.serve()
	q.tidy(l)
}

// serve gives free places to the lines whose turn it is. Call with mu held.
func (q *Queue) serve() {
	for passed := 0; q.free > 0 && passed < len(q.turns); {
		l := q.turns[0]
		q.turns = q.turns[1:]
		w := l.first()
		if w != nil && mayTake(l.taken, q.free) {
			q.take(l)
			w.by = l
			q.end(w)
			close(w.served)
			w, passed = l.first(), 0
		} else {
			passed++
		}
		if w == nil {
			l.waiters, l.inTurns = nil, false
			q.tidy(l)
			continue
		}
		q.turns = append(q.turns, l)
	}
}

// first is who has waited for the longest; nil when nobody waits.
func (l *line) first() *waiter {
	for len(l.waiters) > 0 && l.waiters[0].over {
		l.waiters[0] = nil
		l.waiters = l.waiters[1:]
	}
	if len(l.waiters) == 0 {
		return nil
	}
	return l.waiters[0]
}
