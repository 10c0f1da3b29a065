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

// Client is who sent a request.
type Client struct {
	// Addr has no zone, and is IPv4 where it was mapped. It is invalid where a
	// forwarder keeps it to itself: "unknown" and "_hidden" of RFC 7239, section 6.
	Addr netip.Addr
	// Secure says that the client came by https, or that a trusted forwarder says
	// so of any part of its way.
	Secure bool
}

// Client returns the client of a request. From a trusted peer, X-Forwarded-For or
// Forwarded (RFC 7239) is walked from the right to the first hop that is not
// trusted: what stands left of it is anyone's claim and does not count. It returns
// [ErrForwarded] when a hop that must be read is no address, and when the two
// headers name different clients: most forwarders write one of them and pass on
// the other as the client sent it.
func (f *Forwarders) Client(r *http.Request) (Client, error) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return Client{}, fmt.Errorf("reading the peer's address %q: %w", r.RemoteAddr, err)
	}
	c := Client{Addr: peer.Addr().Unmap().WithZone(""), Secure: r.TLS != nil}
	if !f.Trusts(c.Addr) {
		return c, nil
	}
	plainLines, standardLines := r.Header.Values("X-Forwarded-For"), r.Header.Values("Forwarded")
	plain, err := f.walk(c.Addr, plainLines, func(line string) ([]string, error) { return strings.Split(line, ","), nil })
	if err != nil {
		return Client{}, fmt.Errorf("reading X-Forwarded-For: %w", err)
	}
	standard, err := f.walk(c.Addr, standardLines, func(line string) ([]string, error) { return forwarded(line, "for") })
	if err != nil {
		return Client{}, fmt.Errorf("reading Forwarded: %w", err)
	}
	if len(plainLines) > 0 && len(standardLines) > 0 && plain != standard {
		return Client{}, fmt.Errorf("%w: X-Forwarded-For says %s, Forwarded says %s", ErrForwarded, plain, standard)
	}
	c.Addr = plain
	if len(standardLines) > 0 {
		c.Addr = standard
	}
	c.Secure = c.Secure || byHTTPS(r.Header)
	return c, nil
}

// Trusts says whether a peer's forwarding headers are believed.
func (f *Forwarders) Trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(f.trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// walk returns the first untrusted hop from the right, or the leftmost when
// all are trusted, or addr when there is none.
func (f *Forwarders) walk(addr netip.Addr, lines []string, hops func(line string) ([]string, error)) (netip.Addr, error) {
	for _, line := range slices.Backward(lines) {
		texts, err := hops(line)
		if err != nil {
			return netip.Addr{}, err
		}
		for _, text := range slices.Backward(texts) {
			if addr, err = parseHop(strings.TrimSpace(text)); err != nil {
				return netip.Addr{}, err
			}
			if !f.Trusts(addr) {
				return addr, nil
			}
		}
	}
	return addr, nil
}

// byHTTPS says whether any forwarder says that the client came by https. Which of
// them wrote what cannot be told; a client that claims https for itself is sent to
// https URLs, which harms nobody, and the other way round would be a downgrade.
func byHTTPS(header http.Header) bool {
	var protos []string
	for _, line := range header.Values("X-Forwarded-Proto") {
		protos = append(protos, strings.Split(line, ",")...)
	}
	for _, line := range header.Values("Forwarded") {
		said, _ := forwarded(line, "proto") // the address was read from the same line
		protos = append(protos, said...)
	}
	return slices.ContainsFunc(protos, func(p string) bool { return strings.EqualFold(strings.TrimSpace(p), "https") })
}

// forwarded returns the values of one parameter of the elements of a Forwarded
// header (RFC 7239, section 4), "" for an element without it. A line is read from
// its start, as quoted text may hold commas and semicolons: a host that a client
// chose, "x, for=192.0.2.1", is no hop.
func forwarded(line, parameter string) ([]string, error) {
	var values []string
	wrong := fmt.Errorf("%w: %q is not written as RFC 7239 says", ErrForwarded, line)
	for rest, more := line, true; more; {
		value, seen := "", false
		for inElement := true; inElement; {
			name, after, ok := strings.Cut(rest, "=")
			if !ok || strings.ContainsAny(name, `",`) {
				return nil, wrong
			}
			text, end, err := cutValue(after)
			if err != nil {
				return nil, wrong
			}
			if strings.EqualFold(strings.TrimSpace(name), parameter) {
				if seen { // "MUST NOT occur more than once": one of them would be a client's
					return nil, wrong
				}
				value, seen = text, true
			}
			rest = strings.TrimLeft(end, " \t")
			switch {
			case rest == "":
				inElement, more = false, false
			case rest[0] == ',':
				inElement, rest = false, rest[1:]
			case rest[0] == ';':
				rest = rest[1:]
			default:
				return nil, wrong
			}
		}
		values = append(values, value)
	}
	return values, nil
}

// cutValue reads a token or a quoted string from the start of s, and returns what
// follows it.
func cutValue(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ";, \t")
		if end < 0 {
			end = len(s)
		}
		if strings.Contains(s[:end], `"`) {
			return "", "", ErrForwarded
		}
		return s[:end], s[end:], nil
	}
	var text strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return text.String(), s[i+1:], nil
		case '\\':
			if i++; i == len(s) {
				return "", "", ErrForwarded
			}
		}
		text.WriteByte(s[i])
	}
	return "", "", ErrForwarded
}

// parseHop reads an address, bare, in brackets, with a port, quoted or not. It is
// invalid where the hop hides itself.
func parseHop(s string) (netip.Addr, error) {
	text := s
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	if strings.EqualFold(text, "unknown") || len(text) > 1 && text[0] == '_' {
		return netip.Addr{}, nil
	}
	if at := strings.LastIndex(text, ":_"); at > 0 { // a port that is hidden
		text = text[:at]
	}
	// A port follows brackets, or the only colon.
	if colon := strings.LastIndexByte(text, ':'); colon > 0 && (text[colon-1] == ']' || strings.IndexByte(text, ':') == colon) {
		if ap, err := netip.ParseAddrPort(text); err == nil {
			return ap.Addr().Unmap().WithZone(""), nil
		}
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
