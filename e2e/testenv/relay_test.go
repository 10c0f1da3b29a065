package testenv

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// relayed is a relay before a server that sends size bytes to whoever asks, and a
// client of it.
func relayed(t *testing.T, size int) (*Relay, *relayClient) {
	t.Helper()
	body := bytes.Repeat([]byte("x"), size)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	t.Cleanup(upstream.Close)
	r := StartRelay(t, upstream.Listener.Addr().String())
	c := &relayClient{t: t, url: r.URL()}
	t.Cleanup(c.CloseIdleConnections)
	return r, c
}

type relayClient struct {
	http.Client

	t   *testing.T
	url string
}

func (c *relayClient) download() ([]byte, error) {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %s", response.Status)
	}
	return io.ReadAll(response.Body)
}

func (c *relayClient) want(size int) {
	c.t.Helper()
	if b, err := c.download(); err != nil || len(b) != size {
		c.t.Errorf("got %d bytes and %v, want %d", len(b), err, size)
	}
}

func TestRelayCountsEveryTimeTheUpstreamSends(t *testing.T) {
	const size = 1 << 20
	r, client := relayed(t, size)
	for range 3 {
		client.want(size)
	}
	sent, first := r.Passed()
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
	r, client := relayed(t, size)
	r.Pace(rate)
	start, other := time.Now(), make(chan error)
	go func() {
		_, err := client.download()
		other <- err
	}()
	client.want(size)
	if err := <-other; err != nil {
		t.Error(err)
	}
	took := time.Since(start).Seconds()
	// More than the ideal time is the machine's doing; less is a mistake, up
	// to the credit and one piece at the start, and one at the end, of each.
	if least := 2*size/rate - relayCredit.Seconds() - 4*relayPiece/rate; took < least {
		t.Errorf("two times %d bytes at %.0f bytes/s took %.3f s, which is less than %.3f s", size, rate, took, least)
	}
}

func TestRelayEndsWithConnectionsOpen(t *testing.T) {
	r, client := relayed(t, 10)
	client.want(10)
	// The cleanups wait for the relay; a connection that it left open would
	// keep them, and the test, forever. The client keeps its own open.
	if sent, first := r.Passed(); sent < 10 || first.After(time.Now()) {
		t.Errorf("10 bytes were counted as %d at %v", sent, first)
	}
}

func TestRelayThatIsClosedRefusesUntilItIsOpened(t *testing.T) {
	const size = 1 << 20
	r, client := relayed(t, size)
	client.want(size)
	r.Close()
	if b, err := client.download(); err == nil {
		t.Errorf("a closed relay passed %d bytes", len(b))
	}
	r.Open()
	client.want(size)
}

func TestRelayClosesInTheMiddleOfAResponse(t *testing.T) {
	const size = 1 << 20
	r, client := relayed(t, size)
	r.CloseAfter(size / 2)
	if b, err := client.download(); err == nil || len(b) > size/2 {
		t.Errorf("got %d bytes and %v of a response that was cut at %d", len(b), err, size/2)
	}
	if _, err := client.download(); err == nil {
		t.Error("it still passes connections")
	}
}

func TestRelayThatStallsClosesNothing(t *testing.T) {
	const size = 1 << 20
	r, client := relayed(t, size)
	client.want(size)
	r.Stall()
	ended := make(chan error, 1)
	go func() {
		b, err := client.download()
		if err == nil && len(b) != size {
			err = fmt.Errorf("got %d bytes", len(b))
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Errorf("a request ended while nothing passes: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	r.Flow()
	if err := <-ended; err != nil {
		t.Errorf("after the stall: %v", err)
	}
}

func TestRelayThatCutsTakesNewConnections(t *testing.T) {
	const size = 1 << 20
	r, client := relayed(t, size)
	r.Stall()
	ended := make(chan error, 1)
	go func() {
		_, err := (&relayClient{t: t, url: client.url, Client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}).download()
		ended <- err
	}()
	for connected := false; !connected; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		connected = len(r.open) > 0
		r.mu.Unlock()
	}
	r.Cut()
	if err := <-ended; err == nil {
		t.Error("a request was answered over a connection that was cut")
	}
	r.Flow()
	client.want(size)
}

func TestRelayChangesOneByteOfContentInEachPiece(t *testing.T) {
	const size = 1 << 20
	r, client := relayed(t, size)
	r.Change(1)
	b, err := client.download()
	if err != nil || len(b) != size || bytes.Count(b, []byte("x")) != size-1 || r.Harm().Changed != 1 {
		t.Errorf("got %d bytes and %v, %d as they were, and %d changed", len(b), err, bytes.Count(b, []byte("x")), r.Harm().Changed)
	}
	if b, err = client.download(); err != nil || bytes.Count(b, []byte("x")) != size {
		t.Errorf("the next has %d bytes as they were, and %v", bytes.Count(b, []byte("x")), err)
	}
}

func TestRelayChangesTheBodyOfASmallAnswerAndNotItsHeader(t *testing.T) {
	const size = 100
	r, client := relayed(t, size)
	r.ChangeSmall(1)
	b, err := client.download()
	if err != nil || len(b) != size || bytes.Count(b, []byte("x")) != size-1 || r.Harm().Changed != 1 {
		t.Errorf("got %d bytes and %v, %d as they were, and %d changed", len(b), err, bytes.Count(b, []byte("x")), r.Harm().Changed)
	}
}
