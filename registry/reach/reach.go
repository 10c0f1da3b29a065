// Package reach says what an address means to this machine, and keeps servers from
// making it ask for something in their place. Whoever can answer a request can
// redirect it: to a neighbour of this machine, to a service that trusts whoever
// asks from here, to the metadata of its cloud, which has credentials.
//
// Addresses are judged when they are dialled, so that no name can change its meaning
// in between.
package reach

import (
	"net/netip"
	"slices"
)

// Place is where an address is, as far as that says who can reach it.
type Place int

// The places.
const (
	Public   Place = iota
	Private        // of a network that this machine is in, or a carrier's
	Loopback       // this machine
	Nowhere        // link-local, a cloud's metadata, and what is no address of a host
	Places         // how many there are
)

// Of says where an address is. An IPv4 address inside of one of IPv6 counts as
// itself: mapped, translated (RFC 6052), of 6to4 (RFC 3056) and of Teredo (RFC 4380).
func Of(ip netip.Addr) Place {
	ip = ip.Unmap().WithZone("")
	if slices.Contains(metadata(), ip) {
		return Nowhere
	}
	if inner, ok := embedded(ip); ok {
		return Of(inner)
	}
	switch {
	case ip.IsLoopback():
		return Loopback
	case ip.IsUnspecified(), ip.IsLinkLocalUnicast(), ip.IsMulticast(), within(ip, unassigned()):
		return Nowhere
	case ip.IsPrivate(), within(ip, shared()):
		return Private
	}
	return Public
}

// metadata are addresses at which clouds tell a machine about itself, but
// 169.254.169.254 and others that are link-local: fd00:ec2::254 (AWS),
// fd20:ce::254 (Google), 100.100.100.200 (Alibaba), 168.63.129.16 (Azure),
// 192.0.0.192 (Oracle).
func metadata() []netip.Addr {
	return []netip.Addr{
		netip.AddrFrom16([16]byte{0xfd, 0x00, 0x0e, 0xc2, 14: 0x02, 15: 0x54}),
		netip.AddrFrom16([16]byte{0xfd, 0x20, 0x00, 0xce, 14: 0x02, 15: 0x54}),
		netip.AddrFrom4([4]byte{100, 100, 100, 200}),
		netip.AddrFrom4([4]byte{168, 63, 129, 16}),
		netip.AddrFrom4([4]byte{192, 0, 0, 192}),
	}
}

// shared are networks that no one owns, but that are not of this machine either:
// carriers' (RFC 6598), for measurements (RFC 2544), site-local (RFC 3879), and what
// a translator of this network has for itself (RFC 8215).
func shared() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0xc0}), 10),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}), 48),
	}
}

// unassigned are addresses of no host: "this network" (RFC 791), of which Linux takes
// some for itself, for protocols (RFC 6890), reserved and broadcast (RFC 1112), and
// what discards (RFC 6666).
func unassigned() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{192}), 24),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 4),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x01}), 64),
	}
}

func within(ip netip.Addr, networks []netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// embedded is the IPv4 address to which a packet for an address of IPv6 goes in the
// end.
func embedded(ip netip.Addr) (netip.Addr, bool) {
	if !ip.Is6() {
		return netip.Addr{}, false
	}
	b := ip.As16()
	v4 := func(at int) (netip.Addr, bool) { return netip.AddrFrom4([4]byte(b[at : at+4])), true }
	switch {
	case [12]byte(b[:12]) == [12]byte{0x00, 0x64, 0xff, 0x9b}: // 64:ff9b::/96
		return v4(12)
	case b[0] == 0x20 && b[1] == 0x02: // 2002::/16
		return v4(2)
	case [4]byte(b[:4]) == [4]byte{0x20, 0x01}: // 2001::/32, whose client is written inverted
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	case [12]byte(b[:12]) == [12]byte{} && !ip.IsUnspecified() && !ip.IsLoopback(): // ::a.b.c.d, of old
		return v4(12)
	}
	return netip.Addr{}, false
}
