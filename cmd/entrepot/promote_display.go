package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"entrepot/promote"
	"entrepot/promote/transfer"

	"github.com/dustin/go-humanize"
)

const (
	// redraw is how often a terminal's line is written anew.
	redraw = 200 * time.Millisecond
	// sumUp is how often a log is told how far it is, besides each result.
	sumUp = 10 * time.Second
)

// display shows how an apply goes on: a line that changes on a terminal, a line
// for each result elsewhere.
type display struct {
	w        io.Writer
	terminal bool
	total    int
	counts   *transfer.Counters
	start    time.Time

	mu           sync.Mutex
	done, failed int

	over    chan struct{}
	running sync.WaitGroup
}

func newDisplay(w io.Writer, total int, counts *transfer.Counters) *display {
	d := &display{w: w, terminal: isTerminal(w), total: total, counts: counts, start: time.Now(), over: make(chan struct{})}
	d.running.Go(d.run)
	return d
}

func (d *display) run() {
	every := sumUp
	if d.terminal {
		every = redraw
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.mu.Lock()
			d.line()
			d.mu.Unlock()
		case <-d.over:
			return
		}
	}
}

// line tells how far it is. Call with mu held.
func (d *display) line() {
	counts := d.counts.Counts()
	begin, end := "", "\n"
	if d.terminal {
		begin, end = "\r\x1b[K", ""
	}
	failed := ""
	if d.failed > 0 {
		failed = fmt.Sprintf(", %d failed", d.failed)
	}
	d.write("%s%d of %d%s, %s copied, %v%s", begin, d.done+d.failed, d.total, failed,
		humanize.IBytes(uint64(counts.Bytes)), time.Since(d.start).Round(time.Second), end)
}

// result is told of each item that is done, or has failed.
func (d *display) result(r promote.Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := r.Item
	if r.Err != nil {
		d.failed++
	} else {
		d.done++
	}
	if d.terminal {
		return
	}
	if r.Err != nil {
		d.write("failed: %s %s: %v\n", i.Action, i.Name, r.Err)
		return
	}
	d.write("%s %s %s\n", i.Action, i.Name, i.Digest)
}

// end takes the changing line away.
func (d *display) end() {
	close(d.over)
	d.running.Wait()
	if d.terminal {
		d.write("\r\x1b[K")
	}
}

func (d *display) write(format string, args ...any) {
	_, _ = fmt.Fprintf(d.w, format, args...) // where would one tell that it cannot be told?
}
