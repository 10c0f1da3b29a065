package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"entrepot/registry/reach"
)

// network is the connections of a client: those to hosts that its caller
// named, and those to hosts that an answer named, by a redirect.
type network struct {
	named, others http.RoundTripper
	close         func()
}

func newNetwork(cfg *Config) *network {
	if cfg.Transport != nil {
		bounded := &deadlines{next: cfg.Transport, cfg: cfg}
		return &network{named: bounded, others: bounded, close: func() {}}
	}
	dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}
	named := newTransport(cfg, http.ProxyFromEnvironment, dialer.DialContext)
	wary := newWaryDialer(dialer)
	others := newTransport(cfg, wary.proxy, wary.dial)
	return &network{
		named: &deadlines{next: named, cfg: cfg}, others: &deadlines{next: others, cfg: cfg},
		close: func() {
			named.CloseIdleConnections()
			others.CloseIdleConnections()
		},
	}
}

func newTransport(cfg *Config, proxy func(*http.Request) (*url.URL, error),
	dial func(context.Context, string, string) (net.Conn, error),
) *http.Transport {
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            dial,
		TLSHandshakeTimeout:    cfg.ConnectTimeout,
		IdleConnTimeout:        time.Minute,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    cfg.Concurrency + 2*cfg.Streams,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // or net/http asks for gzip by itself
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: cfg.StallTimeout, // finds dead connections
			PingTimeout:     cfg.ConnectTimeout,
		},
	}
}

// waryDialer refuses addresses that only this machine or its cloud can reach:
// no registry may make promotion ask those for it. It judges the address that
// is dialled, which no name can change any more. Loopback registries may send
// to loopback: [host.follow] sends those here only from hosts that are not.
type waryDialer struct {
	plain, wary *net.Dialer
	proxies     sync.Map // host:port of proxies from the environment
}

func newWaryDialer(plain *net.Dialer) *waryDialer {
	wary := *plain
	wary.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dialling %q: %w", address, err)
		}
		ip := ap.Addr().Unmap()
		if at := reach.Of(ip); at == reach.Loopback || at == reach.Nowhere {
			return failf(ErrRefused, "redirected to a host whose address %s is local to this machine", ip)
		}
		return nil
	}
	return &waryDialer{plain: plain, wary: &wary}
}

func (d *waryDialer) proxy(req *http.Request) (*url.URL, error) {
	p, err := http.ProxyFromEnvironment(req)
	if p != nil {
		d.proxies.Store(strings.ToLower(p.Host), true)
	}
	return p, err
}

func (d *waryDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, known := d.proxies.Load(strings.ToLower(address)); known {
		return d.plain.DialContext(ctx, network, address)
	}
	return d.wary.DialContext(ctx, network, address)
}

var (
	errNoAnswer = errors.New("no answer in time")
	errStalled  = errors.New("stalled")
)

// deadlines bounds every exchange: the wait for an answer, and each wait for a
// byte to be taken or given. What goes wrong below it is [ErrUnavailable].
type deadlines struct {
	next http.RoundTripper
	cfg  *Config
}

// RoundTrip implements [http.RoundTripper].
func (d *deadlines) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{}
	w.timer = time.AfterFunc(2*d.cfg.ConnectTimeout+d.cfg.ResponseTimeout, func() { cancel(errNoAnswer) })
	sent := req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		sent.Body = &sentBody{ReadCloser: req.Body, left: req.ContentLength, watch: w, stall: d.cfg.StallTimeout, commit: d.cfg.CommitTimeout}
	}
	resp, err := d.next.RoundTrip(sent)
	w.end()
	if err != nil {
		err = ended(ctx, err)
		cancel(nil)
		return nil, err
	}
	b := &givenBody{src: resp.Body, ctx: ctx, cancel: cancel, stall: d.cfg.StallTimeout}
	b.timer = time.AfterFunc(b.stall, func() { cancel(errStalled) })
	b.timer.Stop()
	resp.Body = b
	return resp, nil
}

// ended says why an exchange under ctx failed: the end of the caller's context
// is passed on as it is.
func ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if told, ok := errors.AsType[*Error](err); ok {
		return told // of the dialer, or of what the body was read from
	}
	if cause == nil {
		cause = err
	}
	if errors.Is(cause, errNoAnswer) || errors.Is(cause, errStalled) || ctx.Err() == nil {
		return &Error{Kind: ErrUnavailable, Err: withoutURL(cause)}
	}
	return cause
}

// watch is a timer that nobody can set again once it has ended.
type watch struct {
	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

func (w *watch) reset(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.timer.Reset(d)
	}
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// sentBody is what a request sends. The time until the transport wants more is
// bounded; the time that it takes to read more is the source's own matter.
type sentBody struct {
	io.ReadCloser

	left          int64 // of the announced length, negative when there is none
	watch         *watch
	stall, commit time.Duration
}

// Read implements [io.Reader].
func (b *sentBody) Read(p []byte) (int, error) {
	b.watch.stop()
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left == 0 || err != nil {
		b.watch.reset(b.commit)
	} else {
		b.watch.reset(b.stall)
	}
	return n, err
}

// givenBody is what an answer gives. It breaks off when a Read waits too long.
type givenBody struct {
	src    io.ReadCloser
	ctx    context.Context //nolint:containedctx // of the request, to ask why it ended
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer
}

// Read implements [io.Reader].
func (b *givenBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.src.Read(p)
	b.timer.Stop()
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, ended(b.ctx, fmt.Errorf("reading the answer: %w", err))
}

// Close implements [io.Closer].
func (b *givenBody) Close() error {
	b.timer.Stop()
	err := b.src.Close()
	b.cancel(nil)
	return err
}
