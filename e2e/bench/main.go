// Command bench measures an entrepot node beside the servers that people use
// for the same work today: nginx with proxy_cache, nginx on plain files,
// distribution v3 as a pull-through proxy, and varnish. All are processes on
// this machine, with the same upstream and the same clients, and take turns in
// every round, so that ratios hold where absolute figures drift.
//
//	go run ./e2e/bench
//	go run ./e2e/bench --only 'crowd|slow' --rounds 5 --profile /tmp/profiles
//
// It prints one Markdown table, builds and installs what it needs, ends what
// it started and removes what it stored. The exit status is 0 when it could
// measure, whether or not a target was met.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"testing"

	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"
)

// options are the flags.
type options struct {
	only       *regexp.Regexp // names of the cases to run
	rounds     int            // of each case, for each server
	json       string         // file for every sample; empty is none
	profile    string         // directory for the node's profiles; empty is none
	entrepot   string         // binary; empty builds one
	wrkSeconds int            // of each run of wrk
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		os.Exit(2) // the flag package has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = harness.Run(ctx, "bench", func(t testing.TB) { measureAll(t, o) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	var o options
	var only string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&only, "only", "", "run only the cases whose `name` this regular expression finds")
	flags.IntVar(&o.rounds, "rounds", 3, "measure each server this often in each case; figures are medians")
	flags.StringVar(&o.json, "json", "", "write every sample to this `file`")
	flags.StringVar(&o.profile, "profile", "", "write CPU and heap profiles of the node, from one more round of each case, to this `directory`")
	flags.StringVar(&o.entrepot, "entrepot", "", "measure this `binary` instead of building one")
	flags.IntVar(&o.wrkSeconds, "wrk-seconds", 5, "let each run of wrk take this many seconds")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.only, err = regexp.Compile(only); err == nil {
		switch {
		case flags.NArg() > 0:
			err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
		case o.rounds < 1 || o.wrkSeconds < 1:
			err = fmt.Errorf("--rounds and --wrk-seconds must be at least 1")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	return o, err
}

// measureAll runs the cases and prints the table.
func measureAll(t testing.TB, o options) {
	w := newWorld(t, o)
	r := newReport(t, w, o.rounds)
	for _, c := range w.cases(t, o) {
		if !o.only.MatchString(c.name) {
			continue
		}
		if c.missing != "" {
			r.note("%s: %s", c.title, c.missing)
			continue
		}
		r.add(c, c.measure(t, o))
	}
	fmt.Print(r.markdown())
	if o.json != "" {
		r.writeJSON(t, o.json)
	}
}

// cases lists what there is to measure, in the order of the table. The memory
// comes last because it is that of all cases before.
func (w *world) cases(t testing.TB, o options) []*benchmark {
	wrk, missing := harness.Program(t, func(t testing.TB) string { return testenv.Debian(t, "wrk", "wrk") })
	return []*benchmark{
		w.startCase(),
		w.manifestCase("manifest-digest", "Warm manifest by digest", w.small.Root.Digest.String(), wrk, missing, o),
		w.manifestCase("manifest-tag", "Warm manifest by tag", w.small.Tag, wrk, missing, o),
		w.warmBlobCase("blob-sequential", "Warm 64 MiB blob, one client", 1),
		w.warmBlobCase("blob-parallel", "Warm 64 MiB blob, 4 clients", 4),
		w.warmFileCase(),
		w.tinyFileCase(wrk, missing, o),
		w.coldCase(),
		w.crowdCase(),
		w.slowCase(),
		w.memoryCase(),
	}
}
