package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

// sample is what one run of a case measured on one server, by key.
type sample map[string]float64

// benchmark is one case: something that each of its servers is measured doing.
type benchmark struct {
	name    string // for --only
	title   string
	missing string // why it cannot be measured; empty when it can
	servers []*server
	prepare func(testing.TB, *server) // before each run, untimed; nil is nothing
	run     func(testing.TB, *server) sample
	verify  func(testing.TB, *server) // after the first run: that what is sent is right; nil is nothing
	once    bool                      // one round tells all
	figures []figure                  // what the table shows
}

// figure is a line of the table.
type figure struct {
	key   string // of the sample
	title string // after the case's
	unit  unit
	goal  goal
}

// goal is what is to be reached: of the figure itself, or of its ratio to that
// of a peer. The zero value is no goal.
type goal struct {
	peer        string
	least, most float64 // 0 is no bound
}

// results are the samples of each server, by round.
type results map[string][]sample

// measure runs the case on each server in each round. Who begins changes from
// round to round, so that nobody always follows the same neighbour.
func (c *benchmark) measure(t testing.TB, o options) results {
	t.Helper()
	rounds := o.rounds
	if c.once {
		rounds = 1
	}
	got := results{}
	var took time.Duration // the node's last run
	for round := range rounds {
		progress("%s, round %d of %d", c.name, round+1, rounds)
		first := round % max(1, len(c.servers))
		for _, s := range slices.Concat(c.servers[first:], c.servers[:first]) {
			if c.prepare != nil {
				c.prepare(t, s)
			}
			start := time.Now()
			got[s.name] = append(got[s.name], c.run(t, s))
			if s.name == entrepot {
				took = time.Since(start)
			}
			if round == 0 && c.verify != nil {
				c.verify(t, s)
			}
		}
	}
	if o.profile == "" || c.once {
		return got
	}
	for _, s := range c.servers {
		if s.name != entrepot {
			continue
		}
		if c.prepare != nil {
			c.prepare(t, s)
		}
		profile(t, s, o.profile, c.name, took, func() { c.run(t, s) })
	}
	return got
}

// ratio is the median of the ratios that the node's figure had to a peer's in
// each round, and whether there is one.
func (r results) ratio(peer, key string) (float64, bool) {
	var ratios []float64
	for i, s := range r[entrepot] {
		if i >= len(r[peer]) || r[peer][i][key] == 0 {
			continue
		}
		ratios = append(ratios, s[key]/r[peer][i][key])
	}
	return median(ratios), len(ratios) > 0
}

// met says whether a figure or ratio is within the goal.
func (g goal) met(x float64) bool {
	return (g.least == 0 || x >= g.least) && (g.most == 0 || x <= g.most)
}

// median is the middle of some figures, or the mean of the two in the middle.
// Of none it is not a number.
func median(figures []float64) float64 {
	if len(figures) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
