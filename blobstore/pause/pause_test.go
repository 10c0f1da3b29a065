package pause

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestForWaitsAsLongAsItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := For(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := For(t.Context(), -time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Errorf("a time that is over: %v after %v", err, time.Since(start))
		}
	})
}

func TestForEndsWithItsContextAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the time for fetching is over")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		start := time.Now()
		for _, d := range []time.Duration{time.Minute, time.Minute, 0} { // the second has ended before it begins
			if err := For(ctx, d); !errors.Is(err, why) || time.Since(start) != time.Second {
				t.Errorf("%v after %v, want %v after a second", err, time.Since(start), why)
			}
		}
	})
}
