// Package pause waits: for a time, or until the work that waits is not wanted any more.
package pause

import (
	"context"
	"time"
)

// For waits for a time, none of which is left when it is not positive. Its error is why
// ctx ended, and then it returns at once.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
