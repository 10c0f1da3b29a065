package clientconf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
)

// WellKnown is the path at which nodes and routers describe themselves (RFC
// 8615).
const WellKnown = "/.well-known/entrepot"

// Description is what a node or router says of itself. It holds no secret, and
// nothing that a client could not find out by asking.
type Description struct {
	// Role is node or router; "" is not an entrepot.
	Role string `json:"role"`
	// DefaultUpstream is what a request for an image means that names none.
	DefaultUpstream string     `json:"default_upstream,omitempty"`
	Upstreams       []Upstream `json:"upstreams"`
	// DefaultFiles is what a path means that names no file server.
	DefaultFiles string     `json:"default_files,omitempty"`
	Files        []Upstream `json:"files"`
}

// Upstream is a registry or file server behind a node or router.
type Upstream struct {
	Name string `json:"name"`
	// Private content is not for everybody.
	Private bool `json:"private,omitempty"`
	// Ledger is the signed log that its names are taken from; nil without one.
	Ledger *Ledger `json:"ledger,omitempty"`
}

// Ledger is a ledger that anybody can follow, too.
type Ledger struct {
	URL string `json:"url,omitempty"` // "" where it is not served by HTTP
	Key string `json:"key"`           // the name of its key
	// Names are what it calls the upstream; none are the upstream's own.
	Names []string `json:"names,omitempty"`
}

// ErrNoDescription is of a server that answers, and does not describe itself as
// an entrepot.
var ErrNoDescription = errors.New("it does not describe itself as an entrepot")

const (
	maxDescription = 1 << 20 // bytes
	maxUpstreams   = 1000
)

// Describe asks a server what it is. Errors are those of the network, or
// [ErrNoDescription].
func Describe(ctx context.Context, client *http.Client, server *url.URL) (*Description, error) {
	at := server.JoinPath(WellKnown).String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", at, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking what the server is: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %w", at, resp.Status, ErrNoDescription)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDescription))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", at, err)
	}
	var d Description
	if err := json.Unmarshal(body, &d); err != nil || d.Role == "" {
		return nil, fmt.Errorf("%s: %w", at, ErrNoDescription)
	}
	return &d, d.check()
}

// check refuses names that are no hosts: they become parts of paths.
func (d *Description) check() error {
	all := slices.Concat(d.Upstreams, d.Files)
	if len(all) > maxUpstreams {
		return fmt.Errorf("the server names %d upstreams; more than %d are not believed", len(all), maxUpstreams)
	}
	for _, u := range all {
		if err := CheckName(u.Name); err != nil {
			return fmt.Errorf("the server names an upstream that cannot be one: %w", err)
		}
	}
	return nil
}

// Has says whether a registry is among the upstreams.
func (d *Description) Has(name string) bool {
	return slices.ContainsFunc(d.Upstreams, func(u Upstream) bool { return u.Name == name })
}

var hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(?::([0-9]{1,5}))?$`)

// CheckName says what is wrong with the name of an upstream: a host in lower
// case with an optional port.
func CheckName(name string) error {
	m := hostPattern.FindStringSubmatch(name)
	if m == nil || len(name) > 255 {
		return fmt.Errorf("%q is not a host in lower case, such as docker.io", name)
	}
	if port, err := strconv.Atoi(m[2]); m[2] != "" && (err != nil || port < 1 || port > 65535) {
		return fmt.Errorf("%q has no port between 1 and 65535", name)
	}
	return nil
}
