package admission

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config configures a [Gate].
type Config struct {
	// MaxConnections bounds the connections, and MaxConnectionsPerClient those of
	// one client besides its share; 0 means no such limit. Connections of trusted
	// forwarders are nobody's.
	MaxConnections, MaxConnectionsPerClient int
	// MaxRequests bounds the requests in flight, and MaxRequestsPerClient those of
	// one client besides its share; 0 means no such limit.
	MaxRequests, MaxRequestsPerClient int
	// Pace is how long a client may take for what one write sends it, and for
	// every 4 MiB of a larger one; also for the beginning of a request's body. 0
	// means no limit.
	Pace time.Duration
	// Trusts says whether a peer is a forwarder whose word is taken for whom it asks,
	// and Client whom it names, invalid when it keeps that to itself; without them
	// everybody asks for themselves.
	Trusts func(peer netip.Addr) bool
	Client func(*http.Request) (netip.Addr, error)
	// Logger is told, now and then, that clients are refused; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil leaves them out.
	Registerer prometheus.Registerer
}

// Gate bounds what one listener takes in. Its parts belong together: a server
// accepts from [Gate.Listen], has ConnContext and a handler from [Gate.Handler], and
// [Gate.Run] looks after the connections.
type Gate struct {
	cfg     Config
	refused [reasons]atomic.Uint64
	clock   atomic.Int64 // of Run: nanoseconds since 1970, some tenths of Pace old

	requests atomic.Int64 // in flight
	buffers  sync.Pool    // of *bytes.Buffer, of responses that are gathered

	mu      sync.Mutex
	guests  map[Client]*guest
	conns   map[*conn]struct{}
	surplus int // of conns, those that are there to be told that they are too many
}

// guest is a client with connections or requests.
type guest struct {
	client      Client
	requests    atomic.Int64 // in flight
	connections int          // with gate.mu held, as the others below
	surplus     int
	forwarded   int // requests that came through forwarders
}

// reason is why somebody is refused or cut off.
type reason int

const (
	tooManyConnections reason = iota
	tooManyOfClient
	tooManyRequests
	tooManyRequestsOfClient
	tooSlow
	reasons
)

func (r reason) String() string {
	return [reasons]string{
		tooManyConnections: "connections", tooManyOfClient: "client_connections",
		tooManyRequests: "requests", tooManyRequestsOfClient: "client_requests", tooSlow: "slow",
	}[r]
}

const (
	// maxSurplus is how many connections that are too many are accepted all the
	// same, to be told so; maxSurplusOfClient is a client's part of them. What is
	// beyond is reset.
	maxSurplus, maxSurplusOfClient = 64, 8
	// surplusTime is how long such a connection may live.
	surplusTime = 5 * time.Second
	// gateRetry is when a client whom a gate refused should come back.
	gateRetry = time.Second
	// logInterval is how often an operator is told of refusals, at most.
	logInterval = 10 * time.Second
)

// NewGate makes a gate.
func NewGate(cfg Config) *Gate {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gate{cfg: cfg, guests: make(map[Client]*guest), conns: make(map[*conn]struct{})}
	g.clock.Store(time.Now().UnixNano())
	g.buffers.New = func() any { return new(bytes.Buffer) }
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(g.metrics()...)
	}
	return g
}

// guest is what is known of a client. Call with mu held.
func (g *Gate) guest(c Client) *guest {
	v := g.guests[c]
	if v == nil {
		v = &guest{client: c}
		g.guests[c] = v
	}
	return v
}

// tidy forgets a guest who has left. Call with mu held.
func (g *Gate) tidy(v *guest) {
	if v.connections == 0 && v.forwarded == 0 {
		delete(g.guests, v.client)
	}
}

// Run watches over the connections until ctx ends: whoever takes too long for what
// it is sent is cut off. Now and then it tells of those that were refused.
func (g *Gate) Run(ctx context.Context) {
	interval := time.Second
	if g.cfg.Pace > 0 {
		interval = min(interval, max(g.cfg.Pace/8, time.Millisecond))
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var told [reasons]uint64
	var last time.Time
	for {
		select {
		case now := <-tick.C:
			g.clock.Store(now.UnixNano())
			g.cutSlow(now.UnixNano())
			if now.Sub(last) >= logInterval && g.tell(&told) {
				last = now
			}
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gate) cutSlow(now int64) {
	var slow []*conn
	g.mu.Lock()
	for c := range g.conns {
		late := c.writing.Load()
		if late != 0 && now > late {
			g.refused[tooSlow].Add(1)
		}
		if late != 0 && now > late || c.until != 0 && now > c.until {
			slow = append(slow, c)
		}
	}
	g.mu.Unlock()
	for _, c := range slow {
		c.reset()
	}
}

// tell logs what was refused since it last did, and by whom most is here.
func (g *Gate) tell(told *[reasons]uint64) bool {
	var attrs []any
	for r := range reasons {
		if n := g.refused[r].Load(); n != told[r] {
			attrs = append(attrs, r.String(), n-told[r])
			told[r] = n
		}
	}
	if len(attrs) == 0 {
		return false
	}
	g.mu.Lock()
	var most *guest
	for _, v := range g.guests {
		if most == nil || v.connections > most.connections {
			most = v
		}
	}
	attrs = append(attrs, "connections", len(g.conns), "requests", g.requests.Load())
	if most != nil {
		attrs = append(attrs, "most_by", most.client.String(), "its_connections", most.connections, "its_requests", most.requests.Load())
	}
	g.mu.Unlock()
	g.cfg.Logger.Warn("refused what is over the limits", attrs...)
	return true
}
