package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"entrepot/blobstore/pause"
)

// later is something that the player does at its time: the end of a fault, or another
// try of one.
type later struct {
	at time.Time
	do func()
}

// player does what a plan says.
type player struct {
	w       *world
	faults  []fault
	start   time.Time
	end     time.Time // after which nothing is begun
	pending []later
}

// tryAgain is after how long a fault is tried again that cannot be done now, such as to
// a process that is down already.
const tryAgain = time.Second

// play does what the plan says, and returns when the last fault is over.
func (w *world) play(plan []event, faults []fault, length time.Duration) {
	start := time.Now()
	p := &player{w: w, faults: faults, start: start, end: start.Add(length)}
	for _, e := range plan {
		p.until(start.Add(e.at))
		if w.t.Context().Err() != nil {
			return
		}
		p.inject(e)
	}
	for len(p.pending) > 0 && w.t.Context().Err() == nil {
		p.until(p.pending[0].at)
	}
}

// until does what is due until a time, and then it is that time.
func (p *player) until(t time.Time) {
	for len(p.pending) > 0 && !p.pending[0].at.After(t) && p.w.t.Context().Err() == nil {
		next := p.pending[0]
		p.pending = p.pending[1:]
		_ = pause.For(p.w.t.Context(), time.Until(next.at))
		next.do()
	}
	_ = pause.For(p.w.t.Context(), time.Until(t))
}

func (p *player) at(t time.Time, do func()) {
	p.pending = append(p.pending, later{t, do})
	slices.SortStableFunc(p.pending, func(a, b later) int { return a.at.Compare(b.at) })
}

// inject does a fault, and has it end in time.
func (p *player) inject(e event) {
	f := p.faults[slices.IndexFunc(p.faults, func(f fault) bool { return f.name == e.fault })]
	now := time.Now()
	undo, ok := f.inject(p.w, e)
	if !ok {
		if now.Add(tryAgain).Before(p.end) {
			p.at(now.Add(tryAgain), func() { p.inject(e) })
		} else {
			p.w.t.Logf("%6.1fs %s at %s cannot be done", now.Sub(p.start).Seconds(), e.fault, e.target)
		}
		return
	}
	p.w.tally.add("fault: "+e.fault, 1)
	p.w.t.Logf("%6.1fs %s at %s", now.Sub(p.start).Seconds(), e.fault, e.target)
	if undo == nil {
		return
	}
	over := now.Add(e.lasts)
	if over.After(p.end) {
		over = p.end
	}
	p.at(over, undo)
}

// load is the clients, until it is stopped.
type load struct {
	end     context.CancelFunc
	running sync.WaitGroup
	pusher  *pusher
}

func (w *world) startLoad(o options) *load {
	ctx, end := context.WithCancel(w.t.Context())
	l := &load{end: end, pusher: &pusher{
		origin: w.Origin.URL(), tally: w.tally, random: rand.New(rand.NewPCG(o.seed, 1000)),
	}}
	for n := range o.clients {
		r := newReader(w.t, w.tally, o.seed, uint64(n))
		r.servers, r.items, r.liar = w.urls, w.pick, w.liar
		l.running.Go(func() { r.run(ctx) })
	}
	l.running.Go(func() { l.pusher.run(ctx) })
	l.running.Go(func() { w.runPrograms(ctx, o.seed) })
	if w.daemon != nil {
		l.running.Go(func() { w.daemon.run(ctx, rand.New(rand.NewPCG(o.seed, 4000))) })
	}
	l.running.Go(func() { w.forgetRequests(ctx) })
	return l
}

func (l *load) stop() {
	l.end()
	l.running.Wait()
}

// pick is what a client asks for next.
func (w *world) pick(random *rand.Rand) item {
	if random.IntN(3) == 0 {
		return w.fresh.pick(random)
	}
	return w.catalog.pick(random)
}

// urls is where clients can ask for an item: at each node, and at the router as
// clients of each region.
func (w *world) urls(i item) []string {
	var urls []string
	for _, r := range w.Regions {
		urls = append(urls, w.links[r.Name+"-clients"].URL()+i.path)
		if i.routed != "" {
			urls = append(urls, w.forward[r.Name]+i.routed)
		}
	}
	return urls
}

// forgetRequests keeps what the world's taps remember small.
func (w *world) forgetRequests(ctx context.Context) {
	for pause.For(ctx, 5*time.Second) == nil {
		for _, r := range w.Regions {
			r.Door.Reset()
		}
		// And new releases are pulled, a while after their promotion: nodes look
		// at the ledger each second, where they can.
		w.catalog.add(w.takeAcked()...)
	}
}

// takeAcked is what was promoted since the last time.
func (w *world) takeAcked() []item {
	w.mu.Lock()
	defer w.mu.Unlock()
	acked := w.acked
	w.acked = nil
	return acked
}
