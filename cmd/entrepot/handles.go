package main

import (
	"log/slog"
	"syscall"
)

const (
	// handlesBesides is how many files are open besides those of clients and
	// fills: listeners, logs, idle connections to upstreams.
	handlesBesides = 512
	// handlesOfFill is how many a download holds: its spool, its connection to
	// upstream, and the spool once more while it is put away.
	handlesOfFill = 3
)

// handles is how many files the process opens at its limits: a connection is one,
// and a request reads at most one more.
func (c *Config) handles() int {
	n := handlesBesides
	for _, l := range c.listeners() {
		n += l.MaxConnections + l.MaxRequests
	}
	if c.Node != nil {
		n += handlesOfFill * c.Node.MaxFills
	}
	return n
}

// listeners are the limits of all roles.
func (c *Config) listeners() (all []*LimitsConfig) {
	if c.Node != nil {
		all = append(all, &c.Node.Limits)
	}
	if c.Origin != nil {
		all = append(all, &c.Origin.Limits)
	}
	if c.Router != nil {
		all = append(all, &c.Router.Limits)
	}
	return all
}

// fitHandles lowers the limits to what the system lets the process open, and says
// so: a connection that is refused costs a client less than a store that cannot
// open its files. The Go runtime has raised the soft limit to the hard one before.
func (c *Config) fitHandles(open uint64, log *slog.Logger) {
	needed := c.handles()
	if uint64(needed) <= open {
		return
	}
	fixed := handlesBesides
	if c.Node != nil {
		fixed += handlesOfFill * c.Node.MaxFills
	}
	share := max(0.1, float64(int(min(open, 1<<30))-fixed)/float64(needed-fixed))
	for _, l := range c.listeners() {
		l.MaxConnections = max(min(l.MaxConnections, 16), int(share*float64(l.MaxConnections)))
		l.MaxRequests = max(min(l.MaxRequests, 16), int(share*float64(l.MaxRequests)))
	}
	log.Warn("the system lets this process open fewer files than its limits need; max_connections and max_requests are lowered in proportion. Raise the limit (ulimit -n, LimitNOFILE=) or lower them in the configuration",
		"open_files", open, "needed", needed, "share", share)
}

// openFiles is how many files the system lets the process open.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1 << 30 // then nothing is known of a limit
	}
	return limit.Cur
}
