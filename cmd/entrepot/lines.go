package main

import (
	"fmt"
	"io"
	"time"
)

// lines shows how many of some things are done: a line that changes on a terminal, a line
// for each elsewhere.
type lines struct {
	w        io.Writer
	terminal bool
	total, n int
	drawn    time.Time
}

func newLines(w io.Writer, total int) *lines {
	return &lines{w: w, terminal: isTerminal(w), total: total}
}

func (l *lines) done(what string) {
	l.n++
	switch {
	case !l.terminal:
		_, _ = fmt.Fprintln(l.w, what)
	case time.Since(l.drawn) >= redraw:
		l.drawn = time.Now()
		_, _ = fmt.Fprintf(l.w, "\r\x1b[K%d of %d, %s", l.n, l.total, what)
	}
}

func (l *lines) end() {
	if l.terminal {
		_, _ = fmt.Fprint(l.w, "\r\x1b[K")
	}
}
