package registry

import (
	"context"
	"net/http"
)

// Gatherer is a connection that can send several writes as one.
//
// net/http writes a response in pieces of 4 KiB, so that one of a little more
// takes two system calls and wakes its client twice, which is a third of what a
// small file costs.
type Gatherer interface {
	// Gather keeps what is written from now on, until it is a header and a body of
	// so many bytes. That is sent with its last write, which net/http makes when the
	// handler has returned and nothing is left to do before the next request.
	Gather(body int64)
	// Send sends what was kept, whole or not, and the writes that follow at once. Its
	// error is the connection's.
	Send() error
}

type gathererKey struct{}

// WithGatherer is for the ConnContext of an http.Server: responses on the
// connection are gathered. It is for connections that are written to as they are,
// without TLS.
func WithGatherer(ctx context.Context, g Gatherer) context.Context {
	return context.WithValue(ctx, gathererKey{}, g)
}

// Lengths of a body, in bytes, that are gathered: less fits one piece with its
// headers, and for more the copy costs what the call would.
const (
	leastGathered = 2 << 10
	mostGathered  = 64 << 10
)

// gather has the response sent as one when it is done, if that is worth it for a
// body of so many bytes, all at hand.
func (x *exchange) gather(length int64) Gatherer {
	if length < leastGathered || length > mostGathered || x.r.ProtoMajor != 1 {
		return nil
	}
	g, _ := x.r.Context().Value(gathererKey{}).(Gatherer)
	if g != nil {
		g.Gather(length)
	}
	return g
}

// sendBroken sends what was gathered of a body that failed; nothing, where it had not
// begun.
func (x *exchange) sendBroken(g Gatherer) error {
	if x.body.started {
		_ = http.NewResponseController(x.w).Flush() // into g, which takes all
	}
	return g.Send()
}
