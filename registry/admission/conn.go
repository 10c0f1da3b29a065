package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"

	"entrepot/registry"
)

// Listen is ln, whose connections the gate counts and bounds.
func (g *Gate) Listen(ln *net.TCPListener) net.Listener { return &listener{ln, g} }

type listener struct {
	*net.TCPListener
	gate *Gate
}

// Accept waits for a connection that is let in. Refusing one does not keep others
// waiting.
func (l *listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if c := l.gate.admit(tcp); c != nil {
			return c, nil
		}
		// With a reset nothing of it remains here, not even for a minute.
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	}
}

// admit counts a connection; nil says that it is not let in.
func (g *Gate) admit(tcp *net.TCPConn) *conn {
	peer, _ := tcp.RemoteAddr().(*net.TCPAddr)
	if peer == nil {
		return nil // it is gone already
	}
	addr := peer.AddrPort().Addr().Unmap().WithZone("")
	c := &conn{TCPConn: tcp, gate: g, refusal: reasons}
	c.forwarder = g.cfg.Trusts != nil && g.cfg.Trusts(addr)

	g.mu.Lock()
	defer g.mu.Unlock()
	c.guest = g.guest(ClientOf(addr))
	has, free := c.guest.connections-c.guest.surplus, g.cfg.MaxConnections-(len(g.conns)-g.surplus)
	switch {
	case g.cfg.MaxConnections > 0 && free <= 0:
		c.refusal = tooManyConnections
	case c.forwarder:
	case g.cfg.MaxConnections > 0 && !mayTake(has, free), g.cfg.MaxConnectionsPerClient > 0 && has >= g.cfg.MaxConnectionsPerClient:
		c.refusal = tooManyOfClient
	}
	if c.refusal != reasons {
		g.refused[c.refusal].Add(1)
		if g.surplus == maxSurplus || c.guest.surplus == maxSurplusOfClient {
			g.tidy(c.guest)
			return nil
		}
		g.surplus++
		c.guest.surplus++
		c.until = g.clock.Load() + int64(surplusTime)
	}
	c.guest.connections++
	g.conns[c] = struct{}{}
	return c
}

// conn is a connection that was let in. Its files are sent by the kernel, as those
// of any connection of net.
type conn struct {
	*net.TCPConn
	gate      *Gate
	guest     *guest
	forwarder bool
	refusal   reason       // why it is one too many; reasons when it is not
	until     int64        // on the gate's clock; 0 is without end
	writing   atomic.Int64 // until when a write that is under way has to end, on the gate's clock; 0 while there is none
	closed    atomic.Bool

	gathering bool
	body      int64         // of what is gathered, in bytes
	gathered  *bytes.Buffer // from the gate's pool while it holds something; else nil
}

// paceBytes is how much a client may be sent by one write within the pace.
const paceBytes = 4 << 20

// Write implements net.Conn. The gate cuts a client off that does not take it.
func (c *conn) Write(p []byte) (int, error) {
	if !c.gathering {
		return c.send(p)
	}
	if c.gathered == nil {
		c.gathered = c.gate.buffers.Get().(*bytes.Buffer)
	}
	_, _ = c.gathered.Write(p) // memory takes all
	if header := bytes.Index(c.gathered.Bytes(), []byte(endOfHeader)); header >= 0 && int64(c.gathered.Len()-header-len(endOfHeader)) >= c.body {
		if err := c.Send(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// endOfHeader is what comes between a header and its body (RFC 9112, section 2.1).
const endOfHeader = "\r\n\r\n"

// ReadFrom implements io.ReaderFrom: the kernel sends files.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if err := c.Send(); err != nil {
		return 0, err
	}
	return c.TCPConn.ReadFrom(r)
}

// Gather implements registry.Gatherer.
func (c *conn) Gather(body int64) { c.gathering, c.body = true, body }

// Send implements registry.Gatherer.
func (c *conn) Send() error {
	c.gathering = false
	buf := c.gathered
	if buf == nil {
		return nil
	}
	c.gathered = nil
	_, err := c.send(buf.Bytes())
	buf.Reset()
	c.gate.buffers.Put(buf)
	return err
}

func (c *conn) send(p []byte) (int, error) {
	if pace := int64(c.gate.cfg.Pace); pace > 0 {
		c.writing.Store(c.gate.clock.Load() + pace*int64(1+len(p)/paceBytes))
		defer c.writing.Store(0)
	}
	return c.TCPConn.Write(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		g := c.gate
		g.mu.Lock()
		delete(g.conns, c)
		c.guest.connections--
		if c.refusal != reasons {
			g.surplus--
			c.guest.surplus--
		}
		g.tidy(c.guest)
		g.mu.Unlock()
	}
	return c.TCPConn.Close()
}

// reset ends a connection whose client takes nothing: what was written for it is
// forgotten.
func (c *conn) reset() {
	_ = c.SetLinger(0)
	_ = c.Close()
}

type connKey struct{}

// ConnContext is for an http.Server: requests of a connection find it again.
func (g *Gate) ConnContext(ctx context.Context, nc net.Conn) context.Context {
	t, encrypted := nc.(*tls.Conn)
	if encrypted {
		nc = t.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return ctx
	}
	if !encrypted {
		ctx = registry.WithGatherer(ctx, c)
	}
	return context.WithValue(ctx, connKey{}, c)
}
