// Command rehearsal rehearses a release at the scale of a real one: a
// configuration twice the size of the Kubernetes project's, of which 2,000
// names are new, is planned and applied by entrepot processes, from a staging
// registry (distribution) to an origin, on this machine. Beside it, crane copy
// copies the same list.
//
//	go run ./e2e/rehearsal
//	go run ./e2e/rehearsal --images 100 --destinations 3
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
	"syscall"
	"testing"

	"entrepot/e2e/internal/harness"
	"entrepot/promote/config/configtest"
)

// options say how large the rehearsal is.
type options struct {
	images       int // new ones
	versions     int // new names of each image, each with content of its own
	destinations int // of the apply to many destinations; fewer than 2 leaves it out
	concurrency  int // of both tools
	held         configtest.Shape
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		os.Exit(2) // the flag package has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = harness.Run(ctx, "rehearsal", func(t testing.TB) { fmt.Print(rehearse(t, o).markdown()) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "rehearsal:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	o := options{held: configtest.TwiceToday()}
	flags := flag.NewFlagSet("rehearsal", flag.ContinueOnError)
	flags.IntVar(&o.images, "images", 500, "release this many images")
	flags.IntVar(&o.versions, "versions", 4, "release this many versions of each image, one name each")
	flags.IntVar(&o.destinations, "destinations", 22, "apply one part in so many also to so many destinations at once; 1 leaves that out")
	flags.IntVar(&o.concurrency, "concurrency", 16, "have both tools copy this many images at once")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case min(o.images, o.versions, o.destinations, o.concurrency) < 1:
		err = fmt.Errorf("every flag must be at least 1")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rehearsal:", err)
	}
	return o, err
}

// progress says what goes on; the table alone is for standard output.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "rehearsal: "+format+"\n", args...)
}
