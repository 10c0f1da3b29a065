// Package admission decides who is served when not everybody can be. A [Gate]
// bounds what one listener takes in: connections, requests in flight, and how long
// a client may take for what it is sent. A [Queue] hands out what is scarce behind
// it, such as downloads from upstream, and says who has waited long enough.
//
// All of them share by one rule. Of a number of places, a client may take another
// one as long as those it has are fewer than three times the free ones. A single
// client so leaves a quarter of what it finds to others, and whoever has none
// always finds one until really all are taken. It needs no list of clients, and no
// number for each.
//
// Whoever is refused is told 429 when it is over its own share, 503 when all is
// taken, both with Retry-After.
package admission

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// mayTake is the rule by which places are shared: see the package's comment.
func mayTake(has, free int) bool { return has < 3*free }

// Client is whose work something is, as far as sharing goes: an IPv4 address, or
// the 64 bits of an IPv6 address that one subscriber has at least. The zero Client
// stands for all that nobody asked for.
type Client struct{ addr netip.Addr }

// ClientOf is the client at an address.
func ClientOf(addr netip.Addr) Client {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	return Client{addr}
}

func (c Client) String() string {
	switch {
	case !c.addr.IsValid():
		return "nobody"
	case c.addr.Is6():
		return netip.PrefixFrom(c.addr, 64).String()
	}
	return c.addr.String()
}

// maxParty bounds how many clients can hurry one piece of work on.
const maxParty = 16

// Party is the clients who want the same piece of work, such as a download. It
// waits in the line of each, and goes on when the first of them is served: who joins
// work that another client began waits no longer than if it had begun it.
type Party struct {
	mu      sync.Mutex
	clients []Client
	queue   *Queue  // where it waits
	waiter  *waiter // nil while it does not
}

type partyKey struct{}

// NewParty is a party of the clients that ctx counts for.
func NewParty(ctx context.Context) *Party {
	return &Party{clients: clientsOf(ctx)}
}

// Join adds the clients that ctx counts for.
func (p *Party) Join(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range clientsOf(ctx) {
		if len(p.clients) == maxParty || slices.Contains(p.clients, c) {
			continue
		}
		p.clients = append(p.clients, c)
		if p.waiter != nil {
			p.queue.addLine(p.waiter, c)
		}
	}
}

// Context is ctx, counting for the party.
func (p *Party) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, partyKey{}, p)
}

// Carry is base, counting for whom from counts: for work that outlives a request.
func Carry(base, from context.Context) context.Context {
	return NewParty(from).Context(base)
}

// partyOf is the party that ctx counts for.
func partyOf(ctx context.Context) *Party {
	if p, ok := ctx.Value(partyKey{}).(*Party); ok {
		return p
	}
	return NewParty(ctx)
}

// clientsOf are the clients that ctx counts for, at least one.
func clientsOf(ctx context.Context) []Client {
	if p, ok := ctx.Value(partyKey{}).(*Party); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Clone(p.clients)
	}
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		return []Client{c.guest.client}
	}
	return []Client{{}}
}

type patienceKey struct{}

// Patiently is ctx for work that no queue refuses, but lets wait: a download that has
// begun, and whose clients have part of it.
func Patiently(ctx context.Context) context.Context {
	return context.WithValue(ctx, patienceKey{}, true)
}
