package geo

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"entrepot/geo/choice"
)

const (
	// viewEvery is how often states and loads are taken into a new view.
	viewEvery = time.Second
	// loadOver is the time over which the load of a mirror is averaged.
	loadOver = 10 * time.Second
)

// view is the mirrors with their states at one time. It does not change.
type view struct {
	list   *choice.List
	states []choice.State
	loads  []*load // by index, kept by name from view to view
	sizes  bool    // it matters how large blobs are
}

// load is what a mirror was sent lately.
type load struct {
	name      string
	announced atomic.Int64 // bytes, since the last view
	rate      float64      // bytes a second, averaged; only refresh has it
	metrics   *mirrorMetrics
}

// redirected counts that a client was sent there.
func (l *load) redirected(to *choice.Mirror, q *choice.Query, size int64) {
	l.announced.Add(size)
	l.metrics.redirected(to, q, size)
}

// refresh makes a new view of the mirrors. after is the time since the last one.
func (rt *Router) refresh(after time.Duration) {
	rt.refreshing.Lock()
	defer rt.refreshing.Unlock()
	list, states := rt.cfg.Mirrors()
	old := rt.view.Load()
	v := &view{list: list, states: slices.Clone(states), loads: make([]*load, list.Len()), sizes: list.NeedsSizes()}
	share := min(1, after.Seconds()/loadOver.Seconds())
	for i := range v.loads {
		m := list.Mirror(i)
		l := rt.loadOf(old, m.Name)
		if after > 0 {
			l.rate += share * (float64(l.announced.Swap(0))/after.Seconds() - l.rate)
		}
		capacity := m.Capacity
		if capacity == 0 {
			capacity = choice.DefaultCapacity
		}
		v.states[i].Load = l.rate * 8 / float64(capacity)
		v.loads[i] = l
	}
	rt.view.Store(v)
}

// loadOf is the load of a mirror as an older view has it, if there is one.
func (rt *Router) loadOf(old *view, name string) *load {
	if old != nil {
		for _, l := range old.loads {
			if l.name == name {
				return l
			}
		}
	}
	return &load{name: name, metrics: rt.metrics.of(name)}
}

// Refresh takes a changed list of mirrors into use now. [Router.Run] does so
// every second.
func (rt *Router) Refresh() { rt.refresh(0) }

// Run keeps the states and loads of the mirrors up to date until ctx ends.
func (rt *Router) Run(ctx context.Context) {
	tick := time.NewTicker(viewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			rt.refresh(viewEvery)
		}
	}
}
