package transfer

import (
	"context"
	"errors"
	"io"

	"entrepot/blobstore/pause"
)

// minProgress is how many bytes, at least, between two breaks make a source
// one that gets on.
const minProgress = 1 << 20

// breaks are those of a transfer that goes on where it broke.
type breaks struct {
	inARow int
	since  int64 // where it broke last, in bytes
}

// another notes a break at a byte, and waits before the next attempt. It returns why
// there is to be none: ErrUnavailable, with what broke, or the end of ctx.
func (b *breaks) another(ctx context.Context, cfg *Config, at int64, err error, what func() string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if at-b.since >= minProgress {
		b.inARow = 0
	}
	b.inARow++
	b.since = at
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if b.inARow >= cfg.Attempts {
		return failf(ErrUnavailable, "%s at byte %d: %w (%d attempts)", what(), at, err, b.inARow)
	}
	return pause.For(ctx, cfg.backoff(b.inARow))
}
