package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// relay stands before the upstream. It passes TCP connections on, counts the
// bytes of the upstream's responses and, when told to, holds them to a rate
// that all connections share. It knows nothing of HTTP, so that the kernel can
// move the bytes (splice) and the relay costs little of what is measured.
type relay struct {
	listener net.Listener
	target   string // host:port
	running  sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]struct{}
	sent  int64     // response bytes since reset
	first time.Time // when the first of them passed
	rate  float64   // bytes per second; 0 is no limit
	next  time.Time // when the rate lets the next bytes pass
}

const (
	// relayPiece is how much passes at once: a millisecond of the slow
	// upstream's, so that its rate is even.
	relayPiece = 64 << 10
	// relayCredit is how far the bytes may be behind the rate and still catch
	// up, because sleeping takes longer than asked for.
	relayCredit = 5 * time.Millisecond
)

// startRelay listens on a port of its own until the test ends.
func startRelay(t testing.TB, target string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("starting the relay before the upstream: %v", err)
	}
	r := &relay{listener: listener, target: target, open: map[net.Conn]struct{}{}}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		listener.Close()
		r.closeAll()
		r.running.Wait()
	})
	return r
}

// url is the base URL of the upstream behind the relay.
func (r *relay) url() string { return "http://" + r.listener.Addr().String() }

// reset starts counting anew and sets the rate, in bytes per second; 0 is no
// limit. It is for when nothing passes.
func (r *relay) reset(rate float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent, r.first, r.rate, r.next = 0, time.Time{}, rate, time.Time{}
}

// passed says how many bytes of responses passed since reset, and when the
// first did.
func (r *relay) passed() (bytes int64, first time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent, r.first
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		r.running.Go(func() { r.serve(client.(*net.TCPConn)) })
	}
}

func (r *relay) serve(client *net.TCPConn) {
	defer r.forget(client)
	dialed, err := net.Dial("tcp", r.target)
	if err != nil {
		return // the client sees its connection closed
	}
	upstream := dialed.(*net.TCPConn)
	defer r.forget(upstream)
	if !r.remember(client, upstream) {
		return
	}
	r.running.Go(func() {
		_, _ = io.Copy(upstream, client) // requests; either end may close
		_ = upstream.CloseWrite()
	})
	for {
		n, err := waiting(upstream)
		if err != nil || n == 0 {
			return
		}
		n = min(n, r.piece())
		r.pace(n) // before they pass, so that who has them finds them counted
		if _, err := io.CopyN(client, upstream, n); err != nil {
			return
		}
	}
}

// waiting blocks until there is something to read, and says how many bytes
// there are: 0 at the end of the stream.
func waiting(c *net.TCPConn) (int64, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		var peeked [1]byte
		switch _, _, failed = unix.Recvfrom(int(fd), peeked[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); failed {
		case nil:
			n, failed = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		case unix.EAGAIN, unix.EINTR: // wait, and look again
			return false
		}
		return true
	})
	return int64(n), errors.Join(err, failed)
}

// piece is how many bytes may pass at once.
func (r *relay) piece() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rate > 0 {
		return relayPiece
	}
	return 1 << 20
}

// pace counts n bytes, and waits for as long as the rate takes for them.
func (r *relay) pace(n int64) {
	r.mu.Lock()
	now := time.Now()
	if r.sent == 0 {
		r.first = now
	}
	r.sent += n
	var wait time.Duration
	if r.rate > 0 {
		if earliest := now.Add(-relayCredit); r.next.Before(earliest) {
			r.next = earliest
		}
		r.next = r.next.Add(time.Duration(float64(n) / r.rate * float64(time.Second)))
		wait = r.next.Sub(now)
	}
	r.mu.Unlock()
	time.Sleep(wait)
}

// remember lets closeAll close the connections, unless that is over.
func (r *relay) remember(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		return false
	}
	for _, c := range conns {
		r.open[c] = struct{}{}
	}
	return true
}

func (r *relay) forget(c net.Conn) {
	r.mu.Lock()
	delete(r.open, c)
	r.mu.Unlock()
	c.Close()
}

func (r *relay) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for c := range r.open {
		errs = append(errs, c.Close())
	}
	_ = errors.Join(errs...) // what is closed is what was wanted
	r.open = nil
}
