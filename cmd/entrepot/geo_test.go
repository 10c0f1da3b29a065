package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What runs on beside a router fetches once a day, and an hour after it failed.
func TestAnUpdateIsRepeatedAndSoonerAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start, failures := time.Now(), 0
		var at []time.Duration
		repeat(ctx, 24*time.Hour, func(context.Context) error {
			at = append(at, time.Since(start))
			switch len(at) {
			case 2, 3:
				return errors.New("the source does not answer")
			case 5:
				cancel() // as a signal does
			}
			return nil
		}, func(error) { failures++ })
		const day = 24 * time.Hour
		if want := []time.Duration{0, day, day + time.Hour, day + 2*time.Hour, 2*day + 2*time.Hour}; !slices.Equal(at, want) {
			t.Errorf("updates at %v, want %v", at, want)
		}
		if failures != 2 {
			t.Errorf("%d failures were told, want 2", failures)
		}
	})
}
