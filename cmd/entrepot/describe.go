package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"entrepot/cmd/internal/clientconf"
	"entrepot/promote/ledger"
)

// described is a role's surface, with what it is at [clientconf.WellKnown].
type described struct {
	surface http.Handler
	text    []byte
}

// withDescription has a surface tell what it is.
func withDescription(surface http.Handler, d *clientconf.Description) (*described, error) {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, err
	}
	return &described{surface, append(text, '\n')}, nil
}

func (d *described) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != clientconf.WellKnown || r.Method != http.MethodGet && r.Method != http.MethodHead {
		d.surface.ServeHTTP(w, r)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.text))
}

func (n *NodeConfig) description() *clientconf.Description {
	d := &clientconf.Description{Role: "node", DefaultUpstream: n.DefaultUpstream, DefaultFiles: n.DefaultFiles}
	d.Upstreams = describeAll(n.Upstreams, func(u *UpstreamConfig) (bool, *LedgerConfig) { return u.Private, u.Ledger })
	d.Files = describeAll(n.Files, func(f *FileUpstreamConfig) (bool, *LedgerConfig) { return f.Private, f.Ledger })
	return d
}

func (r *RouterConfig) description() *clientconf.Description {
	d := &clientconf.Description{Role: "router", DefaultUpstream: r.DefaultUpstream, DefaultFiles: r.DefaultFiles}
	d.Upstreams = describeAll(r.Upstreams, func(u *RouterUpstreamConfig) (bool, *LedgerConfig) { return u.Private, u.Ledger })
	d.Files = describeAll(r.Files, func(f *RouterFilesConfig) (bool, *LedgerConfig) { return f.Private, f.Ledger })
	return d
}

// describeAll describes upstreams in the order of their names. of says what is in
// the configuration of one.
func describeAll[T any](all map[string]T, of func(*T) (private bool, ledger *LedgerConfig)) []clientconf.Upstream {
	described := []clientconf.Upstream{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		config := all[name]
		private, l := of(&config)
		described = append(described, clientconf.Upstream{Name: name, Private: private, Ledger: describeLedger(l)})
	}
	return described
}

// describeLedger tells where anybody can follow a ledger, and by which key. A URL
// that is a folder or bucket of the operator's, or that may hold a secret, is not
// told.
func describeLedger(l *LedgerConfig) *clientconf.Ledger {
	if l == nil {
		return nil
	}
	d := &clientconf.Ledger{Names: l.Names}
	if key, err := ledger.LoadKey(string(l.Key)); err == nil {
		d.Key = key.Verifier.Name()
	}
	u, err := url.Parse(l.URL)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.RawQuery == "" {
		d.URL = l.URL
	}
	return d
}
