package admission

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// served is a server behind a gate.
type served struct {
	*Gate
	address string
	reg     *prometheus.Registry
}

// serve runs a handler behind a gate until the test ends.
func serve(t testing.TB, cfg Config, h http.HandlerFunc) *served {
	t.Helper()
	s := &served{reg: prometheus.NewRegistry()}
	cfg.Registerer = s.reg
	s.Gate = NewGate(cfg)
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = ln.Addr().String()
	server := &http.Server{Handler: s.Handler(h), ConnContext: s.ConnContext, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(s.Listen(ln.(*net.TCPListener))) })
	running.Go(func() { s.Run(ctx) })
	t.Cleanup(func() {
		server.Close()
		end()
		running.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.conns) != 0 || len(s.guests) != 0 || s.surplus != 0 || s.requests.Load() != 0 {
			t.Errorf("%d connections, %d clients, %d surplus and %d requests remain", len(s.conns), len(s.guests), s.surplus, s.requests.Load())
		}
	})
	return s
}

// dial connects from a loopback address. A connection that is reset at once is one
// on which nothing can be read.
func (s *served) dial(t testing.TB, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", s.address)
	if errors.Is(err, syscall.ECONNRESET) {
		ended, c := net.Pipe()
		ended.Close()
		return c
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// client makes requests from a loopback address.
func client(t testing.TB, from string) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	tr := &http.Transport{DialContext: d.DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (s *served) get(t testing.TB, c *http.Client, path string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// metric is the sum of a metric's series whose label reason, if it has one, is that.
func (s *served) metric(t testing.TB, name, reason string) (sum float64) {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if reason == "" || slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == reason }) {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

// wantRefusal checks an answer of 429 or 503 as clients of a registry read it.
func wantRefusal(t testing.TB, resp *http.Response, status int) {
	t.Helper()
	var body struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if resp.StatusCode != status || resp.Header.Get("Retry-After") != "1" {
		t.Fatalf("got %d with Retry-After %q, want %d", resp.StatusCode, resp.Header.Get("Retry-After"), status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || len(body.Errors) != 1 {
		t.Errorf("the body is no error of the registry's API: %v, %v", body, err)
	}
}

func TestAThousandConnectionsOfOneClientKeepNobodyElseWaiting(t *testing.T) {
	s := serve(t, Config{MaxConnections: 1000}, say("ok"))
	var greedy []net.Conn
	for range 1000 { // of which it may have 750
		greedy = append(greedy, s.dial(t, "127.0.0.2"))
	}
	other := client(t, "127.0.0.3")
	for range 20 {
		start := time.Now()
		if resp := s.get(t, other, "/"); resp.StatusCode != http.StatusOK {
			t.Fatalf("another client got %d", resp.StatusCode)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("another client waited for %v", took)
		}
		other.CloseIdleConnections() // each on a connection of its own
	}
	s.mu.Lock()
	if v := s.guests[ClientOf(netip.MustParseAddr("127.0.0.2"))]; v.connections-v.surplus != 750 {
		n := v.connections - v.surplus
		t.Errorf("one client has %d of 1000 connections, want 750", n)
	}
	s.mu.Unlock()
	if n := s.metric(t, "entrepot_refused_total", "client_connections"); n != 250 {
		t.Errorf("%v connections are counted as refused, want 250", n)
	}
	for _, c := range greedy {
		c.Close()
	}
}

func TestAConnectionTooManyIsToldSo(t *testing.T) {
	s := serve(t, Config{MaxConnections: 8, MaxConnectionsPerClient: 2}, say("ok"))
	for range 2 {
		s.dial(t, "127.0.0.2")
	}
	resp := s.get(t, client(t, "127.0.0.2"), "/v2/")
	wantRefusal(t, resp, http.StatusTooManyRequests)
	if !resp.Close {
		t.Error("the connection goes on")
	}
	for i := range 6 {
		s.dial(t, fmt.Sprintf("127.0.1.%d", i+1))
	}
	wantRefusal(t, s.get(t, client(t, "127.0.0.9"), "/v2/"), http.StatusServiceUnavailable)
}

func TestConnectionsThatAreTooManyAreEndedThoughTheyAskNothing(t *testing.T) {
	s := serve(t, Config{MaxConnections: 8, MaxConnectionsPerClient: 1, Pace: 80 * time.Millisecond}, say("ok"))
	s.dial(t, "127.0.0.2")
	for range 20 {
		c := s.dial(t, "127.0.0.2")
		_ = c.SetReadDeadline(time.Now().Add(surplusTime + 5*time.Second))
		defer func() {
			if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("a surplus connection is not ended: %v", err)
			}
		}()
	}
}

func TestRequestsInFlightAreBoundedAndSharedByClients(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, 64)
	s := serve(t, Config{MaxRequests: 16}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-hold
		}
	})
	var running sync.WaitGroup
	slow := func(from string) {
		running.Go(func() { s.get(t, client(t, from), "/slow").Body.Close() })
		<-entered
	}
	for range 12 {
		slow("127.0.0.2")
	}
	wantRefusal(t, s.get(t, client(t, "127.0.0.2"), "/v2/"), http.StatusTooManyRequests)
	for i := range 4 {
		if resp := s.get(t, client(t, "127.0.0.3"), "/"); resp.StatusCode != http.StatusOK {
			t.Errorf("another client got %d", resp.StatusCode)
		}
		slow(fmt.Sprintf("127.0.1.%d", i+1))
	}
	wantRefusal(t, s.get(t, client(t, "127.0.0.4"), "/v2/"), http.StatusServiceUnavailable)
	if n := s.metric(t, "entrepot_requests_in_flight", ""); n != 16 {
		t.Errorf("%v requests in flight, want 16", n)
	}
	close(hold)
	running.Wait()
	if resp := s.get(t, client(t, "127.0.0.4"), "/"); resp.StatusCode != http.StatusOK {
		t.Errorf("got %d after all have ended", resp.StatusCode)
	}
}

func TestClientsBehindATrustedForwarderAreToldApart(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, 64)
	s := serve(t, Config{
		MaxConnectionsPerClient: 1, MaxRequestsPerClient: 2,
		Trusts: func(peer netip.Addr) bool { return peer.String() == "127.0.0.7" },
		Client: func(r *http.Request) (netip.Addr, error) { return netip.ParseAddr(r.Header.Get("X-Forwarded-For")) },
	}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, clientsOf(r.Context())[0])
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-hold
		}
	})
	ask := func(path, client string) *http.Response {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.7")}}
		tr := &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+path, http.NoBody)
		req.Header.Set("X-Forwarded-For", client)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return &http.Response{Body: http.NoBody}
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() { ask("/slow", "198.51.100.1") })
		<-entered
	}
	wantRefusal(t, ask("/v2/", "198.51.100.1"), http.StatusTooManyRequests)
	resp := ask("/", "198.51.100.2")
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(body) != "198.51.100.2" {
		t.Errorf("another client behind the forwarder got %d, as %s", resp.StatusCode, body)
	}
	close(hold)
	running.Wait()
}

func TestAReaderThatTakesNothingIsCutOff(t *testing.T) {
	ended := make(chan error, 1)
	s := serve(t, Config{Pace: 200 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, 32<<20)) // more than what the kernel takes by itself
		ended <- err
	})
	c := s.dial(t, "127.0.0.2")
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-ended; err == nil {
		t.Error("the write succeeded though nobody read")
	}
	if n := s.metric(t, "entrepot_refused_total", "slow"); n != 1 {
		t.Errorf("%v connections are counted as slow", n)
	}
}

func TestABodyThatNobodyReadsAndThatComesByteByByteIsNotWaitedFor(t *testing.T) {
	s := serve(t, Config{Pace: 300 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) })
	c := s.dial(t, "127.0.0.2")
	_, _ = io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
	stop := make(chan struct{})
	var dripping sync.WaitGroup
	dripping.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = c.Write([]byte("x"))
			case <-stop:
				return
			}
		}
	})
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("got %v, %v", resp, err)
	}
	close(stop)
	dripping.Wait()
}

func TestAStreamOfHTTP2ThatTakesNothingIsReset(t *testing.T) {
	ended := make(chan error, 1)
	h := func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, 1<<20)) // more than a client's window
		ended <- err
	}
	gate := NewGate(Config{Pace: 300 * time.Millisecond, MaxRequests: 10})
	server := httptest.NewUnstartedServer(gate.Handler(http.HandlerFunc(h)))
	server.Listener = gate.Listen(server.Listener.(*net.TCPListener))
	server.Config.ConnContext = gate.ConnContext
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	tr := server.Client().Transport.(*http.Transport)
	tr.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
	tr.TLSClientConfig.MinVersion = tls.VersionTLS12
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // unread
	if resp.ProtoMajor != 2 {
		t.Fatalf("spoke %s", resp.Proto)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the write succeeded though nobody read")
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream is not ended")
	}
}

func TestTheHotPathAllocatesNothingForItsLimits(t *testing.T) {
	gate := NewGate(Config{MaxConnections: 100, MaxRequests: 100, Pace: time.Minute})
	c := &conn{gate: gate, guest: &guest{}, refusal: reasons}
	h := gate.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), connKey{}, c), http.MethodGet, "/", http.NoBody)
	if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkHandler(b *testing.B) {
	gate := NewGate(Config{MaxConnections: 100, MaxRequests: 100, Pace: time.Minute})
	c := &conn{gate: gate, guest: &guest{}, refusal: reasons}
	h := gate.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.WithValue(b.Context(), connKey{}, c), http.MethodGet, "/", http.NoBody)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
