// Command chaos breaks a whole system while clients pull from it, and counts what
// must not happen: wrong bytes, lost blobs, stuck transfers, leaks, names that are
// not served again. All parts are real processes: an origin with its ledger,
// MinIO, a plain registry, three nodes and a router; between them are relays that
// break. What happens when is decided by a seed.
//
//	go run ./e2e/chaos --seed 7 --minutes 3
//	go run ./e2e/chaos --seed 1,2,3 --minutes 3 --report docs/RELIABILITY.md
//
// The exit status is 0 when every promise was kept.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"entrepot/e2e/internal/harness"
)

// options are the flags, for one run.
type options struct {
	seed    uint64
	length  time.Duration // of the faults
	clients int           // scripted ones
	clock   bool          // step clocks too, which takes a build of the standard library
	race    bool          // of binaries with the race detector
	only    []string      // faults; nil is all
	// noCables is why all is on one network; empty is not.
	noCables string
}

func main() {
	var o options
	var seeds, report string
	var minutes float64
	flag.StringVar(&seeds, "seed", strconv.FormatInt(time.Now().Unix()%100_000, 10), "seeds, with commas between them: one run each")
	flag.Float64Var(&minutes, "minutes", 3, "of faults, in each run")
	flag.IntVar(&o.clients, "clients", 8, "scripted clients")
	flag.BoolVar(&o.clock, "clock", true, "step clocks too")
	flag.BoolVar(&o.race, "race", false, "run binaries that were built with the race detector")
	flag.Func("only", "inject only these `faults`, with commas between them, by their names in the report", func(names string) error {
		o.only = strings.Split(names, ",")
		return nil
	})
	flag.StringVar(&report, "report", "", "put the counts into this `file`")
	flag.Parse()
	o.length = time.Duration(minutes * float64(time.Minute))
	if flag.NArg() > 0 || o.length < time.Second || o.clients < 1 {
		fmt.Fprintln(os.Stderr, "chaos: want no arguments, some minutes, and a client at least")
		os.Exit(2)
	}
	os.Exit(start(o, seeds, report))
}

// start runs everything, on a machine of its own where there can be one, and returns
// the exit status.
func start(o options, seeds, report string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if isInside() {
		o.noCables = settle()
	} else {
		remove, err := makeScratch()
		if err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			return 1
		}
		defer remove()
		if o.noCables = noMachine(ctx); o.noCables == "" {
			return inside(ctx, os.Args[1:]...)
		}
	}
	if err := runAll(ctx, o, seeds, report); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	return 0
}

// runAll runs each seed, and reports all of them.
func runAll(ctx context.Context, o options, seeds, report string) error {
	var all []outcome
	var failed error
	for text := range strings.SplitSeq(seeds, ",") {
		seed, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return fmt.Errorf("--seed %q: %w", text, err)
		}
		o.seed = seed
		var got outcome
		if err := harness.Run(ctx, "chaos", func(t testing.TB) { got = run(t, o) }); err != nil {
			fmt.Fprintf(os.Stderr, "seed %d: %v\n", seed, err)
			failed = fmt.Errorf("a promise was not kept; repeat with go run ./e2e/chaos --seed %d --minutes %g", seed, o.length.Minutes())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if got.counts != nil { // else it did not come to its end
			all = append(all, got)
		}
	}
	if len(all) == 0 {
		return failed
	}
	text := markdown(all)
	fmt.Print(text)
	if report != "" {
		if err := writeReport(report, text); err != nil {
			return err
		}
	}
	return failed
}

// outcome is what a run counted.
type outcome struct {
	options

	counts    map[string]int64
	recovered time.Duration
	before    map[string]usage
	after     map[string]usage
	faults    []fault
	machine   string
	noDaemon  bool     // no containerd pulled
	missing   []string // what could not be had here, and why
}

// run does one seed. What must not happen fails t.
func run(t testing.TB, o options) outcome {
	t.Helper()
	t.Logf("chaos: seed %d, %v of faults; repeat with: go run ./e2e/chaos --seed %d --minutes %g --clients %d --clock=%t --race=%t",
		o.seed, o.length, o.seed, o.length.Minutes(), o.clients, o.clock, o.race)
	got := outcome{options: o, machine: harness.Machine(t)}
	tally := newTally()
	w := newWorld(t, o, tally)
	got.missing, got.noDaemon = w.missing, w.daemon == nil
	got.faults = allFaults(w)
	if o.only != nil {
		got.faults = slices.DeleteFunc(got.faults, func(f fault) bool { return !slices.Contains(o.only, f.name) })
		if len(got.faults) == 0 {
			t.Fatalf("no fault is called one of %q", o.only)
		}
	}
	plan := makePlan(o.seed, o.length, got.faults)
	w.prepare(promotionsIn(plan))
	w.recovered() // nodes hear of the first release
	w.until("the router compares what mirrors send", 30*time.Second, w.liar.compared.Load)
	got.before = w.usages()

	l := w.startLoad(o)
	w.play(plan, got.faults, o.length)
	if t.Context().Err() != nil { // interrupted
		l.stop()
		return got
	}
	got.recovered = w.recovered()
	l.stop()
	t.Logf("the last name was served %.1f s after the last fault", got.recovered.Seconds())
	w.settlePromotions()
	w.noFills()
	got.after = w.backTo(got.before)
	w.recovered() // the last release
	w.wholePass()
	w.pushesAreKept(l.pusher.acked)
	w.blobsAreKept()
	w.storesAreSound()
	w.honestAreTrusted()
	w.countChanges()
	w.allBit(got.faults)
	got.counts = tally.all()
	return got
}

// promotionsIn is how many releases a plan takes.
func promotionsIn(plan []event) int {
	n := 0
	for _, e := range plan {
		if strings.HasPrefix(e.fault, "promotion") {
			n++
		}
	}
	return n
}
