package peers

import (
	"context"
	"net/http"
	"strings"
	"time"

	"entrepot/proxy/loop"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Caller is the node that sent a request.
type Caller struct {
	ID string
	// OnlyIfCached says that it wants what is there, or on its way from upstream,
	// and nothing to be started for it (RFC 9111, section 5.2.1.7).
	OnlyIfCached bool
}

type callerKey struct{}

// CallerOf says which node a request is from; ok is false for a client's. Its
// context is of a request that came through [Group.Handler].
func CallerOf(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Handler lets requests through to next, those of peers as what [CallerOf] tells.
// It answers greetings, and refuses a signature that is not right.
func (g *Group) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isSigned(r) {
			next.ServeHTTP(w, r)
			return
		}
		if err := g.signer.verify(r, time.Now()); err != nil {
			g.metrics.forged.Inc()
			e := registry.Errorf(errcode.ErrorCodeDenied, "%s", err)
			e.Status = http.StatusForbidden
			e.ServeHTTP(w, r)
			return
		}
		if r.URL.Path == greetingPath {
			g.answer(w, r)
			return
		}
		caller := Caller{OnlyIfCached: strings.Contains(r.Header.Get("Cache-Control"), "only-if-cached")}
		if ids := loop.IDs(r.Header); len(ids) > 0 {
			caller.ID = ids[len(ids)-1]
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
	})
}
