package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// relayed is a relay before a server that sends size bytes to whoever asks.
func relayed(t *testing.T, size int) *relay {
	t.Helper()
	body := bytes.Repeat([]byte("x"), size)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	t.Cleanup(upstream.Close)
	return startRelay(t, strings.TrimPrefix(upstream.URL, "http://"))
}

func TestRelayCountsEveryTimeTheUpstreamSends(t *testing.T) {
	const size = 1 << 20
	r := relayed(t, size)
	client := newClient(1)
	defer client.CloseIdleConnections()
	r.reset(0)
	for range 3 {
		if _, err := download(t.Context(), client, r.url(), size, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	sent, first := r.passed()
	if times := float64(sent) / size; times < 3 || times > 3.01 {
		t.Errorf("three responses of %d bytes were counted as %d", size, sent)
	}
	if first.IsZero() {
		t.Error("no time of the first byte")
	}
}

func TestRelayHoldsAllConnectionsToOneRate(t *testing.T) {
	const (
		size = 1 << 20
		rate = 8e6
	)
	r := relayed(t, size)
	r.reset(rate)
	s := &server{name: "the relay", url: r.url()}
	took := gather(t, s, "/", size, 2, 1).wall()
	// More than the ideal time is the machine's doing; less is a mistake, up
	// to the credit and one piece at the start, and one at the end, of each.
	ideal := 2 * size / rate
	if least := ideal - relayCredit.Seconds() - 4*relayPiece/rate; took < least {
		t.Errorf("two times %d bytes at %.0f bytes/s took %.3f s, which is less than %.3f s", size, rate, took, least)
	}
}

func TestRelayEndsWithConnectionsOpen(t *testing.T) {
	r := relayed(t, 10)
	client := newClient(1)
	defer client.CloseIdleConnections()
	if _, err := download(t.Context(), client, r.url(), 10, io.Discard); err != nil {
		t.Fatal(err)
	}
	// The cleanups wait for the relay; a connection that it left open would
	// keep them, and the test, forever. The client keeps its own open.
	if sent, first := r.passed(); sent < 10 || first.After(time.Now()) {
		t.Errorf("10 bytes were counted as %d at %v", sent, first)
	}
}
