// Package health knows which mirrors can be relied on now.
//
// A [Prober] asks every mirror for a piece of known content, compares it with our
// own, and keeps the state of each by the rules in machine.go, which are a pure
// function of results and times. Wrong bytes put a mirror in quarantine, which is
// kept in a file and lasts until a person lifts it. A [Presence] asks mirrors that
// may lack content whether they have it.
//
// It does not choose: package choice does, from the states.
package health
