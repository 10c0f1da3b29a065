package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// undoing is the end of a fault that lasts.
type undoing struct {
	at time.Time
	do func()
}

// play does what the plan says, and returns when the last fault is over.
func (w *world) play(plan []event, faults []fault) {
	start := time.Now()
	var pending []undoing
	undoUntil := func(t time.Time) {
		for len(pending) > 0 && !pending[0].at.After(t) && w.t.Context().Err() == nil {
			u := pending[0]
			pending = pending[1:]
			_ = sleep(w.t.Context(), time.Until(u.at))
			u.do()
		}
		_ = sleep(w.t.Context(), time.Until(t))
	}
	for _, e := range plan {
		undoUntil(start.Add(e.at))
		if w.t.Context().Err() != nil {
			return
		}
		f := faults[slices.IndexFunc(faults, func(f fault) bool { return f.name == e.fault })]
		undo, ok := f.inject(w, e)
		if !ok {
			w.tally.add("skipped: "+e.fault, 1)
			continue
		}
		w.tally.add("fault: "+e.fault, 1)
		w.t.Logf("%6.1fs %s at %s", e.at.Seconds(), e.fault, e.target)
		if undo != nil {
			pending = append(pending, undoing{start.Add(e.at + e.lasts), undo})
			slices.SortStableFunc(pending, func(a, b undoing) int { return a.at.Compare(b.at) })
		}
	}
	if len(pending) > 0 {
		undoUntil(pending[len(pending)-1].at)
	}
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
	for sleep(ctx, 5*time.Second) == nil {
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
