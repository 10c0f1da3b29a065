package admission

import (
	"net/http"
	"time"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Handler is next, for as many requests as are let in; others are told 429 or 503.
func (g *Gate) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(*conn)
		switch {
		case c == nil: // of another listener
			next.ServeHTTP(w, r)
		case c.refusal != reasons:
			// Close has HTTP/2 end the connection, too.
			w.Header().Set("Connection", "close")
			g.refuse(w, r, c.refusal)
		case c.forwarder:
			g.forwarded(w, r, c, next)
		default:
			g.serve(w, r, c.guest, next)
		}
	})
}

// forwarded serves a request that a client made through a trusted forwarder.
func (g *Gate) forwarded(w http.ResponseWriter, r *http.Request, c *conn, next http.Handler) {
	addr, err := g.cfg.Client(r)
	if err != nil || !addr.IsValid() { // it is the forwarder's own; whoever answers says what is wrong
		g.serve(w, r, c.guest, next)
		return
	}
	client := ClientOf(addr)
	g.mu.Lock()
	behind := g.guest(client)
	behind.forwarded++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		behind.forwarded--
		g.tidy(behind)
		g.mu.Unlock()
	}()
	party := &Party{clients: []Client{client}}
	g.serve(w, r.WithContext(party.Context(r.Context())), behind, next)
}

// serve has a client's request answered, unless there are too many.
func (g *Gate) serve(w http.ResponseWriter, r *http.Request, v *guest, next http.Handler) {
	all, his := g.requests.Add(1)-1, v.requests.Add(1)-1
	defer g.requests.Add(-1)
	defer v.requests.Add(-1)
	if limit := int64(g.cfg.MaxRequests); limit > 0 {
		switch free := limit - all; {
		case free <= 0:
			g.refuse(w, r, tooManyRequests)
			return
		case !mayTake(int(his), int(free)):
			g.refuse(w, r, tooManyRequestsOfClient)
			return
		}
	}
	if limit := int64(g.cfg.MaxRequestsPerClient); limit > 0 && his >= limit {
		g.refuse(w, r, tooManyRequestsOfClient)
		return
	}
	if g.cfg.Pace <= 0 {
		next.ServeHTTP(w, r)
		return
	}
	if r.ContentLength != 0 {
		// Who reads a body gives it more time as it comes. Of one that nobody
		// wants, the server itself reads some before it answers, at leisure.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(g.cfg.Pace))
	}
	if r.ProtoMajor >= 2 {
		g.multiplexed(w, r, next)
		return
	}
	next.ServeHTTP(w, r)
}

// multiplexed serves a request of HTTP/2. Its writes wait for the client's windows
// and not on the connection, so that they need deadlines of their own: whoever
// sends large bodies moves them on.
func (g *Gate) multiplexed(w http.ResponseWriter, r *http.Request, next http.Handler) {
	stream := http.NewResponseController(w)
	if r.Method == http.MethodGet || r.Method == http.MethodHead { // an upload may take longer before it is answered
		_ = stream.SetWriteDeadline(time.Now().Add(g.cfg.Pace))
	}
	next.ServeHTTP(w, r)
	_ = stream.SetWriteDeadline(time.Now().Add(g.cfg.Pace)) // for what the server has left to write
}

// refuse tells a client that it is one too many.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, why reason) {
	var e *registry.Error
	switch why {
	case tooManyConnections, tooManyRequests:
		if why == tooManyRequests {
			g.refused[why].Add(1) // connections were counted when they came
		}
		e = registry.Errorf(errcode.ErrorCodeUnavailable, "this server has as many %s as it may: come back in a moment", why.String())
		e.Status = http.StatusServiceUnavailable
	case tooManyOfClient, tooManyRequestsOfClient:
		what := "connections"
		if why == tooManyRequestsOfClient {
			g.refused[why].Add(1)
			what = "requests at once"
		}
		e = registry.Errorf(errcode.ErrorCodeTooManyRequests, "there are too many %s from your address: come back when some have ended", what)
		e.Status = http.StatusTooManyRequests
	case tooSlow, reasons: // nobody is refused for these
		return
	}
	e.RetryAfter = gateRetry
	e.ServeHTTP(w, r)
}
