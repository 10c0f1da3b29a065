package main

import (
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// loggers are where serve writes.
type loggers struct {
	main   *slog.Logger
	access slog.Handler // nil when switched off
	buffer *lineBuffer  // of access; nil when it is not buffered
}

// newLoggers makes the loggers that cfg asks for, over w.
func newLoggers(cfg LogConfig, w io.Writer) *loggers {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		level = slog.LevelInfo
	}
	terminal := isTerminal(w)
	handler := func(w io.Writer) slog.Handler {
		opts := &slog.HandlerOptions{Level: level}
		if cfg.Format == "json" || cfg.Format == "auto" && !terminal {
			return slog.NewJSONHandler(w, opts)
		}
		return slog.NewTextHandler(w, opts)
	}
	l := &loggers{main: slog.New(handler(w))}
	switch {
	case !cfg.Access:
	case terminal:
		l.access = l.main.Handler()
	default:
		l.buffer = newLineBuffer(w)
		l.access = handler(l.buffer)
	}
	return l
}

// close writes what is still buffered.
func (l *loggers) close() {
	if l.buffer != nil {
		l.buffer.close()
	}
}

// isTerminal reports whether a person is watching w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

const (
	lineBufferSize  = 32 << 10               // bytes
	lineBufferDelay = 200 * time.Millisecond // before a line is written at the latest
)

// lineBuffer gathers whole lines into few writes: at tens of thousands of
// requests a second, one system call for each line is what a request costs
// most. A line waits for lineBufferDelay at most.
type lineBuffer struct {
	w io.Writer

	mu     sync.Mutex
	lines  []byte
	timer  *time.Timer // runs while lines wait
	closed bool
}

func newLineBuffer(w io.Writer) *lineBuffer {
	b := &lineBuffer{w: w, lines: make([]byte, 0, lineBufferSize)}
	b.timer = time.AfterFunc(lineBufferDelay, b.flush)
	b.timer.Stop()
	return b
}

// Write takes one line, or several. Lines are never torn apart, so that those
// of other writers to the same file stay whole as well.
func (b *lineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return b.w.Write(p)
	}
	if len(b.lines)+len(p) > lineBufferSize {
		b.writeLocked()
	}
	if len(b.lines) == 0 {
		b.timer.Reset(lineBufferDelay)
	}
	b.lines = append(b.lines, p...)
	return len(p), nil
}

func (b *lineBuffer) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writeLocked()
}

// writeLocked writes the lines. There is nobody to tell when that fails: it is
// the log that failed.
func (b *lineBuffer) writeLocked() {
	if len(b.lines) > 0 {
		_, _ = b.w.Write(b.lines)
		b.lines = b.lines[:0]
	}
}

// close writes what waits; later lines are written at once.
func (b *lineBuffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer.Stop()
	b.writeLocked()
	b.closed = true
}
