package main

import (
	"fmt"
	"time"

	"entrepot/proxy/mirror"
)

// MirrorNodeConfig has a node hold what its ledgers have, or a selection of it.
type MirrorNodeConfig struct {
	Select []SelectConfig `yaml:"select"`
	// most bytes a second that are fetched to be held; clients are not slowed down. 0 is no limit
	Bandwidth Rate `yaml:"bandwidth"`
	// times of the day at which to fetch, such as `22:00-06:00`; what is not whole at their end goes on in the next.
	// Without any, always
	Windows []string `yaml:"windows"`
	// of the windows, such as `Europe/Zurich`
	TimeZone string `yaml:"time_zone"`
	// how soon what failed is tried again; what the ledger has new is fetched at once
	Every Duration `yaml:"every"`
	// how often everything is looked at: whether it is still in the store, and what was attached to images since
	Recheck Duration `yaml:"recheck"`
	// images and files fetched at once
	Parallel int `yaml:"parallel"`
}

// SelectConfig selects names that are to be held.
type SelectConfig struct {
	// patterns (`*` within an element, `**` across) of the projects that promoted a name. A name is held that any rule
	// selects; without rules all names are
	Projects []string `yaml:"projects"`
	// patterns of repositories, with or without the upstream before them. A rule that has images and no files selects
	// images only
	Images []string `yaml:"images"`
	// patterns of paths, likewise
	Files []string `yaml:"files"`
	// hold so many versions only of each repository, or of each folder with versions below it: the highest
	// `MAJOR.MINOR.PATCH`, each with its candidates and variants. Names without a version are all held. 0 is all
	Newest int `yaml:"newest"`
}

// SetDefaults sets the defaults of what is held.
func (m *MirrorNodeConfig) SetDefaults() {
	m.TimeZone, m.Every, m.Recheck, m.Parallel = "UTC", Duration(time.Minute), Duration(24*time.Hour), 8
}

// rules are what is selected. Errors name the key.
func (m *MirrorNodeConfig) rules() ([]mirror.Rule, error) {
	var rules []mirror.Rule
	for i, s := range m.Select {
		r, err := mirror.ParseRule(s.Projects, s.Images, s.Files, s.Newest)
		if err != nil {
			return nil, fmt.Errorf("select[%d]: %w", i, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// windows are when it may fetch. Errors name the key.
func (m *MirrorNodeConfig) windows() (mirror.Windows, error) { return windowsOf(m.Windows, m.TimeZone) }

// windowsOf reads times of the day in a zone. Errors name the key.
func windowsOf(spans []string, timeZone string) (mirror.Windows, error) {
	var w mirror.Windows
	for i, text := range spans {
		span, err := mirror.ParseSpan(text)
		if err != nil {
			return w, fmt.Errorf("windows[%d]: %w", i, err)
		}
		w.Spans = append(w.Spans, span)
	}
	zone, err := time.LoadLocation(timeZone)
	if err != nil {
		return w, fmt.Errorf("time_zone: %q is not known here; write one such as Europe/Zurich", timeZone)
	}
	w.Zone = zone
	return w, nil
}

func (c check) mirror(n *NodeConfig) {
	const path = "node.mirror"
	m := n.Mirror
	if _, err := m.rules(); err != nil {
		c.Problemf(path+".select", "%s.%v", path, err)
	}
	if _, err := m.windows(); err != nil {
		c.Problemf(path, "%s.%v", path, err)
	}
	for key, d := range map[string]Duration{"every": m.Every, "recheck": m.Recheck} {
		if d < Duration(time.Second) {
			c.Problemf(path+"."+key, "%s.%s is %v; it must be at least 1s", path, key, d)
		}
	}
	c.positive(path+".parallel", m.Parallel)
	if n.offline() {
		c.Problemf(path, "%s fetches what ledgers have, and an upstream is offline; bundles are brought by entrepot import", path)
	}
	if len(n.ledgers()) == 0 {
		c.Problemf(path, "%s holds what ledgers have, and no upstream has one: set node.upstreams.NAME.ledger or node.files.NAME.ledger", path)
	}
}

// offline says whether there is an upstream to which there is no network, so that what
// is held of it cannot be had again.
func (n *NodeConfig) offline() bool {
	for _, u := range n.Upstreams {
		if u.Offline {
			return true
		}
	}
	for _, f := range n.Files {
		if f.Offline {
			return true
		}
	}
	return false
}

// ledgers are those of the node's upstreams.
func (n *NodeConfig) ledgers() []*LedgerConfig {
	var all []*LedgerConfig
	for _, u := range n.Upstreams {
		if u.Ledger != nil {
			all = append(all, u.Ledger)
		}
	}
	for _, f := range n.Files {
		if f.Ledger != nil {
			all = append(all, f.Ledger)
		}
	}
	return all
}
