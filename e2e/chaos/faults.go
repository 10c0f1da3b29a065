package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"entrepot/e2e/testenv"
)

// fault is something that goes wrong.
type fault struct {
	name    string
	says    string // what it does, for the report
	bites   string // what is counted of it, to show that it did something
	targets []string
	most    time.Duration // that it lasts; 0 where it is over at once
	// inject does it. ok is false where it cannot be done now, such as to a process
	// that is down. undo, where there is any, ends it.
	inject func(w *world, e event) (undo func(), ok bool)
}

// allFaults lists what can go wrong in a world. Each is known by its name in plans.
func allFaults(w *world) []fault {
	nodes := []string{"us", "eu", "jp"}
	ways := []string{"us-origin", "eu-origin", "jp-origin", "us-registry", "eu-registry", "jp-registry", "us-fresh", "eu-fresh", "jp-fresh", "eu-bucket"}
	// What is large comes from where something is always new, most of the time, and what
	// is small from the bucket and the origin.
	large := append([]string{"us-fresh", "eu-fresh", "jp-fresh", "us-fresh", "eu-fresh", "jp-fresh", "us-fresh", "eu-fresh", "jp-fresh"}, ways...)
	small := []string{"eu-bucket", "eu-bucket", "eu-bucket", "us-origin", "eu-origin", "jp-origin", "router-origin", "us-registry"}
	links := append([]string{"us-clients", "eu-clients", "jp-clients", "us-door", "eu-door", "jp-door", "router-origin"}, ways...)
	processes := append([]string{"origin", "router", "bucket"}, nodes...)
	const sockets, connections = "open sockets", "connections"
	faults := []fault{
		{"kill", "kill -9 a process, and start it again", sockets, processes, 3 * time.Second, (*world).kill},
		{"kill node", "kill -9 a node, and start it again at once", sockets, nodes, 0, (*world).kill},
		{"kill router", "kill -9 the router, and start it again", sockets, []string{"router"}, time.Second, (*world).kill},
		{"stop", "SIGTERM to a process, and start it again", sockets, processes, 2 * time.Second, (*world).stop},
		{"hang", "a process stands still (SIGSTOP) and goes on", sockets, processes, 5 * time.Second, (*world).hang},
		{"bucket down", "the S3 server is killed, and comes back", sockets, []string{"bucket"}, 6 * time.Second, (*world).kill},
		{"origin down", "the origin is killed, and comes back", sockets, []string{"origin"}, 6 * time.Second, (*world).kill},
		{"refuse", "a link is cut and refuses connections", connections, links, 4 * time.Second, (*world).refuse},
		{"reset", "all connections of a link are reset", connections, links, 0, (*world).reset},
		{"black hole", "a link passes nothing and closes nothing", "pieces held", links, 5 * time.Second, (*world).stall},
		{"slow", "a link passes 200 to 800 KB/s", "pieces slowed", links, 5 * time.Second, (*world).slow},
		{"cut in the middle", "a link breaks up to 4 MiB on", connections, links, 3 * time.Second, (*world).cutLater},
		{"partition from the origin", "what passes between a node, or the router, and the origin vanishes, both ways", "packets", []string{"us-origin", "eu-origin", "jp-origin", "router-origin"}, 6 * time.Second, (*world).partition},
		{"partition from S3", "what passes between a node and its bucket vanishes, both ways", "packets", []string{"eu-bucket"}, 6 * time.Second, (*world).partition},
		{"partition from the router", "what passes between the router and a node vanishes, both ways", "packets", []string{"us-door", "eu-door", "jp-door"}, 6 * time.Second, (*world).partition},
		{"wrong bytes from upstream", "bytes of content change between a source and a node", "bytes", large, 4 * time.Second, (*world).change},
		{"wrong bytes in small answers", "a digit or letter changes in manifests, ledgers and records on their way", "bytes", small, 8 * time.Second, (*world).changeSmall},
		{"rot", "a byte of a stored blob changes on the disk of a node", "files", nodes, 0, (*world).rot},
		{"truncated", "a stored blob loses its end on the disk of a node", "files", nodes, 0, (*world).truncate},
		{"removed", "a stored blob is removed behind a node's back", "files", nodes, 0, (*world).remove},
		{"rot in the bucket", "an object of the shared bucket has wrong bytes", "objects", []string{"eu"}, 0, (*world).rotBucket},
		{"promotion", "a promotion while all this happens", "promotions", []string{"origin"}, 0, (*world).promote},
		{"promotion killed", "kill -9 a promotion at any moment", "processes killed", []string{"origin"}, 0, (*world).promoteKilled},
		{"dishonest mirror", "a mirror sends wrong bytes to probes and clients; the router is killed when it has noticed", "wrong answers", []string{liarName}, 6 * time.Second, (*world).lie},
		{"mirror list", "the router's list loses a mirror, gains one that is dead, or is half written", "lists taken or refused", []string{"router"}, 8 * time.Second, (*world).changeList},
	}
	for _, owner := range slices.Sorted(maps.Keys(w.disks)) {
		faults = append(faults, fault{
			"full disk of " + owner, "the file system of " + owner + " is filled", "writes refused", []string{owner}, 6 * time.Second, (*world).fillDisk,
		})
	}
	if w.cables != nil {
		placed := append([]string{"router"}, nodes...)
		faults = append(faults,
			fault{"unplugged", "the cable of a node, or of the router, is pulled", "sockets without a network", placed, 4 * time.Second, (*world).unplug},
			fault{"crowded", "the cable of a node passes 400 KB/s, and loses packets", "packets", nodes, 5 * time.Second, (*world).crowd})
	}
	if w.clocks != nil {
		faults = append(faults, fault{
			"clock", "the clock of a process jumps by up to a week, either way", "clocks seen to be wrong",
			append([]string{"origin", "router"}, nodes...), 6 * time.Second, (*world).skew,
		})
	}
	return faults
}

// bit counts what a fault did.
func (w *world) bit(fault string, n int64) { w.tally.add("bit: "+fault, n) }

// allBit checks that each fault did something: one that happened often and never did
// shows nothing.
func (w *world) allBit(faults []fault) {
	counts := w.tally.all()
	for _, f := range faults {
		if counts["fault: "+f.name] >= often && counts["bit: "+f.name] == 0 {
			w.t.Errorf("%s: injected %d times, and there were 0 %s", f.name, counts["fault: "+f.name], f.bites)
		}
	}
}

// often is how many times a fault can miss by chance, and one.
const often = 3

func (w *world) kill(e event) (func(), bool) { return w.down(e, (*testenv.Process).Kill) }
func (w *world) stop(e event) (func(), bool) { return w.down(e, (*testenv.Process).Stop) }

// down ends a process. It is started again by undo.
func (w *world) down(e event, end func(*testenv.Process)) (func(), bool) {
	return w.once(e.target, func() func() {
		w.countStore(e.target)
		p := w.processes[e.target]
		w.bit(e.fault, sockets(p))
		end(p)
		return p.Restart
	})
}

func (w *world) hang(e event) (func(), bool) {
	return w.once(e.target, func() func() {
		p := w.processes[e.target]
		w.bit(e.fault, sockets(p))
		p.Pause()
		return p.Resume
	})
}

// once begins a fault of something, unless it has one already, until undo is called.
func (w *world) once(target string, begin func() (end func())) (func(), bool) {
	if w.isDown[target] {
		return nil, false
	}
	w.isDown[target] = true
	end := begin()
	return func() {
		end()
		w.isDown[target] = false
	}, true
}

// sockets is how many a process has open.
func sockets(p *testenv.Process) (n int64) {
	dir := fmt.Sprintf("/proc/%d/fd", p.PID())
	open, _ := os.ReadDir(dir) // it may have ended by itself, which is told elsewhere
	for _, fd := range open {
		if to, err := os.Readlink(dir + "/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// onLink breaks a link until undo is called. done is what of the harm is the fault's.
func (w *world) onLink(e event, begin, end func(*testenv.Relay), done func(testenv.Harm) int) (func(), bool) {
	return w.once(e.target, func() func() {
		r := w.links[e.target]
		before := done(r.Harm())
		begin(r)
		return func() {
			end(r)
			w.bit(e.fault, int64(done(r.Harm())-before))
		}
	})
}

func isCut(h testenv.Harm) int     { return h.Cut }
func isHeld(h testenv.Harm) int    { return h.Held }
func isSlowed(h testenv.Harm) int  { return h.Slowed }
func isChanged(h testenv.Harm) int { return h.Changed }

func (w *world) refuse(e event) (func(), bool) {
	return w.onLink(e, (*testenv.Relay).Close, (*testenv.Relay).Open, isCut)
}

func (w *world) stall(e event) (func(), bool) {
	return w.onLink(e, (*testenv.Relay).Stall, (*testenv.Relay).Flow, isHeld)
}

func (w *world) slow(e event) (func(), bool) {
	rate := float64(200_000 + e.choice%600_000)
	return w.onLink(e, func(r *testenv.Relay) { r.Pace(rate) }, func(r *testenv.Relay) { r.Pace(0) }, isSlowed)
}

func (w *world) cutLater(e event) (func(), bool) {
	bytes := int64(e.choice % (4 << 20))
	return w.onLink(e, func(r *testenv.Relay) { r.CloseAfter(bytes) }, func(r *testenv.Relay) {
		r.Close() // where less than that passed
		r.Open()
	}, isCut)
}

func (w *world) change(e event) (func(), bool) {
	return w.onLink(e, func(r *testenv.Relay) { r.Change(1 << 20) }, func(r *testenv.Relay) { r.Change(0) }, isChanged)
}

func (w *world) changeSmall(e event) (func(), bool) {
	return w.onLink(e, func(r *testenv.Relay) { r.ChangeSmall(1 << 20) }, func(r *testenv.Relay) { r.ChangeSmall(0) }, isChanged)
}

func (w *world) reset(e event) (func(), bool) {
	if w.isDown[e.target] {
		return nil, false
	}
	r := w.links[e.target]
	before := isCut(r.Harm())
	r.Cut()
	w.bit(e.fault, int64(isCut(r.Harm())-before))
	return nil, true
}

// skew steps the clock of a process, which runs on, by up to a week.
func (w *world) skew(e event) (func(), bool) {
	const week = 7 * 24 * 3600
	ahead := int64(e.choice%(2*week)) - week
	w.clocks.step(w.t, e.target, ahead)
	return func() {
		if now, err := w.clockOf(e.target); err == nil && time.Until(now).Abs() > time.Duration(max(ahead, -ahead)/2)*time.Second {
			w.bit(e.fault, 1)
		}
		w.clocks.step(w.t, e.target, 0)
	}, true
}

// clockOf is what time a process has.
func (w *world) clockOf(process string) (time.Time, error) {
	header, _, err := askAdmin(w.measured()[process] + "/healthz")
	if err != nil {
		return time.Time{}, err
	}
	return http.ParseTime(header.Get("Date"))
}
