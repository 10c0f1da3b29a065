package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryFormOfAnAddressIsWhereItLeads(t *testing.T) {
	for place, addresses := range map[Place][]string{
		Public: {
			"8.8.8.8", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2600::1", "2a00:1450::1",
			"64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8",
		},
		Private: {
			"10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.127.255.255", "198.18.0.1", "fd00::1", "fc00::1", "fec0::1",
			"::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:a00:1::1", "::10.0.0.1",
			"2001:0:0:0:0:0:f5ff:fffe", // Teredo's way to write 10.0.0.1
		},
		Loopback: {"127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"},
		Nowhere: {
			"169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%eth0", "0.0.0.0", "0.0.0.1", "::", "224.0.0.1", "ff02::1", "240.0.0.1",
			"255.255.255.255", "192.0.0.1", "100::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "::ffff:0.0.0.0",
			"fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
		},
	} {
		for _, address := range addresses {
			if got := Of(netip.MustParseAddr(address)); got != place {
				t.Errorf("%s is in place %d, want %d", address, got, place)
			}
		}
	}
}

// names is a resolver for whom every name has the address that answer returns.
func names(t *testing.T, answer func() netip.Addr) *net.Resolver {
	t.Helper()
	var lc net.ListenConfig
	server, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { server.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response = true
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: answer().As4()},
				}}
			}
			if packed, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(packed, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

func get(t *testing.T, c *http.Client, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func redirect(to *string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/there") {
			_, _ = io.WriteString(w, "there")
			return
		}
		http.Redirect(w, r, *to, http.StatusFound)
	})
}

// elsewhere is a client for whom the operator's host counts as a public one, though
// tests have none.
func elsewhere(tr *transport, host string) *http.Client {
	dial := tr.own.DialContext
	tr.own.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		tr.seen.Store(host, Public)
		return c, err
	}
	return &http.Client{Transport: tr, CheckRedirect: checkRedirect}
}

func TestAServerElsewhereCannotLeadIntoThisMachine(t *testing.T) {
	var inside atomic.Int64
	neighbour := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer neighbour.Close()
	to := ""
	server := httptest.NewServer(redirect(&to))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(neighbour.URL, "http://"))
	for _, to = range []string{
		neighbour.URL, "http://localhost:" + port, "http://[::ffff:127.0.0.1]:" + port, "http://0.0.0.0:" + port, "http://[::]:" + port,
		"http://127.1.2.3:" + port, "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[64:ff9b::7f00:1]:" + port,
		"http://[fd00:ec2::254]/", "http://100.64.0.1/",
	} {
		c := elsewhere(newTransport(net.Dialer{}), host)
		if _, err := get(t, c, server.URL); !errors.Is(err, ErrRefused) {
			t.Errorf("led to %s: %v", to, err)
		}
		c.CloseIdleConnections()
	}
	if inside.Load() != 0 {
		t.Errorf("the neighbour was asked %d times", inside.Load())
	}
	// One that is on this machine by configuration may lead to another that is.
	to = neighbour.URL
	c := NewClient()
	defer c.CloseIdleConnections()
	if _, err := get(t, c, server.URL); err != nil || inside.Load() != 1 {
		t.Errorf("a server on this machine may not lead to another: %v", err)
	}
	to = "http://169.254.169.254/"
	if _, err := get(t, c, server.URL); !errors.Is(err, ErrRefused) {
		t.Errorf("a server on this machine led to metadata: %v", err)
	}
}

func TestANameThatChangesItsMeaningIsJudgedByWhatIsDialled(t *testing.T) {
	var inside, asked atomic.Int64
	neighbour := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer neighbour.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(neighbour.URL, "http://"))
	to := fmt.Sprintf("http://rebound.example.org:%s/", port)
	server := httptest.NewServer(redirect(&to))
	defer server.Close()
	tr := newTransport(net.Dialer{Resolver: names(t, func() netip.Addr {
		asked.Add(1)
		return netip.MustParseAddr("127.0.0.1") // what it means by the time it is dialled
	})})
	c := elsewhere(tr, strings.TrimPrefix(server.URL, "http://"))
	defer c.CloseIdleConnections()
	if _, err := get(t, c, server.URL); !errors.Is(err, ErrRefused) || asked.Load() == 0 {
		t.Errorf("got %v, after %d questions", err, asked.Load())
	}
	if inside.Load() != 0 {
		t.Error("the neighbour was asked")
	}
}

func TestRedirectsHaveABoundAndKeepTheirScheme(t *testing.T) {
	to := "/again"
	server := httptest.NewTLSServer(redirect(&to))
	defer server.Close()
	c := &http.Client{Transport: server.Client().Transport, CheckRedirect: checkRedirect}
	if _, err := get(t, c, server.URL); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "more than 5") {
		t.Errorf("got %v", err)
	}
	to = "http://example.org/"
	if _, err := get(t, c, server.URL); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("got %v", err)
	}
	to = "/there"
	if body, err := get(t, c, server.URL); err != nil || body != "there" {
		t.Errorf("got %q, %v", body, err)
	}
}
