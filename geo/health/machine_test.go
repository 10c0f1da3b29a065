package health

import (
	"testing"
	"time"
)

// clock is a time that a test moves.
type clock struct{ now time.Time }

func (c *clock) after(d time.Duration) time.Time {
	c.now = c.now.Add(d)
	return c.now
}

func upAndRunning(c *clock) *machine {
	m := new(machine)
	m.success(c.after(0))
	return m
}

func TestAMirrorThatAnswersFirstIsUpAtOnceAndWhole(t *testing.T) {
	c := &clock{time.Unix(0, 0)}
	m := new(machine)
	if s := m.state(c.now, false); s.Up || s.Reason == "" {
		t.Errorf("before it was probed: %+v", s)
	}
	m.failure(c.after(time.Second), "refused", false)
	if s := m.state(c.now, false); s.Up || s.Reason != "refused" {
		t.Errorf("never answered: %+v", s)
	}
	m.success(c.after(time.Second))
	if s := m.state(c.now, false); !s.Up || s.Ramp != 1 {
		t.Errorf("answered: %+v", s)
	}
}

func TestItIsDownAfterThreeFailuresInARowOrFiveOfTen(t *testing.T) {
	for _, row := range []struct {
		probes string // x is a failure
		up     bool
	}{
		{"xx", true}, {"xxx", false}, {"xx.xx.", true}, {"xx.xx.x", false}, {"xx.xx......x", true}, {"x.x.x.x.", true}, {"x.x.x.x.x", false},
	} {
		c := &clock{time.Unix(0, 0)}
		m := upAndRunning(c)
		for _, p := range row.probes {
			if p == 'x' {
				m.failure(c.after(10*time.Second), "slow", false)
			} else {
				m.success(c.after(10 * time.Second))
			}
		}
		if m.up != row.up {
			t.Errorf("%s: up is %v", row.probes, m.up)
		}
	}
	c := &clock{time.Unix(0, 0)}
	m := upAndRunning(c)
	if m.failure(c.now, "the certificate expired", true); m.up {
		t.Error("a failure that counts at once left it up")
	}
}

// comeBack probes a mirror with success every 10 s, and returns after how long it
// is up.
func comeBack(c *clock, m *machine) time.Duration {
	from := c.now
	for !m.up {
		m.success(c.after(10 * time.Second))
	}
	return c.now.Sub(from)
}

func TestItComesBackLaterWithEachFlapAndRampsUp(t *testing.T) {
	c := &clock{time.Unix(0, 0)}
	m := upAndRunning(c)
	for i, minutes := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
		want := time.Duration(minutes) * time.Minute
		m.failure(c.after(10*time.Second), "gone", true)
		if got := comeBack(c, m); got != want {
			t.Errorf("fall %d: back after %v, want %v", i+1, got, want)
		}
	}
	for after, want := range map[time.Duration]float64{0: 0.1, 5 * time.Minute: 0.55, 10 * time.Minute: 1, time.Hour: 1} {
		if got := m.state(c.now.Add(after), false).Ramp; got < want-0.001 || got > want+0.001 {
			t.Errorf("ramp %v after coming back: %v, want %v", after, got, want)
		}
	}
	m.success(c.after(25 * time.Hour))
	m.failure(c.after(10*time.Second), "gone", true)
	if got := comeBack(c, m); got != time.Minute {
		t.Errorf("after a day without a fall: back after %v", got)
	}
}

func TestFiveSuccessesAreNeededAndAFailureStartsAnew(t *testing.T) {
	c := &clock{time.Unix(0, 0)}
	m := upAndRunning(c)
	m.failure(c.after(0), "gone", true)
	c.after(time.Hour)
	for range 4 {
		m.success(c.after(time.Second))
	}
	m.failure(c.after(time.Second), "gone", false)
	for range 4 {
		m.success(c.after(time.Second))
	}
	if m.up {
		t.Error("up after four successes")
	}
	if m.success(c.after(time.Second)); !m.up {
		t.Error("down after five")
	}
}

func TestWrongBytesTwiceAreAQuarantine(t *testing.T) {
	c := &clock{time.Unix(0, 0)}
	m := upAndRunning(c)
	if m.wrongBytes(c.now, "bytes 0 to 9") || m.state(c.now, false).Quarantined {
		t.Error("quarantined the first time")
	}
	if !m.wrongBytes(c.after(time.Hour), "bytes 0 to 9") || !m.state(c.now, false).Quarantined {
		t.Error("not quarantined the second time")
	}
	for range 100 {
		m.success(c.after(time.Hour))
	}
	if !m.state(c.now, false).Quarantined {
		t.Error("the quarantine ended by itself")
	}
}
