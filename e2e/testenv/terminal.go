package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a terminal of the kernel (pty(7)) at which a test sits: programs that ask
// whether they write to a person are told that they do. Its methods are for the test's own
// goroutine.
type Terminal struct {
	t       testing.TB
	person  *os.File // what is written here is typed
	program *os.File // what programs have as standard input and output

	mu    sync.Mutex
	shown bytes.Buffer
	more  chan struct{} // has an element when shown has grown
	over  chan struct{} // closed when nothing is shown any more
}

// OpenTerminal opens a terminal, which is closed when the test ends.
func OpenTerminal(t testing.TB) *Terminal {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("opening a terminal: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	number, err := unix.IoctlGetUint32(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatalf("unlocking a terminal: %v", err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("opening the program's end of a terminal: %v", err)
	}
	terminal := &Terminal{t: t, person: person, program: program, more: make(chan struct{}, 1), over: make(chan struct{})}
	go func() {
		defer close(terminal.over)
		terminal.read()
	}()
	t.Cleanup(func() { terminal.Close() })
	return terminal
}

// Close ends the terminal when all programs at it have ended, and returns all that it has
// shown. Closing what is closed does nothing more.
func (t *Terminal) Close() (shown string) {
	_ = t.program.Close() // then reading ends with EIO
	<-t.over
	return t.Shown()
}

func (t *Terminal) read() {
	buffer := make([]byte, 4<<10)
	for {
		n, err := t.person.Read(buffer)
		t.mu.Lock()
		t.shown.Write(buffer[:n])
		t.mu.Unlock()
		select {
		case t.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// File is the end of the terminal that a program has.
func (t *Terminal) File() *os.File { return t.program }

// Start starts a command at the terminal, as the foreground of a session of its own.
func (t *Terminal) Start(cmd *exec.Cmd) {
	t.t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.program, t.program, t.program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.t.Fatalf("starting %s at a terminal: %v", cmd.Path, err)
	}
}

// Shown is all that the terminal has shown, with what was typed, as programs that turn
// nothing off have it; lines end with "\r\n".
func (t *Terminal) Shown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown.String()
}

// Await waits until the terminal has shown a text.
func (t *Terminal) Await(text string) {
	t.t.Helper()
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	for !strings.Contains(t.Shown(), text) {
		select {
		case <-t.more:
		case <-patience.C:
			t.t.Fatalf("the terminal does not show %q, but\n%s", text, t.Shown())
		}
	}
}

// Type types a text; "\n" is the return key.
func (t *Terminal) Type(text string) {
	t.t.Helper()
	if _, err := t.person.WriteString(text); err != nil && !errors.Is(err, os.ErrClosed) {
		t.t.Fatalf("typing %q: %v", text, err)
	}
}
