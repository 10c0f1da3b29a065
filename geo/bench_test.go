package geo

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"testing"

	"entrepot/geo/choice"
	"entrepot/geo/health"
	"entrepot/geo/locate"
)

// hundredMirrors are in a hundred countries.
func hundredMirrors(b *testing.B) (*choice.List, []choice.State) {
	b.Helper()
	atlas, err := locate.NewAtlas()
	if err != nil {
		b.Fatal(err)
	}
	var mirrors []choice.Mirror
	for first := byte('A'); first <= 'Z'; first++ {
		for second := byte('A'); second <= 'Z'; second++ {
			country := locate.Country{first, second}
			at, ok := atlas.Country(country)
			if !ok || len(mirrors) == 100 {
				continue
			}
			name := fmt.Sprintf("mirror-%03d", len(mirrors))
			mirrors = append(mirrors, choice.Mirror{
				Name: name, Tier: choice.Tier(len(mirrors) % 3), Country: country, Continent: atlas.Continent(country),
				Lat: at.Lat, Lon: at.Lon, URLs: []*url.URL{{Scheme: "http", Host: name + ".example.org"}},
			})
		}
	}
	list, err := choice.NewList(mirrors, choice.Constants{})
	if err != nil {
		b.Fatal(err)
	}
	states := make([]choice.State, list.Len())
	for i := range states {
		states[i] = choice.State{Up: true, Ramp: 1}
	}
	return list, states
}

// benchLocator uses the databases and ranges of ENTREPOT_GEO_DIR, if it is set.
func benchLocator(b *testing.B) *locate.Locator {
	b.Helper()
	cfg := locate.Config{Dir: os.Getenv("ENTREPOT_GEO_DIR")}
	if cfg.Dir == "" {
		for i, c := range []locate.Country{{'D', 'E'}, {'J', 'P'}, {'U', 'S'}, {'Z', 'A'}} {
			cfg.Prefixes = append(cfg.Prefixes, locate.Prefix{
				Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i * 64)}), 2),
				Place:  locate.Place{Country: c, Continent: locate.Continent(1 + i), Lat: float64(50 - 20*i), Lon: float64(10 * i), Located: true},
			})
		}
	}
	l, err := locate.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func benchClients() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("52.93.153.7"), netip.MustParseAddr("193.0.6.200"), netip.MustParseAddr("129.132.1.1"),
		netip.MustParseAddr("2001:67c:2e8::1"), netip.MustParseAddr("34.35.1.1"), netip.MustParseAddr("8.8.8.8"),
	}
}

// BenchmarkLocateAndChoose is what of a redirect is not HTTP.
func BenchmarkLocateAndChoose(b *testing.B) {
	list, states := hundredMirrors(b)
	locator, clients := benchLocator(b), benchClients()
	var room [maxChoices]choice.Choice
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		client := clients[i%len(clients)]
		q := choice.Query{Client: client, What: choice.Blob, Size: 1 << 20, Namespace: "docker.io", Key: "library/nginx", Place: locator.Locate(client)}
		if len(list.Choose(&q, states, room[:0])) == 0 {
			b.Fatal("nothing was chosen")
		}
	}
}

// BenchmarkRedirect compares the router over HTTP with a handler that does nothing
// but redirect.
func BenchmarkRedirect(b *testing.B) {
	list, states := hundredMirrors(b)
	// The origin has said already how large the blob is.
	presence := health.NewPresence(health.PresenceConfig{Client: &http.Client{Transport: sizes{}}})
	defer presence.Close()
	rt, err := New(Config{
		Presence: presence,
		Mirrors:  func() (*choice.List, []choice.State) { return list, states }, Locate: benchLocator(b).Locate,
		Forwarders: locate.NewForwarders([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}),
		Images:     []Images{{Name: "docker.io"}}, DefaultImages: "docker.io",
	})
	if err != nil {
		b.Fatal(err)
	}
	const path = "/v2/library/nginx/blobs/" + aDigest
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://mirror-000.example.org"+r.URL.Path)
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	for _, c := range []struct {
		name    string
		handler http.Handler
	}{{"bare", bare}, {"router", rt}} {
		b.Run(c.name, func(b *testing.B) {
			srv := httptest.NewServer(c.handler)
			defer srv.Close()
			var requests [][]byte
			for _, client := range benchClients() {
				requests = append(requests, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: r\r\nX-Forwarded-For: %s\r\n\r\n", path, client))
			}
			b.RunParallel(func(pb *testing.PB) {
				if err := askRaw(srv.Listener.Addr().String(), requests, pb.Next); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// sizes answers for mirrors how large content is.
type sizes struct{}

func (sizes) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, ContentLength: 1 << 20, Body: http.NoBody, Request: r}, nil
}

// askRaw sends requests on one connection, one after the other, with as little
// work of its own as can be, and wants redirects without a body.
func askRaw(address string, requests [][]byte, more func() bool) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer := make([]byte, 4<<10)
	for i := 0; more(); i++ {
		if _, err := conn.Write(requests[i%len(requests)]); err != nil {
			return err
		}
		n := 0
		for !bytes.HasSuffix(answer[:n], []byte("\r\n\r\n")) {
			read, err := conn.Read(answer[n:])
			if err != nil {
				return err
			}
			n += read
		}
		if !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 307 ")) {
			return fmt.Errorf("got %s", answer[:n])
		}
	}
	return nil
}
