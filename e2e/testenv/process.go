package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ProcessConfig says what [Start] runs.
type ProcessConfig struct {
	Name string   // for messages; empty means the base of Path
	Path string   // the binary
	Args []string // without the binary's name
	Env  []string // all of the environment; nil means that of the test
	Dir  string   // working directory; empty means the test's
	// Place is where on a network it runs. Zero means where the test does.
	Place Place
	// Ready is tried until it gives nil: then Start returns. Nil means that
	// the process is ready as soon as it runs.
	Ready func(ctx context.Context) error
	// ReadyTimeout bounds the wait for Ready. Zero means 30 seconds.
	ReadyTimeout time.Duration
}

// Process is a program that runs beside a test and ends with it. A test whose
// process ends by itself fails, with the end of what the process said. Its
// methods are for the test's own goroutine.
type Process struct {
	t      testing.TB
	config ProcessConfig
	log    string // file: what every run of the process said
	life   *life
}

// life is the process from a start to its end.
type life struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone

	mu      sync.Mutex
	ending  bool // somebody asked for the end
	exitErr error
}

// Start starts a process and waits until it is ready. It ends with the test,
// and with the test's process, however that ends.
func Start(t testing.TB, config ProcessConfig) *Process {
	t.Helper()
	if config.Name == "" {
		config.Name = filepath.Base(config.Path)
	}
	if config.ReadyTimeout == 0 {
		config.ReadyTimeout = 30 * time.Second
	}
	p := &Process{t: t, config: config, log: filepath.Join(t.TempDir(), config.Name+".log")}
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s said, at the end:\n%s", config.Name, p.logTail())
		}
	})
	p.start()
	return p
}

func (p *Process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		p.t.Fatalf("starting %s: %v", p.config.Name, err)
	}
	defer log.Close() // the process has its own copy
	cmd := p.config.Place.command(p.config.Path, p.config.Args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = p.config.Env, p.config.Dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, // so that its children can be ended and measured with it
		// The signal comes when the thread that started the process ends. Go
		// ends a thread only with a goroutine that is locked to it, which none
		// of a test is, so that the thread lives as long as the test's process.
		Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("starting %s: %v", p.config.Name, err)
	}
	l := &life{cmd: cmd, ended: make(chan struct{})}
	p.life = l
	go func() {
		err := cmd.Wait()
		l.mu.Lock()
		l.exitErr = err
		byItself := !l.ending
		l.mu.Unlock()
		if byItself {
			p.t.Errorf("%s ended by itself: %v", p.config.Name, cmd.ProcessState)
		}
		close(l.ended) // Stop, which ends every test, waits for this
	}()
	if err := p.awaitReady(); err != nil {
		p.t.Fatalf("starting %s: %v", p.config.Name, err)
	}
}

func (p *Process) awaitReady() error {
	if p.config.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), p.config.ReadyTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := p.config.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.life.ended:
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("not ready after %v: %w", p.config.ReadyTimeout, err)
		}
	}
}

// stopTimeout is how long a process may take to end when asked to.
const stopTimeout = 15 * time.Second

// Stop asks the process to end (SIGTERM), waits for that, and then kills what
// is left of its group. A process that takes longer than 15 seconds is killed.
// Stopping what is stopped does nothing.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

// Kill ends the process at once, as a crash would (SIGKILL).
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Pause has the process stand still, as on a machine that hangs (SIGSTOP): its
// connections stay open, and the kernel takes new ones that nobody answers.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Resume ends what [Process.Pause] began.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(signal syscall.Signal) {
	p.t.Helper()
	if err := p.life.cmd.Process.Signal(signal); err != nil {
		p.t.Errorf("sending %v to %s: %v", signal, p.config.Name, err)
	}
}

func (p *Process) end(signal syscall.Signal) {
	p.t.Helper()
	l := p.life
	if l == nil {
		return // it never started
	}
	l.mu.Lock()
	l.ending = true
	l.mu.Unlock()
	select {
	case <-l.ended:
		return
	default:
	}
	// An error means that it is gone already, which is what is wanted.
	_ = l.cmd.Process.Signal(signal)
	_ = l.cmd.Process.Signal(syscall.SIGCONT) // one that was paused would not hear of it
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-l.ended:
	case <-timer.C:
		p.t.Errorf("%s did not end within %v of %v", p.config.Name, stopTimeout, signal)
		_ = l.cmd.Process.Kill()
		<-l.ended
	}
	_ = syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL) // ESRCH: no child outlived it
}

// Restart stops the process when it runs, and starts it again as it was first
// started.
func (p *Process) Restart() {
	p.t.Helper()
	p.Stop()
	p.start()
}

// ExitError says how the last run ended: nil while it runs or after status 0,
// else an [exec.ExitError].
func (p *Process) ExitError() error {
	p.life.mu.Lock()
	defer p.life.mu.Unlock()
	return p.life.exitErr
}

// PID is the process's id.
func (p *Process) PID() int { return p.life.cmd.Process.Pid }

// CPU is the processor time, user and system, that the process and its
// children have spent since it started, in steps of 10 ms.
func (p *Process) CPU() time.Duration {
	p.t.Helper()
	var ticks int64
	for _, member := range p.group() {
		// proc_pid_stat(5), counted from 1: 14 to 17 are utime, stime, and
		// those of the children that ended and were waited for.
		for _, field := range member.stat[11:15] {
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				p.t.Fatalf("measuring %s: %v", p.config.Name, err)
			}
			ticks += n
		}
	}
	const perSecond = 100 // USER_HZ, the same for every Linux that Go runs on
	return time.Duration(ticks) * time.Second / perSecond
}

// RSS is the resident memory of the process and its children now, in bytes.
func (p *Process) RSS() int64 {
	p.t.Helper()
	return p.memory("VmRSS")
}

// PeakRSS is the most resident memory that the process had, in bytes, and that
// its living children had.
func (p *Process) PeakRSS() int64 {
	p.t.Helper()
	return p.memory("VmHWM")
}

// memory adds up a line of proc_pid_status(5) over the group, in bytes.
func (p *Process) memory(line string) int64 {
	p.t.Helper()
	var sum int64
	for _, member := range p.group() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", member.pid))
		if err != nil {
			continue // it ended meanwhile
		}
		_, rest, found := strings.Cut(string(status), "\n"+line+":")
		if !found {
			continue // a zombie has no memory
		}
		var kib int64
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			p.t.Fatalf("measuring %s: %v", p.config.Name, err)
		}
		sum += kib << 10
	}
	return sum
}

// member is a process of a group.
type member struct {
	pid  int
	stat []string // the fields of proc_pid_stat(5) from the third
}

// group lists the processes of the process's group, which has its id.
func (p *Process) group() []member {
	p.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		p.t.Fatalf("measuring %s: %v", p.config.Name, err)
	}
	group := strconv.Itoa(p.PID())
	var members []member
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		// The second field is a name in parentheses, which may hold any byte.
		fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
		if len(fields) < 15 || fields[2] != group {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			p.t.Fatalf("measuring %s: %v", p.config.Name, err)
		}
		members = append(members, member{pid, fields})
	}
	if len(members) == 0 {
		p.t.Fatalf("measuring %s: it does not run", p.config.Name)
	}
	return members
}

// Log is what every run of the process has said so far.
func (p *Process) Log() string {
	p.t.Helper()
	log, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatalf("reading what %s said: %v", p.config.Name, err)
	}
	return string(log)
}

// logTail is the end of what the process said.
func (p *Process) logTail() []byte {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Appendf(nil, "(%v)", err)
	}
	return tail(log, 16<<10)
}

// FreePort is a TCP port of 127.0.0.1 that nothing listens on. Until the test
// ends, the kernel gives it to nobody who does not name it: not to a connection
// either that is made while a server is restarted.
func FreePort(t testing.TB) int {
	t.Helper()
	return freePort(t, "127.0.0.1")
}

// freePort is [FreePort] of another address of this machine.
func freePort(t testing.TB, address string) int {
	t.Helper()
	port, err := reservePort(t, netip.MustParseAddr(address))
	if err != nil {
		t.Fatalf("finding a free port: %v", err)
	}
	return port
}

// reservePort binds a socket and does not listen. A socket that has SO_REUSEADDR,
// as those of servers have, can be bound to the same port nevertheless.
func reservePort(t testing.TB, address netip.Addr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: address.As4()}); err != nil {
		return 0, err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return bound.(*unix.SockaddrInet4).Port, nil
}

// WaitHTTP returns nil when a GET of url is answered with a status below 500,
// trying until ctx is over. It serves as a Ready of [ProcessConfig], too.
func WaitHTTP(ctx context.Context, url string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := tryHTTP(ctx, url)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for an answer: %w", err)
		}
	}
}

func tryHTTP(ctx context.Context, url string) error {
	// A server that accepts and then says nothing, as one does that is
	// starting, must not take all of the time there is.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 500 {
		return fmt.Errorf("%s from %s", response.Status, url)
	}
	return nil
}

// Answers is a Ready of [ProcessConfig] that a GET of url fulfils with status 200.
func Answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		return nil
	}
}
