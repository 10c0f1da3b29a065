// Package geo is the router: one name for the world, at which each request is
// sent to the nearest mirror that can be trusted with it.
//
// A [Router] parses a request with the parsers of package registry, asks
// geo/locate where the client is and geo/choice which mirrors are to serve it,
// and answers with a redirect that is built of the configured URL of a mirror
// and of what was parsed, of nothing else. It has no content, and no state that
// another router would need.
//
// Who asks matters less than what is asked: names go only where they are
// authoritative, what a client verifies goes anywhere (package choice, fit.go).
//
// router.go is the way of a request, image.go and file.go are what is asked,
// metalink.go and mirrorlist.go tell of several mirrors at once, where.go explains
// a choice, view.go has the mirrors with their states and loads, attempts.go notes
// who comes back.
package geo
