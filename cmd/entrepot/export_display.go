package main

import (
	"fmt"
	"io"

	"github.com/dustin/go-humanize"
)

// fetchLine shows how far a bundle is: a line that changes on a terminal; elsewhere a line
// for each name, and one now and then.
type fetchLine struct {
	*live

	total, names int
	bytes        int64
}

func newFetchLine(w io.Writer, total int) *fetchLine {
	l := &fetchLine{total: total}
	l.live = newLive(w, func() string {
		return fmt.Sprintf("%d of %d are in the bundle, %s fetched", l.names, l.total, humanize.IBytes(uint64(l.bytes)))
	})
	return l
}

func (l *fetchLine) wrote(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes += int64(n)
}

func (l *fetchLine) done(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names++
	if !l.terminal {
		l.write("%s\n", name)
	}
}
