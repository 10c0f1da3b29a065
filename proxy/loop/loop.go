// Package loop stops requests that come back to a node, by whatever way upstreams
// and peers are configured: CDN-Loop (RFC 8586).
//
// A node adds itself to what it sends, and passes on which nodes a request has
// passed. Other names in the header are not passed on: what a client writes there
// would otherwise be read at upstream as the node's, on behalf of all clients who
// wait for the same. The ids of nodes are random, and told to no client.
package loop

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

const (
	// Header is the header's name.
	Header = "CDN-Loop"
	// cdnID is how nodes call themselves in it (RFC 8586, section 2); the parameter
	// id tells them from each other.
	cdnID = "entrepot"
	// maxPassed bounds how many nodes a request may have passed.
	maxPassed = 16
	// maxID bounds the id of a node, in bytes.
	maxID = 64
)

// IDs are the ids of the nodes that a request has passed, the newest last.
func IDs(h http.Header) []string {
	var ids []string
	for entry := range strings.SplitSeq(strings.Join(h["Cdn-Loop"], ","), ",") {
		name, params, _ := strings.Cut(entry, ";")
		if !strings.EqualFold(strings.TrimSpace(name), cdnID) {
			continue
		}
		for param := range strings.SplitSeq(params, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
			value = strings.Trim(value, `"`)
			if strings.EqualFold(key, "id") && validID(value) {
				ids = append(ids, value)
			}
		}
	}
	return ids
}

// validID says whether an id is one that nodes give themselves: others are of
// clients, and would be sent on at any length.
func validID(id string) bool {
	return id != "" && len(id) <= maxID && !strings.ContainsFunc(id, func(r rune) bool {
		return r != '-' && r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

type passedKey struct{}

// Value is what the node with an id sends in CDN-Loop on behalf of ctx.
func Value(ctx context.Context, id string) string {
	passed, _ := ctx.Value(passedKey{}).([]string)
	var b strings.Builder
	for _, p := range passed {
		b.WriteString(cdnID + "; id=" + p + ", ")
	}
	return b.String() + cdnID + "; id=" + id
}

// Carry is base for work that outlives the request of from.
func Carry(base, from context.Context) context.Context {
	passed, _ := from.Value(passedKey{}).([]string)
	if passed == nil {
		return base
	}
	return context.WithValue(base, passedKey{}, passed)
}

// Guard lets requests through to next that have not passed the node with an id, and
// not many nodes; others are answered with 508, and stopped is called.
func Guard(id string, stopped func(), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header["Cdn-Loop"] == nil {
			next.ServeHTTP(w, r)
			return
		}
		ids := IDs(r.Header)
		if slices.Contains(ids, id) || len(ids) > maxPassed {
			stopped()
			e := registry.Errorf(errcode.ErrorCodeUnavailable, "the request has been at this node before (CDN-Loop), which is among its own upstreams")
			e.Status = http.StatusLoopDetected
			e.ServeHTTP(w, r)
			return
		}
		if len(ids) > 0 {
			r = r.WithContext(context.WithValue(r.Context(), passedKey{}, ids))
		}
		next.ServeHTTP(w, r)
	})
}
