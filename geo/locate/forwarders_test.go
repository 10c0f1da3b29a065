package locate

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
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
		"obfuscated":                      {"10.0.0.1:9", "", "for=_hidden", "invalid IP"},
		"unknown":                         {"10.0.0.1:9", "192.0.2.9, unknown", "", "invalid IP"},
		"obfuscated port":                 {"10.0.0.1:9", "", `for="[2001:db8::7]:_p"`, "2001:db8::7"},
		"zone":                            {"[fd00::1%eth0]:9", "fe80::7%eth0", "", "fe80::7"},
		"no for":                          {"10.0.0.1:9", "", "by=10.0.0.1", ""},
		"several elements":                {"10.0.0.1:9", "", `for=192.0.2.66, for=198.51.100.7;by="10.0.0.9:1";host=r , For=10.0.0.2`, "198.51.100.7"},
		"a host that looks like a hop":    {"10.0.0.1:9", "", `for=198.51.100.7;host="x, for=192.0.2.66;y="`, "198.51.100.7"},
		"a host that looks like a for":    {"10.0.0.1:9", "", `host="x;for=192.0.2.66";for=198.51.100.7`, "198.51.100.7"},
		"escaped":                         {"10.0.0.1:9", "", `host="x\";for=192.0.2.66;y=\"";for=198.51.100.7`, "198.51.100.7"},
		"two of them":                     {"10.0.0.1:9", "", `for=192.0.2.66;for=198.51.100.7`, ""},
		"a quote that swallows the hop":   {"10.0.0.1:9", "", `for=192.0.2.66;x=", for=198.51.100.7`, ""},
		"cut short":                       {"10.0.0.1:9", "", `for="198.51.100.7\`, ""},
		"no parameter":                    {"10.0.0.1:9", "", `198.51.100.7`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
			if c.xff != "" {
				r.Header.Set("X-Forwarded-For", c.xff)
			}
			if c.forwarded != "" {
				r.Header.Set("Forwarded", c.forwarded)
			}
			got, err := f.Client(r)
			if c.want == "" {
				if !errors.Is(err, ErrForwarded) {
					t.Fatalf("got %v, %v, want ErrForwarded", got, err)
				}
			} else if err != nil || got.Addr.String() != c.want {
				t.Fatalf("got %v, %v, want %s", got, err, c.want)
			}
		})
	}
}

func TestHeaderLinesAreWalkedFromTheLast(t *testing.T) {
	f := NewForwarders([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	r := &http.Request{RemoteAddr: "10.0.0.1:9", Header: http.Header{"X-Forwarded-For": {"192.0.2.66", "198.51.100.7", "10.1.1.1"}}}
	got, err := f.Client(r)
	if err != nil || got.Addr.String() != "198.51.100.7" {
		t.Fatalf("got %v, %v, want 198.51.100.7", got, err)
	}
}

func TestAClientThatAnyForwarderSawComeByHTTPSStaysThere(t *testing.T) {
	f := NewForwarders([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	for _, c := range []struct {
		peer      string
		proto     []string
		forwarded string
		want      bool
	}{
		{"10.0.0.1:9", nil, "", false},
		{"10.0.0.1:9", []string{"http"}, "", false},
		{"10.0.0.1:9", []string{"HTTPS"}, "", true},
		{"10.0.0.1:9", []string{"http, https"}, "", true}, // the client's claim comes first
		{"10.0.0.1:9", []string{"http", "https"}, "", true},
		{"10.0.0.1:9", []string{"http"}, `for=192.0.2.1;proto="https"`, true},
		{"10.0.0.1:9", nil, `for=192.0.2.1;proto=http;host="x;proto=https"`, false},
		{"192.0.2.1:9", []string{"https"}, "", false}, // anyone's claim
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-Proto": c.proto}}
		if c.forwarded != "" {
			r.Header.Set("Forwarded", c.forwarded)
		}
		if got, err := f.Client(r); err != nil || got.Secure != c.want {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
}

func FuzzHop(f *testing.F) {
	for _, s := range []string{"192.0.2.1", `"[2001:db8::1]:80"`, "[::1]", `"`, "[", "fe80::1%eth0", "_hidden", "1.2.3.4:_p"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseHop(s); err == nil && (a.Is4In6() || a.Zone() != "") {
			t.Fatalf("parseHop(%q) = %v", s, a)
		}
	})
}

// FuzzForwarded: whatever a client sent before, and as its host, what a forwarder
// appends is the client, or the request is refused.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"", "for=192.0.2.66", `x="`, `for="a";x="`, `a, for=192.0.2.66;y=`, "\\", `";for=192.0.2.66;x="`} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, sent, host string) {
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(host)
		line := `for=198.51.100.7;host="` + quoted + `"`
		if sent != "" {
			line = sent + ", " + line
		}
		hops, err := forwarded(line, "for")
		if err != nil {
			if !errors.Is(err, ErrForwarded) || sent == "" {
				t.Fatalf("%s: %v", line, err)
			}
			return
		}
		if last := hops[len(hops)-1]; last != "198.51.100.7" {
			t.Fatalf("%s: the last hop is %q", line, last)
		}
	})
}
