package testenv

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Tap is a reverse proxy, behind a [Relay], that remembers what was asked through
// it. A node whose upstream is a tap can be asked what it spent on upstream, and
// loses its upstream when the tap is closed.
type Tap struct {
	*Relay

	mu       sync.Mutex
	requests []TapRequest
}

// TapRequest is one request that passed a [Tap].
type TapRequest struct {
	Method        string
	Path          string
	Range         string // header
	Status        int
	Bytes         int64  // of the body that was passed on
	Authorization string // as sent
}

// IsBlobGet says whether the request transferred a blob.
func (r TapRequest) IsBlobGet() bool {
	return r.Method == http.MethodGet && strings.Contains(r.Path, "/blobs/")
}

// IsPull says whether a registry would count the request as a pull: the GET of
// a manifest.
func (r TapRequest) IsPull() bool {
	return r.Method == http.MethodGet && strings.Contains(r.Path, "/manifests/")
}

func (r TapRequest) String() string {
	return fmt.Sprintf("%s %s %s→ %d, %d bytes", r.Method, r.Path, r.Range, r.Status, r.Bytes)
}

// StartTap puts a tap in front of the server at target, a base URL. It ends
// with the test.
func StartTap(t testing.TB, target string) *Tap {
	t.Helper()
	return startTap(t, Place{}, target, "")
}

// startTap starts a tap that processes at a place can reach. It says which client it
// forwards for, unless that is empty.
func startTap(t testing.TB, at Place, target, client string) *Tap {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatalf("parsing the URL to tap: %v", err)
	}
	tap := new(Tap)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			if client != "" {
				r.Out.Header.Set("X-Forwarded-For", client)
			}
		},
		// A client that leaves early, or an upstream that was stopped, is what
		// the tests are about and needs no line in their output.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted := &countingWriter{ResponseWriter: w, status: http.StatusOK}
		// A copy cut short ends in a panic, which closes the connection.
		defer func() {
			tap.record(TapRequest{
				Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range"),
				Status: counted.status, Bytes: counted.bytes, Authorization: r.Header.Get("Authorization"),
			})
		}()
		proxy.ServeHTTP(counted, r)
	}))
	server.Config.ErrorLog = proxy.ErrorLog
	t.Cleanup(server.Close)
	tap.Relay = StartRelayFor(t, at, server.Listener.Addr().String())
	return tap
}

// Requests lists what passed since the last [Tap.Reset].
func (tap *Tap) Requests() []TapRequest {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return slices.Clone(tap.requests)
}

// Reset forgets the requests so far.
func (tap *Tap) Reset() {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.requests = nil
}

func (tap *Tap) record(r TapRequest) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.requests = append(tap.requests, r)
}

// countingWriter counts the bytes of a response.
type countingWriter struct {
	http.ResponseWriter

	status int
	bytes  int64
}

func (w *countingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection, which is how the
// reverse proxy flushes.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
