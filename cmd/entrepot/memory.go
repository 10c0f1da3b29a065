package main

import "runtime/debug"

const (
	// gcPercent trades memory for fewer collections. What a node keeps alive
	// besides its memory tier is a few MiB, so that a multiple of it is little.
	gcPercent = 300
	// overhead is what the process may use besides its memory tier, in bytes.
	overhead = 40 << 20
)

// limitMemory tells the Go runtime how much memory to use for a memory tier of
// so many bytes, where the environment does not (GOGC, GOMEMLIMIT). The limit
// is soft: near it, garbage is collected more often.
func limitMemory(tier Size, env func(string) (string, bool)) {
	if _, set := env("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	if _, set := env("GOMEMLIMIT"); !set {
		debug.SetMemoryLimit(int64(tier) + overhead)
	}
}
