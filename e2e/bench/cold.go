package main

import (
	"syscall"
	"testing"
)

const (
	// crowdClients is how many clients ask for the same cold blob at once.
	crowdClients = 16
	// slowRate is what the slow upstream sends, in bytes per second.
	slowRate = 60e6
	// idealSeconds is how long the small blob takes at that rate.
	idealSeconds = smallBytes / slowRate
)

// emptied gives the server an empty cache and an open connection to its
// upstream: real clients ask for a manifest before they ask for blobs.
func (w *world) emptied(path string) func(testing.TB, *server) {
	return func(t testing.TB, s *server) {
		w.relay.Pace(0)
		s.fresh(t)
		s.ask(t, path)
		// What the servers before wrote goes to the disk now, and not while
		// this one is measured.
		syscall.Sync()
	}
}

// coldCase downloads the large blob, which no server has, by one client.
func (w *world) coldCase() *benchmark {
	desc := blob(w.large)
	path := blobPath(w.large, desc.Digest)
	return &benchmark{
		name: "cold", title: "Cold 512 MiB blob, one client",
		servers: w.some(entrepot, nginxCache, distribution, direct),
		prepare: w.emptied(manifestPath(w.large, w.large.Tag)),
		run: func(t testing.TB, s *server) sample {
			before := s.cpu()
			c := gather(t, s, path, desc.Size, 1, 1)
			return sample{"seconds": c.wall(), "cpu": (s.cpu() - before).Seconds()}
		},
		verify: func(t testing.TB, s *server) { verify(t, s, path, desc) },
		figures: []figure{
			{key: "seconds", unit: seconds, goal: goal{peer: nginxCache, most: 1}},
			{key: "cpu", title: "server CPU", unit: seconds, goal: goal{peer: nginxCache}},
		},
	}
}

// crowdCase downloads the large blob, which no server has, by many clients at
// once.
func (w *world) crowdCase() *benchmark {
	desc := blob(w.large)
	path := blobPath(w.large, desc.Digest)
	return &benchmark{
		name: "crowd", title: "Cold 512 MiB blob, 16 clients at once",
		servers: w.some(entrepot, nginxCache, distribution),
		prepare: w.emptied(manifestPath(w.large, w.large.Tag)),
		run: func(t testing.TB, s *server) sample {
			w.relay.Pace(0)
			before := s.cpu()
			c := gather(t, s, path, desc.Size, crowdClients, 1)
			sent, first := w.relay.Passed()
			return sample{
				"seconds": c.wall(),
				"sent":    float64(sent) / float64(desc.Size),
				"first":   c.lastFirst().Sub(first).Seconds() * 1e3,
				"cpu":     (s.cpu() - before).Seconds(),
			}
		},
		verify: func(t testing.TB, s *server) { verify(t, s, path, desc) },
		figures: []figure{
			{key: "seconds", title: "until the last has it", unit: seconds, goal: goal{peer: nginxCache, most: 1}},
			{key: "sent", title: "sent by upstream", unit: times, goal: goal{most: 1.01}},
			{key: "first", title: "last client's first byte after upstream's", unit: milliseconds, goal: goal{most: 100}},
			{key: "cpu", title: "server CPU", unit: seconds, goal: goal{peer: nginxCache}},
		},
	}
}

// slowCase downloads the small blob, which no server has, by many clients at
// once from a slow upstream.
func (w *world) slowCase() *benchmark {
	desc := blob(w.small)
	path := blobPath(w.small, desc.Digest)
	return &benchmark{
		name: "slow", title: "Cold 64 MiB blob, 16 clients at once, upstream at 60 MB/s",
		servers: w.some(entrepot, nginxCache, distribution, varnish, direct),
		prepare: w.emptied(manifestPath(w.small, w.small.Tag)),
		run: func(t testing.TB, s *server) sample {
			clients := crowdClients
			if s.name == direct {
				clients = 1 // the ideal, as measured
			}
			w.relay.Pace(slowRate)
			defer w.relay.Pace(0)
			c := gather(t, s, path, desc.Size, clients, 1)
			return sample{
				"seconds": c.wall(),
				"first":   c.lastFirst().Sub(c.start).Seconds() * 1e3,
			}
		},
		verify: func(t testing.TB, s *server) { verify(t, s, path, desc) },
		figures: []figure{
			{key: "seconds", title: "until the last has it", unit: seconds, goal: goal{most: 1.05 * idealSeconds}},
			{key: "first", title: "last client's first byte", unit: milliseconds, goal: goal{most: 50}},
		},
	}
}
