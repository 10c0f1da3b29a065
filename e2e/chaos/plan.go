package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// event is a fault of a plan.
type event struct {
	at     time.Duration // from the beginning
	fault  string
	target string
	lasts  time.Duration
	choice uint64 // of what the fault chooses among when it happens
}

// pace is the time between two faults, in the mean.
const pace = 1200 * time.Millisecond

// makePlan is the schedule of faults that a seed means: each fault at least once
// where length allows, in an order, at targets and for times that the seed
// decides. All is over at length.
func makePlan(seed uint64, length time.Duration, faults []fault) []event {
	random := rand.New(rand.NewPCG(seed, 0))
	count := max(len(faults), int(length/pace))
	step := length / time.Duration(count+1)
	var plan []event
	var deck []fault
	for i := range count {
		if len(deck) == 0 {
			deck = slices.Clone(faults)
			random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		f := deck[0]
		deck = deck[1:]
		e := event{
			at:     time.Duration(i)*step + time.Duration(random.Int64N(int64(step))),
			fault:  f.name,
			target: f.targets[random.IntN(len(f.targets))],
			lasts:  f.most/4 + time.Duration(random.Int64N(int64(f.most)+1)*3/4),
			choice: random.Uint64(),
		}
		e.lasts = min(e.lasts, length-e.at)
		plan = append(plan, e)
	}
	return plan
}
