package main

import (
	"strings"

	"entrepot/e2e/testenv"
)

// ends says whose cable a link goes through, and at which address of it. Those at the
// other side of a door are the router and the clients: it is the router who cannot
// reach it.
func (w *world) ends(link string) (place, server string) {
	place, to, _ := strings.Cut(link, "-")
	if to == "door" {
		place = "router"
	}
	return place, w.links[link].Address()
}

// partition has all packets of a link vanish. Nobody is told that connections are no
// more, and some find them again.
func (w *world) partition(e event) (func(), bool) {
	if w.cables == nil {
		return w.onLink(e, (*testenv.Relay).Stall, (*testenv.Relay).Flow, isHeld)
	}
	return w.once(e.target, func() func() {
		place, server := w.ends(e.target)
		w.cables.Cut(place, server)
		return func() { w.bit(e.fault, int64(w.cables.Mend(place, server))) }
	})
}

// unplug pulls the cable of a process: it has no network at all.
func (w *world) unplug(e event) (func(), bool) {
	return w.once("cable of "+e.target, func() func() {
		w.bit(e.fault, sockets(w.processes[e.target]))
		w.cables.Unplug(e.target)
		return func() { w.cables.Plug(e.target) }
	})
}

// crowd has others use most of a process's line.
func (w *world) crowd(e event) (func(), bool) {
	return w.once("cable of "+e.target, func() func() {
		w.cables.Crowd(e.target, 400_000)
		return func() { w.bit(e.fault, int64(w.cables.Clear(e.target))) }
	})
}
