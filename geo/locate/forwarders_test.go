package locate

import (
	"errors"
	"net/http"
	"net/netip"
	"testing"
)

func TestClientIsTheFirstUntrustedHopFromTheRight(t *testing.T) {
	f := NewForwarders([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
	for name, c := range map[string]struct {
		peer, xff, forwarded string
		want                 string // "" is ErrForwarded
	}{
		"untrusted peer is not believed":  {"192.0.2.1:9", "198.51.100.7", "", "192.0.2.1"},
		"no header":                       {"10.0.0.1:9", "", "", "10.0.0.1"},
		"mapped peer":                     {"[::ffff:10.0.0.1]:9", "198.51.100.7", "", "198.51.100.7"},
		"claims to the left are not read": {"10.0.0.1:9", "junk, 198.51.100.7, 10.2.3.4", "", "198.51.100.7"},
		"all trusted":                     {"10.0.0.1:9", "10.9.9.9, 10.2.3.4", "", "10.9.9.9"},
		"port":                            {"10.0.0.1:9", "198.51.100.7:80", "", "198.51.100.7"},
		"bare IPv6":                       {"[fd00::1]:9", "2001:db8::7", "", "2001:db8::7"},
		"quoted IPv6 with port":           {"10.0.0.1:9", "", `proto=https;For="[2001:db8::7]:80"`, "2001:db8::7"},
		"mapped hop":                      {"10.0.0.1:9", "::ffff:198.51.100.7", "", "198.51.100.7"},
		"headers agree":                   {"10.0.0.1:9", "192.0.2.9", "for=192.0.2.9", "192.0.2.9"},
		"headers disagree":                {"10.0.0.1:9", "192.0.2.9", "for=192.0.2.8", ""},
		"garbage":                         {"10.0.0.1:9", "junk", "", ""},
		"obfuscated":                      {"10.0.0.1:9", "", "for=_hidden", ""},
		"no for":                          {"10.0.0.1:9", "", "by=10.0.0.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
			if c.xff != "" {
				r.Header.Set("X-Forwarded-For", c.xff)
			}
			if c.forwarded != "" {
				r.Header.Set("Forwarded", c.forwarded)
			}
			got, _, err := f.Client(r)
			if c.want == "" {
				if !errors.Is(err, ErrForwarded) {
					t.Fatalf("got %v, %v, want ErrForwarded", got, err)
				}
			} else if err != nil || got.String() != c.want {
				t.Fatalf("got %v, %v, want %s", got, err, c.want)
			}
		})
	}
}

func TestHeaderLinesAreWalkedFromTheLast(t *testing.T) {
	f := NewForwarders([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	r := &http.Request{RemoteAddr: "10.0.0.1:9", Header: http.Header{"X-Forwarded-For": {"192.0.2.66", "198.51.100.7", "10.1.1.1"}}}
	got, trusted, err := f.Client(r)
	if err != nil || !trusted || got.String() != "198.51.100.7" {
		t.Fatalf("got %v, %v, %v, want 198.51.100.7 from a trusted peer", got, trusted, err)
	}
}

func FuzzHop(f *testing.F) {
	for _, s := range []string{"192.0.2.1", `"[2001:db8::1]:80"`, "[::1]", `"`, "[", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseHop(s); err == nil && (!a.IsValid() || a.Is4In6() || a.Zone() != "") {
			t.Fatalf("parseHop(%q) = %v", s, a)
		}
	})
}
