package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"entrepot/proxy/warm"
)

// PrefetchConfig is what a node fetches now and then before anybody asks.
type PrefetchConfig struct {
	// names or patterns: `UPSTREAM/REPOSITORY:TAG`, without a tag `latest`
	Images []string `yaml:"images"`
	// names or patterns: `SERVER/PATH`
	Files []string `yaml:"files"`
	// those of which images are wanted, such as `linux/amd64` or `linux/arm/v7`
	// Default: all
	Platforms []string `yaml:"platforms"`
	// from the beginning of one run to that of the next
	Every Duration `yaml:"every"`
	// times of the day at which to fetch, such as `22:00-06:00`; what their end stops goes on in the next
	// Default: always
	Windows []string `yaml:"windows"`
	// of the windows, such as `Europe/Zurich`
	TimeZone string `yaml:"time_zone"`
	// most names of each pattern: those with the highest numbers
	Limit int `yaml:"limit"`
	// fetched at once
	Parallel int `yaml:"parallel"`
	// most bytes a second that are fetched so; clients are not slowed down. 0 is no limit
	Bandwidth Rate `yaml:"bandwidth"`
}

// SetDefaults sets the defaults of a prefetch.
func (p *PrefetchConfig) SetDefaults() {
	p.Every, p.TimeZone, p.Limit, p.Parallel = Duration(time.Hour), "UTC", 100, 4
}

// schedule is a prefetch as it is run. Errors name the key.
func (p *PrefetchConfig) schedule(name string) (warm.Schedule, error) {
	s := warm.Schedule{Name: name, Every: time.Duration(p.Every), Limit: p.Limit, Jobs: p.Parallel, Bandwidth: int64(p.Bandwidth)}
	var err error
	if s.Windows, err = windowsOf(p.Windows, p.TimeZone); err != nil {
		return s, err
	}
	for _, list := range []struct {
		key   string
		texts []string
		parse func(string) (warm.Pattern, error)
	}{{"images", p.Images, warm.ParseImages}, {"files", p.Files, warm.ParseFiles}} {
		for i, text := range list.texts {
			pattern, err := list.parse(text)
			if err != nil {
				return s, fmt.Errorf("%s[%d]: %w", list.key, i, err)
			}
			s.Patterns = append(s.Patterns, pattern)
		}
	}
	for i, text := range p.Platforms {
		platform, err := warm.ParsePlatform(text)
		if err != nil {
			return s, fmt.Errorf("platforms[%d]: %w", i, err)
		}
		s.Platforms = append(s.Platforms, platform)
	}
	return s, nil
}

// prefetch checks what is fetched before anybody asks.
func (c check) prefetch(n *NodeConfig) {
	for _, name := range slices.Sorted(maps.Keys(n.Prefetch)) {
		path, p := "node.prefetch."+name, n.Prefetch[name]
		s, err := p.schedule(name)
		if err != nil {
			c.Problemf(path, "%s.%v", path, err)
			continue
		}
		if len(s.Patterns) == 0 {
			c.Problemf(path, "%s has neither images nor files; write names or patterns of them", path)
		}
		if p.Every < Duration(time.Minute) {
			c.Problemf(path+".every", "%s.every is %v; it must be at least 1m", path, p.Every)
		}
		c.positive(path+".limit", p.Limit)
		c.positive(path+".parallel", p.Parallel)
		for _, pattern := range s.Patterns {
			c.prefetched(path, n, &pattern)
		}
	}
}

// prefetched checks that a pattern can be resolved.
func (c check) prefetched(path string, n *NodeConfig, p *warm.Pattern) {
	kind, names := "upstreams", slices.Sorted(maps.Keys(n.Upstreams))
	ledger := n.Upstreams[p.Upstream].Ledger != nil
	if p.File {
		kind, names = "files", slices.Sorted(maps.Keys(n.Files))
		ledger = n.Files[p.Upstream].Ledger != nil
	}
	switch {
	case !slices.Contains(names, p.Upstream):
		c.Problemf(path, "%s: %s is not one of node.%s: %s", path, p.Upstream, kind, strings.Join(names, ", "))
	case p.NeedsNames() && !ledger:
		c.Problemf(path, `%s: %s has no ledger, without which nobody can list its names: write %s without "*", but for tags`, path, p.Upstream, kind)
	}
}
