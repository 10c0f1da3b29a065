package health

import (
	"net/url"
	"time"

	"entrepot/geo/choice"
)

// The rules by which a mirror is taken out and let in again.
const (
	failuresInRow  = 3 // and it is down
	failuresOfLast = 5 // of the last [window] probes, and it is down
	window         = 10
	successesToUp  = 5 // in a row, and
	// firstWait is how long it stays down at least, doubled with each time that
	// it fell before, to at most longestWait. A day without a fall forgets them.
	firstWait, longestWait, forgetFlaps = 60 * time.Second, time.Hour, 24 * time.Hour
	// rampOver is the time in which it gets its share back, from rampFrom.
	rampOver, rampFrom = 10 * time.Minute, 0.1
	// wrongBytesToQuarantine is how often a mirror may send wrong bytes.
	wrongBytesToQuarantine = 2
)

// machine is the state of a mirror.
type machine struct {
	known     bool // it was probed
	up        bool
	since     time.Time // it is up or down
	ramped    bool      // it came back, and ramps up
	reason    string    // of the last failure
	flaps     int
	history   [window]bool // true is a failure; a ring
	probes    int
	inRow     int // failures in a row, negative: successes
	failures  int // since the start
	wrong     int
	isolated  string // why it is quarantined; "" when it is not
	isolation time.Time
	filed     bool       // the quarantine is in the file
	urls      []*url.URL // that it was probed at
}

// success takes in that a probe was answered as it should be.
func (m *machine) success(now time.Time) {
	m.note(false)
	if !m.known {
		m.known, m.up, m.since, m.ramped = true, true, now, false // a router that starts serves at once
		return
	}
	if !m.up && -m.inRow >= successesToUp && now.Sub(m.since) >= m.wait() {
		m.up, m.since, m.ramped = true, now, true
	}
	if m.up && now.Sub(m.since) >= forgetFlaps {
		m.flaps = 0
	}
}

// failure takes in that a probe failed; at once says that it is down by that
// alone.
func (m *machine) failure(now time.Time, reason string, atOnce bool) {
	m.note(true)
	m.failures++
	m.reason = reason
	if !m.known { // one that never answered is down, and comes up with its first answer
		m.since = now
		return
	}
	if m.up && (atOnce || m.inRow >= failuresInRow || m.failed() >= failuresOfLast) {
		m.up, m.since = false, now
		m.flaps++
	}
}

func (m *machine) note(failed bool) {
	m.history[m.probes%window] = failed
	m.probes++
	switch {
	case failed:
		m.inRow = max(m.inRow, 0) + 1
	default:
		m.inRow = min(m.inRow, 0) - 1
	}
}

// failed is how many of the last probes failed.
func (m *machine) failed() int {
	n := 0
	for _, f := range m.history {
		if f {
			n++
		}
	}
	return n
}

// wait is how long the mirror stays down at least.
func (m *machine) wait() time.Duration {
	wait := firstWait
	for range m.flaps - 1 {
		if wait *= 2; wait >= longestWait {
			return longestWait
		}
	}
	return wait
}

// wrongBytes takes in that content was not what it should be. It reports that
// the mirror is quarantined by that.
func (m *machine) wrongBytes(now time.Time, reason string) bool {
	m.wrong++
	m.failure(now, reason, false)
	if m.wrong < wrongBytesToQuarantine || m.isolated != "" {
		return false
	}
	m.isolated, m.isolation = reason, now
	return true
}

// ramp is the share of its capacity that the mirror is trusted with.
func (m *machine) ramp(now time.Time) float64 {
	if !m.ramped {
		return 1
	}
	return min(1, rampFrom+(1-rampFrom)*now.Sub(m.since).Seconds()/rampOver.Seconds())
}

// state is what a choice needs to know.
func (m *machine) state(now time.Time, frozen bool) choice.State {
	s := choice.State{Up: m.up, Quarantined: m.isolated != "", Frozen: frozen}
	switch {
	case m.up:
		s.Ramp = m.ramp(now)
	case m.reason != "":
		s.Reason = m.reason
	default:
		s.Reason = "it was not probed yet"
	}
	return s
}
