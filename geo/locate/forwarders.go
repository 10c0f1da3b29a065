package locate

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ErrForwarded says that a trusted peer sent forwarding headers from which no
// client address can be read.
var ErrForwarded = errors.New("no client address in the forwarding headers")

// Forwarders are the peers whose forwarding headers are believed.
type Forwarders struct{ trusted []netip.Prefix }

// NewForwarders trusts peers within the prefixes, and no other.
func NewForwarders(trusted []netip.Prefix) *Forwarders {
	return &Forwarders{trusted: slices.Clone(trusted)}
}

// Client returns the address of the request's client without zone, IPv4
// unmapped, and whether the peer is a trusted forwarder. From a trusted peer,
// X-Forwarded-For or Forwarded (RFC 7239) is walked from the right to the
// first hop that is not trusted: what stands left of it is anyone's claim and
// is not read. It returns [ErrForwarded] when a hop that must be read is no
// address, and when the two headers name different clients: most forwarders
// write one of them and pass on the other as the client sent it.
func (f *Forwarders) Client(r *http.Request) (addr netip.Addr, trusted bool, err error) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false, fmt.Errorf("reading the peer's address %q: %w", r.RemoteAddr, err)
	}
	addr = peer.Addr().Unmap().WithZone("")
	if !f.trusts(addr) {
		return addr, false, nil
	}
	plain, err := f.walk(addr, r.Header.Values("X-Forwarded-For"), func(s string) (string, error) { return s, nil })
	if err != nil {
		return netip.Addr{}, true, fmt.Errorf("reading X-Forwarded-For: %w", err)
	}
	standard, err := f.walk(addr, r.Header.Values("Forwarded"), forParameter)
	if err != nil {
		return netip.Addr{}, true, fmt.Errorf("reading Forwarded: %w", err)
	}
	switch {
	case len(r.Header.Values("Forwarded")) == 0:
		return plain, true, nil
	case len(r.Header.Values("X-Forwarded-For")) == 0 || plain == standard:
		return standard, true, nil
	}
	return netip.Addr{}, true, fmt.Errorf("%w: X-Forwarded-For says %s, Forwarded says %s", ErrForwarded, plain, standard)
}

func (f *Forwarders) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(f.trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// walk returns the first untrusted hop from the right, or the leftmost when
// all are trusted, or addr when there is none. No valid hop holds a comma.
func (f *Forwarders) walk(addr netip.Addr, lines []string, node func(string) (string, error)) (netip.Addr, error) {
	for _, line := range slices.Backward(lines) {
		for _, hop := range slices.Backward(strings.Split(line, ",")) {
			text, err := node(strings.TrimSpace(hop))
			if err != nil {
				return netip.Addr{}, err
			}
			if addr, err = parseHop(text); err != nil {
				return netip.Addr{}, err
			}
			if !f.trusts(addr) {
				return addr, nil
			}
		}
	}
	return addr, nil
}

// forParameter returns the value of for= in one element (RFC 7239, section 4).
func forParameter(element string) (string, error) {
	for pair := range strings.SplitSeq(element, ";") {
		name, value, found := strings.Cut(pair, "=")
		if found && strings.EqualFold(strings.TrimSpace(name), "for") {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%w: element %q has no for=", ErrForwarded, element)
}

// parseHop reads an address, bare, in brackets, with a port, quoted or not.
func parseHop(s string) (netip.Addr, error) {
	text := s
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone(""), nil
	}
	if len(text) >= 2 && text[0] == '[' && text[len(text)-1] == ']' {
		text = text[1 : len(text)-1]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: hop %q is no IP address", ErrForwarded, s)
	}
	return addr.Unmap().WithZone(""), nil
}
