package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Relay passes TCP connections on to a server, counts the bytes of its
// responses, and does to them, when told to, what networks do: it refuses, cuts,
// stalls, slows and changes bytes. It knows nothing of HTTP, so that the kernel
// can move the bytes (splice) and the relay costs little of what is measured.
type Relay struct {
	t       testing.TB
	target  string // host:port
	address string
	running sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while closed
	open     map[*net.TCPConn]struct{}
	sent     int64         // response bytes since Pace
	first    time.Time     // when the first of them passed
	rate     float64       // bytes per second that all connections share; 0 is no limit
	next     time.Time     // when the rate lets the next bytes pass
	flows    chan struct{} // open while nothing passes, closed otherwise
	limit    int64         // response bytes until it closes, and one; 0 is none
	changes  int           // of how many pieces a byte is still to be changed
	small    bool          // of small pieces, and not of large ones
	harm     Harm
	ended    bool
}

// Harm is what a [Relay] did so far to what passes it.
type Harm struct {
	Cut     int // connections
	Held    int // pieces, while nothing passed
	Slowed  int // pieces
	Changed int // bytes
}

const (
	// relayPiece is how much passes at once: a millisecond of the benchmarks'
	// slow upstream, so that its rate is even.
	relayPiece = 64 << 10
	// relayCredit is how far the bytes may be behind the rate and still catch
	// up, because sleeping takes longer than asked for.
	relayCredit = 5 * time.Millisecond
	// largePiece is what headers do not fill: a byte in the second half of so
	// many is content.
	largePiece = 16 << 10
)

// StartRelay starts a relay before the server at target, host:port. It ends with
// the test.
func StartRelay(t testing.TB, target string) *Relay {
	t.Helper()
	return StartRelayFor(t, Place{}, target)
}

// StartRelayFor starts a relay that processes at a place can reach.
func StartRelayFor(t testing.TB, clients Place, target string) *Relay {
	t.Helper()
	host := clients.server()
	r := &Relay{t: t, target: target, address: fmt.Sprintf("%s:%d", host, freePort(t, host)), open: map[*net.TCPConn]struct{}{}}
	r.flows = make(chan struct{})
	close(r.flows)
	r.Open()
	t.Cleanup(func() {
		r.Close()
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		r.Flow()
		r.running.Wait()
	})
	return r
}

// Address is where the relay listens, host:port. It stays the same when the relay
// is closed and opened again.
func (r *Relay) Address() string { return r.address }

// URL is the base URL of the server behind the relay.
func (r *Relay) URL() string { return "http://" + r.address }

// Pace holds all connections together to a rate, in bytes of responses per second,
// and starts counting anew; 0 is no limit.
func (r *Relay) Pace(rate float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent, r.first, r.rate, r.next = 0, time.Time{}, rate, time.Time{}
}

// Passed says how many bytes of responses passed since Pace, and when the
// first did.
func (r *Relay) Passed() (bytes int64, first time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent, r.first
}

// Open lets connections pass again after [Relay.Close].
func (r *Relay) Open() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil || r.ended {
		return
	}
	listener, err := net.Listen("tcp", r.address)
	if err != nil {
		r.t.Fatalf("opening the relay before %s: %v", r.target, err)
	}
	r.listener = listener
	r.running.Go(func() { r.accept(listener) })
}

// Close cuts every connection and refuses new ones.
func (r *Relay) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		_ = r.listener.Close() // nothing is lost with it
		r.listener = nil
	}
	r.limit = 0
	r.cut()
}

// CloseAfter closes the relay in the middle of what it passes on, after so many
// more bytes of responses.
func (r *Relay) CloseAfter(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = bytes + 1
}

// Cut cuts every connection, at both ends with a reset, and lets new ones pass.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		_ = c.SetLinger(0) // else the end of a stream would be sent
	}
	r.cut()
}

// cut closes every connection. mu is held.
func (r *Relay) cut() {
	r.harm.Cut += len(r.open) / 2 // each is one to the client and one to the server
	for c := range r.open {
		_ = c.Close()
	}
	clear(r.open)
}

// Stall lets nothing pass in either direction and closes nothing, until
// [Relay.Flow]: a black hole.
func (r *Relay) Stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.flows:
		r.flows = make(chan struct{})
	default:
	}
}

// Flow ends what [Relay.Stall] began.
func (r *Relay) Flow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.flows:
	default:
		close(r.flows)
	}
}

// Change changes a byte of content in each of the next n large pieces of
// responses; 0 ends it.
func (r *Relay) Change(n int) { r.change(n, false) }

// ChangeSmall changes a byte in the body of each of the next n small answers:
// manifests, records, pieces of a ledger. Of what is large it changes nothing; 0 ends
// it.
func (r *Relay) ChangeSmall(n int) { r.change(n, true) }

func (r *Relay) change(n int, small bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes, r.small = n, small
}

// Harm is what the relay did so far.
func (r *Relay) Harm() Harm {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.harm
}

func (r *Relay) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed
		}
		r.running.Go(func() { r.serve(listener, client.(*net.TCPConn)) })
	}
}

func (r *Relay) serve(listener net.Listener, client *net.TCPConn) {
	defer r.forget(client)
	dialed, err := net.Dial("tcp", r.target)
	if err != nil {
		return // the client sees its connection closed
	}
	upstream := dialed.(*net.TCPConn)
	defer r.forget(upstream)
	if !r.remember(listener, client, upstream) {
		return
	}
	r.running.Go(func() { // requests; either end may close
		for {
			n, err := waiting(client)
			if err != nil || n == 0 {
				break
			}
			r.awaitFlow()
			if _, err := io.CopyN(upstream, client, n); err != nil {
				break
			}
		}
		_ = upstream.CloseWrite()
	})
	for {
		n, err := waiting(upstream)
		if err != nil || n == 0 {
			return
		}
		r.awaitFlow()
		p := r.admit(n) // before they pass, so that who has them finds them counted
		if p.change {
			err = r.pass(client, upstream, p.bytes)
		} else {
			_, err = io.CopyN(client, upstream, p.bytes)
		}
		if p.last {
			r.Close()
		}
		if err != nil || p.last {
			return
		}
	}
}

func (r *Relay) awaitFlow() {
	r.mu.Lock()
	flows := r.flows
	select {
	case <-flows:
	default:
		r.harm.Held++
	}
	r.mu.Unlock()
	<-flows
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

// piece is a part of a response that passes at once.
type piece struct {
	bytes  int64
	change bool // a byte of it, if it is content
	last   bool // before the relay closes
}

// admit counts the piece of n waiting bytes that may pass now, and waits for as
// long as the rate takes for it.
func (r *Relay) admit(n int64) piece {
	r.mu.Lock()
	p := piece{bytes: min(n, 1<<20)}
	if r.rate > 0 {
		p.bytes = min(n, relayPiece)
	}
	if r.limit > 0 {
		p.bytes = min(p.bytes, r.limit-1)
		r.limit -= p.bytes
		p.last = r.limit == 1
	}
	p.change = r.changes > 0 && r.small == (p.bytes < largePiece)
	now := time.Now()
	if r.sent == 0 {
		r.first = now
	}
	r.sent += p.bytes
	var wait time.Duration
	if r.rate > 0 {
		if earliest := now.Add(-relayCredit); r.next.Before(earliest) {
			r.next = earliest
		}
		r.next = r.next.Add(time.Duration(float64(p.bytes) / r.rate * float64(time.Second)))
		if wait = r.next.Sub(now); wait > 0 {
			r.harm.Slowed++
		}
	}
	r.mu.Unlock()
	time.Sleep(wait)
	return p
}

// pass passes n bytes on, one of their content changed where there is any.
func (r *Relay) pass(to io.Writer, from io.Reader, n int64) error {
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return err
	}
	at := len(b) * 3 / 4
	if len(b) < largePiece {
		// The one line of HTTP that it knows: content is after an empty line.
		head := bytes.Index(b, []byte("\r\n\r\n")) + len("\r\n\r\n")
		at = (head + len(b)) / 2
		if head < len("\r\n\r\n") || at == len(b) {
			at = -1
		}
	}
	r.mu.Lock()
	if at >= 0 && r.changes > 0 {
		b[at] ^= 1 // which makes another digit of a digit
		r.changes--
		r.harm.Changed++
	}
	r.mu.Unlock()
	_, err := to.Write(b)
	return err
}

// remember lets Close and Cut close the connections, unless the relay was closed
// since they were accepted.
func (r *Relay) remember(listener net.Listener, conns ...*net.TCPConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != listener {
		return false
	}
	for _, c := range conns {
		r.open[c] = struct{}{}
	}
	return true
}

func (r *Relay) forget(c *net.TCPConn) {
	r.mu.Lock()
	delete(r.open, c)
	r.mu.Unlock()
	_ = c.Close() // it may be closed already
}
