package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// transferTimeout bounds one download: the slowest peer needs a fifth of it.
const transferTimeout = 2 * time.Minute

// clientBuffer is what a client reads at once. It is larger than the buffer
// within net/http, which is then left out, and small enough for a core's cache.
const clientBuffer = 256 << 10

// newClient is a client that keeps connections alive, and no more of them than
// told. It asks for no compression.
func newClient(connections int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableCompression:  true,
		MaxIdleConnsPerHost: connections,
		MaxConnsPerHost:     connections,
	}}
}

// transfer is how a download went.
type transfer struct {
	first time.Time // when the first byte of the body came
	last  time.Time
}

// download gets url, writes what it gets to w and checks its size. The error
// says how many bytes there were.
func download(ctx context.Context, client *http.Client, url string, size int64, w io.Writer) (transfer, error) {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	var got transfer
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return got, err
	}
	response, err := client.Do(request)
	if err != nil {
		return got, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return got, fmt.Errorf("downloading %s: %s", url, response.Status)
	}
	buffer := make([]byte, clientBuffer)
	var n int64
	for {
		k, err := response.Body.Read(buffer)
		if k > 0 {
			if n == 0 {
				got.first = time.Now()
			}
			n += int64(k)
			if _, err := w.Write(buffer[:k]); err != nil {
				return got, fmt.Errorf("downloading %s: writing: %w", url, err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return got, fmt.Errorf("downloading %s: at byte %d: %w", url, n, err)
		}
	}
	if n != size {
		return got, fmt.Errorf("downloading %s: %d bytes instead of %d", url, n, size)
	}
	got.last = time.Now()
	return got, nil
}

// crowd is how a number of clients that asked at once were served.
type crowd struct {
	start     time.Time
	transfers []transfer
}

// wall is the seconds from the start to the end of the last transfer.
func (c crowd) wall() float64 {
	last := c.start
	for _, t := range c.transfers {
		if t.last.After(last) {
			last = t.last
		}
	}
	return last.Sub(c.start).Seconds()
}

// lastFirst is when the last of the clients got its first byte.
func (c crowd) lastFirst() time.Time {
	last := c.start
	for _, t := range c.transfers {
		if t.first.After(last) {
			last = t.first
		}
	}
	return last
}

// gather has a number of clients, each with a connection of its own, download
// the same blob at once, each as often as told, and drop it.
func gather(t testing.TB, s *server, path string, size int64, clients, times int) crowd {
	t.Helper()
	client := newClient(clients)
	defer client.CloseIdleConnections()
	c := crowd{transfers: make([]transfer, clients)}
	errs := make([]error, clients)
	start := make(chan struct{})
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			<-start
			for range times {
				c.transfers[i], errs[i] = download(t.Context(), client, s.url+path, size, io.Discard)
				if errs[i] != nil {
					return
				}
			}
		})
	}
	c.start = time.Now()
	close(start)
	running.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatalf("measuring %s: %v", s.name, err)
		}
	}
	return c
}

// verify downloads a blob once more and checks that it is the one that was
// asked for. It is not timed.
func verify(t testing.TB, s *server, path string, want ocispec.Descriptor) {
	t.Helper()
	client := newClient(1)
	defer client.CloseIdleConnections()
	verifier := want.Digest.Verifier()
	if _, err := download(t.Context(), client, s.url+path, want.Size, verifier); err != nil {
		t.Fatalf("verifying what %s sends: %v", s.name, err)
	}
	if !verifier.Verified() {
		t.Fatalf("verifying what %s sends: it is not %s", s.name, want.Digest)
	}
}

// verifyManifest checks what a manifest's path gives.
func verifyManifest(t testing.TB, s *server, path string, want digest.Digest) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatalf("verifying what %s sends: %v", s.name, err)
	}
	request.Header.Set("Accept", acceptManifest)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("verifying what %s sends: %v", s.name, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("verifying what %s sends: %v", s.name, err)
	}
	if response.StatusCode != http.StatusOK || want != digest.FromBytes(body) {
		t.Fatalf("verifying what %s sends: %s with %d bytes is not %s", s.name, response.Status, len(body), want)
	}
}
