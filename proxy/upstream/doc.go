// Package upstream talks to one OCI registry, or to one file server, over one or
// more URLs. It
// authenticates, bounds, paces and retries GET and HEAD requests, follows
// redirects without taking credentials along, and chooses the healthy URL.
//
// It promises that every network step has a deadline, that credentials and
// tokens reach only the hosts they were configured for, that they never appear
// in an error, and that an [Error] says which kind of trouble stood in the way.
// It verifies no digest and stores nothing: that is the caller's part, who can
// say through [Endpoint.Penalize] and [Request.Skip] that content was wrong.
package upstream
