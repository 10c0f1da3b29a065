// Package harness is what the programs that measure have in common: a scope, so
// that package testenv serves them as it serves tests and what was started ends
// also on an interrupt; the binary to measure; and what machine it ran on.
package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
)

// scope is the testing.TB that package testenv wants, in a program that is not
// a test: what was started ends with the scope. A test would do, but the
// testing package neither cleans up on an interrupt, which here would leave
// gigabytes, nor shows how a long run goes on.
type scope struct {
	// Nil. It is here for the interface's unexported method; testenv calls
	// nothing that scope does not have.
	testing.TB

	name   string
	ctx    context.Context
	mu     sync.Mutex
	errs   []error
	ending []func()
}

// Run runs f and then undoes what it did through its testing.TB. The error
// is what f failed with.
func Run(ctx context.Context, name string, f func(testing.TB)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &scope{name: name, ctx: ctx}
	over := make(chan struct{})
	go func() { // of its own, so that Fatalf can end it
		defer close(over)
		defer s.end()
		f(s)
	}()
	<-over
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

func (s *scope) end() {
	for {
		s.mu.Lock()
		if len(s.ending) == 0 {
			s.mu.Unlock()
			return
		}
		last := len(s.ending) - 1
		f := s.ending[last]
		s.ending = s.ending[:last]
		s.mu.Unlock()
		f()
	}
}

func (s *scope) Name() string             { return s.name }
func (s *scope) Helper()                  {}
func (s *scope) Context() context.Context { return s.ctx }

func (s *scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = append(s.ending, f)
}

func (s *scope) TempDir() string {
	dir, err := os.MkdirTemp("", "entrepot-bench-")
	if err != nil {
		s.Fatalf("making a directory: %v", err)
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.Errorf("removing a directory: %v", err)
		}
	})
	return dir
}

func (s *scope) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.errs) > 0
}

func (s *scope) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (s *scope) Errorf(format string, args ...any) { s.add(fmt.Errorf(format, args...)) }

// fail is Fatal, with an error that whoever opened the scope can ask for.
func (s *scope) fail(err error) {
	s.add(err)
	runtime.Goexit()
}

func (s *scope) add(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

func (s *scope) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}

func (s *scope) Fatal(args ...any) { s.Fatalf("%s", fmt.Sprint(args...)) }

// Skipf ends the scope as Fatalf does: whoever opened it decides what the lack
// of a program means.
func (s *scope) Skipf(format string, args ...any) { s.Fatalf(format, args...) }

// Program finds a program, or says why there is none.
func Program(t testing.TB, find func(testing.TB) string) (path, missing string) {
	t.Helper()
	err := Run(t.Context(), "program", func(t testing.TB) { path = find(t) })
	if err != nil {
		return "", err.Error()
	}
	return path, ""
}
