package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is a test that remembers how it went, instead of going so.
type recorder struct {
	testing.TB
	mu               sync.Mutex
	errors           []string
	skipped, stopped string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.stopped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// do runs a test that may end early.
func (r *recorder) do(test func()) {
	var running sync.WaitGroup
	running.Go(test)
	running.Wait()
}

// shell runs a script, which is ready when it has written its process id, or
// that of its child, to the file named by $READY.
func shell(t testing.TB, script string) (p *Process, ready string) {
	t.Helper()
	ready = filepath.Join(t.TempDir(), "ready")
	return Start(t, ProcessConfig{
		Path: "/bin/sh", Args: []string{"-c", script}, Env: append(os.Environ(), "READY="+ready),
		Ready: func(context.Context) error {
			_, err := os.Stat(ready)
			return err
		},
	}), ready
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never happened: %s", what)
		}
	}
}

func TestStoppedProcessTakesItsChildrenWithIt(t *testing.T) {
	p, ready := shell(t, `sleep 1000 & echo $! >"$READY.part"; mv "$READY.part" "$READY"; exec sleep 1000`)
	child, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	status := "/proc/" + strings.TrimSpace(string(child)) + "/status"
	lives := func() bool {
		text, err := os.ReadFile(status)
		// Nobody may be there to reap it.
		return err == nil && !strings.Contains(string(text), "\nState:\tZ")
	}
	if !lives() {
		t.Fatal("there is no child: the test tests nothing")
	}
	p.Stop()
	eventually(t, "the child is gone", func() bool { return !lives() })
	p.Stop()
}

func TestRestartedProcessIsAnotherAndReady(t *testing.T) {
	p, ready := shell(t, `echo $$ >"$READY"; exec sleep 1000`)
	first := p.PID()
	if err := os.Remove(ready); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	p.Restart()
	if _, err := os.Stat(ready); err != nil {
		t.Errorf("Restart did not wait: %v", err)
	}
	if p.PID() == first {
		t.Error("it is the same process")
	}
}

func TestProcessThatEndsByItselfFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	p := Start(r, ProcessConfig{Path: "/bin/sh", Args: []string{"-c", "exit 3"}})
	<-p.life.ended
	p.Stop()
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], "sh ended by itself: exit status 3") {
		t.Errorf("the test's errors are %q", r.errors)
	}
	if err := p.ExitError(); err == nil || err.Error() != "exit status 3" {
		t.Errorf("ExitError = %v, want exit status 3", err)
	}
}

func TestProcessThatIsNeverReadyFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	r.do(func() {
		Start(r, ProcessConfig{
			Path: "/bin/sleep", Args: []string{"1000"}, ReadyTimeout: 50 * time.Millisecond,
			Ready: func(context.Context) error { return os.ErrDeadlineExceeded },
		})
	})
	if !strings.Contains(r.stopped, "sleep") || !strings.Contains(r.stopped, os.ErrDeadlineExceeded.Error()) {
		t.Errorf("the test stopped with %q", r.stopped)
	}
}

func TestProcessIsMeasuredWithItsLivingChildren(t *testing.T) {
	p, _ := shell(t, `(echo ok >"$READY"; while :; do :; done) & wait`)
	eventually(t, "the busy child's time counts", func() bool { return p.CPU() >= 50*time.Millisecond })
	if rss := p.RSS(); rss < 64<<10 || rss > 1<<30 {
		t.Errorf("RSS = %d bytes, which no two shells have", rss)
	}
	if peak := p.PeakRSS(); peak < 64<<10 || peak > 1<<30 {
		t.Errorf("PeakRSS = %d bytes, which no two shells have", peak)
	}
}

func TestMissingSkipsButFailsInCI(t *testing.T) {
	t.Setenv("CI", "")
	r := &recorder{TB: t}
	r.do(func() { Missing(r, "no %s", "docker") })
	if !strings.Contains(r.skipped, "no docker") || r.stopped != "" {
		t.Errorf("without CI: skipped with %q, stopped with %q", r.skipped, r.stopped)
	}
	t.Setenv("CI", "true")
	r = &recorder{TB: t}
	r.do(func() { Missing(r, "no %s", "docker") })
	if !strings.Contains(r.stopped, "no docker") || r.skipped != "" {
		t.Errorf("with CI: skipped with %q, stopped with %q", r.skipped, r.stopped)
	}
}

func TestUnknownToolIsAnErrorThatNamesTheKnown(t *testing.T) {
	_, err := BuildTool(t.Context(), "docker")
	if err == nil || !strings.Contains(err.Error(), "docker") || !strings.Contains(err.Error(), "versitygw") {
		t.Errorf("BuildTool = %v", err)
	}
}
