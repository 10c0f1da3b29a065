package geo

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
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
	// sizesDecide says that it matters to who may serve a blob how large it is;
	// loadsDecide that there are several among whom loads do.
	sizesDecide, loadsDecide bool
}

// load is what a mirror was sent lately.
type load struct {
	name      string
	announced atomic.Int64 // bytes, since the last view
	rate      float64      // bytes a second, averaged; only refresh has it
	metrics   *mirrorMetrics
}

// announce counts bytes that a client was sent there for.
func (l *load) announce(to *choice.Mirror, bytes int64) {
	l.announced.Add(bytes)
	l.metrics.announced(to, bytes)
}

// count counts that the client is sent to a mirror, and for how many bytes. A size
// that is not known counts when an origin says it.
func (x *exchange) count(index int) {
	to, l := x.view.list.Mirror(index), x.view.loads[index]
	l.metrics.redirects[x.query.What].Inc()
	if x.r.Method == http.MethodHead {
		return
	}
	ranges := x.r.Header.Get("Range")
	if x.query.Size >= 0 {
		l.announce(to, rangeBytes(ranges, x.query.Size))
		return
	}
	if x.query.What != choice.Blob || !x.view.loadsDecide || x.rt.cfg.Presence == nil {
		return
	}
	for i := range x.view.list.Len() {
		if x.knowsSizes(i) {
			x.rt.cfg.Presence.Tell(x.view.list.Mirror(i), &x.target, func(size int64) { l.announce(to, rangeBytes(ranges, size)) })
			return
		}
	}
}

// rangeBytes is how many of so many bytes a Range header asks for (RFC 9110, section
// 14.1.2); all of them when it is none that a server would heed.
func rangeBytes(header string, size int64) int64 {
	text, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return size
	}
	var total int64
	for part := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(part), "-")
		first, errFirst := strconv.ParseInt(from, 10, 64)
		last, errLast := strconv.ParseInt(to, 10, 64)
		switch {
		case !ok || errFirst != nil && from != "" || errLast != nil && to != "" || from == "" && to == "":
			return size
		case from == "": // the last so many
			total += min(last, size)
		case to == "":
			total += max(0, size-first)
		default:
			total += max(0, min(last, size-1)-first+1)
		}
	}
	return min(total, size)
}

// refresh makes a new view of the mirrors. after is the time since the last one.
func (rt *Router) refresh(after time.Duration) {
	rt.refreshing.Lock()
	defer rt.refreshing.Unlock()
	list, states := rt.cfg.Mirrors()
	old := rt.view.Load()
	v := &view{
		list: list, states: slices.Clone(states), loads: make([]*load, list.Len()),
		sizesDecide: list.NeedsSizes(), loadsDecide: list.Len() > 1,
	}
	share := min(1, after.Seconds()/loadOver.Seconds())
	for i := range v.loads {
		m := list.Mirror(i)
		l := rt.loadOf(old, m.Name)
		if after > 0 {
			l.rate += share * (float64(l.announced.Swap(0))/after.Seconds() - l.rate)
		}
		if s := &v.states[i]; s.Ramp > 0 { // of the share that it is trusted with
			s.Load = l.rate * 8 / (float64(cmp.Or(m.Capacity, choice.DefaultCapacity)) * s.Ramp)
		}
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
