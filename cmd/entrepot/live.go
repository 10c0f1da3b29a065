package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// redraw is how often a terminal's line is written anew.
	redraw = 200 * time.Millisecond
	// sumUp is how often a log is told how far it is, besides each result.
	sumUp = 10 * time.Second
)

// live is a line that says how far a piece of work is: one that changes on a
// terminal, one now and then elsewhere.
type live struct {
	w        io.Writer
	terminal bool
	text     func() string // how far it is; called with mu held

	mu      sync.Mutex
	over    chan struct{}
	running sync.WaitGroup
}

func newLive(w io.Writer, text func() string) *live {
	l := &live{w: w, terminal: isTerminal(w), text: text, over: make(chan struct{})}
	l.running.Go(l.run)
	return l
}

func (l *live) run() {
	every := sumUp
	if l.terminal {
		every = redraw
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.mu.Lock()
			if l.terminal {
				l.write("\r\x1b[K%s", l.text())
			} else {
				l.write("%s\n", l.text())
			}
			l.mu.Unlock()
		case <-l.over:
			return
		}
	}
}

// end takes the changing line away.
func (l *live) end() {
	close(l.over)
	l.running.Wait()
	if l.terminal {
		l.write("\r\x1b[K")
	}
}

func (l *live) write(format string, args ...any) {
	_, _ = fmt.Fprintf(l.w, format, args...) // where would one tell that it cannot be told?
}
