package transfer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateLetsOnlySoManyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(3, 0)
		var mu sync.Mutex
		var inside, most int
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if err := g.enter(t.Context()); err != nil {
					t.Error(err)
					return
				}
				defer g.leave()
				mu.Lock()
				inside++
				most = max(most, inside)
				mu.Unlock()
				time.Sleep(time.Second) // the request
				mu.Lock()
				inside--
				mu.Unlock()
			})
		}
		start := time.Now()
		group.Wait()
		if took := time.Since(start); most != 3 || took != 7*time.Second {
			t.Errorf("%d at once, done after %v; want 3, and 7s for 20", most, took)
		}
	})
}

func TestGateKeepsEverybodyOutDuringAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(8, 0)
		g.limited(90*time.Second, time.Now())
		start := time.Now()
		var group sync.WaitGroup
		for _, wait := range []func(context.Context) error{g.enter, g.pass} {
			group.Go(func() {
				if err := wait(t.Context()); err != nil || time.Since(start) != 90*time.Second {
					t.Errorf("in after %v: %v", time.Since(start), err)
				}
			})
		}
		group.Wait()
	})
}

func TestGatePausesLongerWhenTheHostDoesNotSayHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(8, 0)
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			if got := g.limited(0, time.Now()); got != want {
				t.Errorf("pause of %v, want %v", got, want)
			}
			// Another request that was under way changes nothing.
			if got := g.limited(0, time.Now()); got != want {
				t.Errorf("pause of %v after a second 429, want %v", got, want)
			}
			time.Sleep(want)
		}
		g.well()
		if got := g.limited(0, time.Now()); got != time.Second {
			t.Errorf("pause of %v after a good answer, want 1s", got)
		}
	})
}

func TestGateLetsFewerInAfterA429AndMoreAgainWhenAllIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(16, 0)
		g.limited(time.Second, time.Now())
		time.Sleep(time.Second)
		g.limited(time.Second, time.Now())
		time.Sleep(time.Second)
		entered := func() (n int) {
			for {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				err := g.enter(ctx)
				cancel()
				if err != nil {
					return n
				}
				n++
			}
		}
		if n := entered(); n != 4 {
			t.Errorf("%d let in after two 429, want 4 of 16", n)
		}
		for range 4 {
			g.leave()
		}
		for range 500 {
			g.well()
		}
		if n := entered(); n != 16 {
			t.Errorf("%d let in when all is well, want 16", n)
		}
	})
}

func TestGatePassesATurnOnThatNobodyWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 0)
		if err := g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone, in := make(chan error, 1), make(chan error, 1)
		go func() { gone <- g.enter(ctx) }()
		synctest.Wait()
		go func() { in <- g.enter(t.Context()) }()
		synctest.Wait()
		cancel()
		g.leave()
		if err := <-in; err != nil {
			t.Error(err)
		}
		if err := <-gone; err == nil { // it may have been let in first
			g.leave()
		} else if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestGateKeepsARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(100, 10)
		start := time.Now()
		for range 31 {
			if err := g.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
			g.leave()
		}
		if took := time.Since(start); took < 2900*time.Millisecond || took > 3100*time.Millisecond {
			t.Errorf("31 requests took %v, want 3s at 10 a second", took)
		}
	})
}

func TestAFlightThatIsCalledOffIsTakenOverByWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			first <- f.do(ctx, "key", func() error {
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		synctest.Wait()
		ran := 0
		for range 2 {
			go func() {
				second <- f.do(t.Context(), "key", func() error {
					ran++
					time.Sleep(time.Second)
					return nil
				})
			}()
		}
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for range 2 {
			if err := <-second; err != nil {
				t.Error(err)
			}
		}
		if ran != 1 {
			t.Errorf("the work was done %d times, want once", ran)
		}
	})
}

func TestAFlightThatFailsFailsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		failed := make(chan error, 3)
		want := errors.New("failed")
		for range 3 {
			go func() {
				failed <- f.do(t.Context(), "key", func() error {
					time.Sleep(time.Second)
					return want
				})
			}()
		}
		for range 3 {
			if err := <-failed; !errors.Is(err, want) {
				t.Error(err)
			}
		}
	})
}
