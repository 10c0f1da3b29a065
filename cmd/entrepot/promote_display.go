package main

import (
	"fmt"
	"io"
	"time"

	"entrepot/promote"
	"entrepot/promote/transfer"

	"github.com/dustin/go-humanize"
)

// display shows how an apply goes on: a line that changes on a terminal, a line
// for each result elsewhere.
type display struct {
	*live

	total  int
	counts *transfer.Counters
	start  time.Time

	done, failed int // guarded by the line's mu
}

func newDisplay(w io.Writer, total int, counts *transfer.Counters) *display {
	d := &display{total: total, counts: counts, start: time.Now()}
	d.live = newLive(w, d.line)
	return d
}

// line tells how far it is.
func (d *display) line() string {
	failed := ""
	if d.failed > 0 {
		failed = fmt.Sprintf(", %d failed", d.failed)
	}
	return fmt.Sprintf("%d of %d%s, %s copied, %v", d.done+d.failed, d.total, failed,
		humanize.IBytes(uint64(d.counts.Counts().Bytes)), time.Since(d.start).Round(time.Second))
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
