package peers

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of a [Config].
const (
	DefaultDeadline = time.Second
	DefaultInterval = 10 * time.Second
)

// greetTimeout bounds a greeting for which no client waits: a peer that is merely
// busy stays.
const greetTimeout = 5 * time.Second

// Resolver looks up the addresses of a name: [net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config is what a group is made of. It needs URLs or DNS, a Secret and an ID.
type Config struct {
	// URLs are the nodes of the region. This one may be among them.
	URLs []string
	// DNS is a URL whose host has the address of each node, such as
	// http://entrepot-headless.mirror.svc:5000. It is looked up again and again.
	DNS string
	// Secret is what the nodes of the region share.
	Secret string
	// ID is this node's own name, a token that no other has. It is best kept for as
	// long as what the node has stored: another id has other content.
	ID string
	// Deadline is for how long a peer may give no sign of life; 0 means
	// [DefaultDeadline].
	Deadline time.Duration
	// Interval is how often peers are looked up and greeted; 0 means
	// [DefaultInterval].
	Interval time.Duration
	// CAFile is a PEM bundle of authorities for peers with https, besides the
	// system's.
	CAFile string
	// Progress says how many bytes of content this node can give now.
	Progress func(ctx context.Context, d digest.Digest) int64
	// Resolver looks up DNS; nil is the system's.
	Resolver Resolver
	// Logger is told of peers that come and go; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil leaves them out.
	Registerer prometheus.Registerer
}

// Group is the nodes of a region as one of them sees them. It is safe for
// concurrent use.
type Group struct {
	cfg     Config
	signer  signer
	run     string // tells this process from one that has the same ID
	dns     *url.URL
	tls     *tls.Config
	metrics *metrics

	mu    sync.Mutex
	peers map[string]*Peer // by URL or address
	list  []*Peer          // of peers, sorted
}

// New makes a group. It sends nothing before [Group.Run].
func New(cfg Config) (*Group, error) {
	if cfg.Deadline <= 0 {
		cfg.Deadline = DefaultDeadline
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Secret == "" {
		return nil, errors.New("peers need a secret that they share")
	}
	g := &Group{cfg: cfg, signer: signer(cfg.Secret), run: rand.Text(), peers: map[string]*Peer{}}
	if err := g.trust(); err != nil {
		return nil, err
	}
	for _, text := range cfg.URLs {
		base, err := parseURL(text)
		if err != nil {
			return nil, err
		}
		g.peers[text] = g.newPeer(text, base, "")
	}
	if cfg.DNS != "" {
		base, err := parseURL(cfg.DNS)
		if err != nil {
			return nil, err
		}
		g.dns = base
	}
	g.arrange()
	g.metrics = newMetrics(cfg.Registerer, g)
	return g, nil
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("peer %q: want a URL of scheme, host and port, such as http://10.0.0.7:5000", text)
	}
	return u, nil
}

// trust reads the certificates of authorities.
func (g *Group) trust() error {
	g.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if g.cfg.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(g.cfg.CAFile)
	if err != nil {
		return fmt.Errorf("reading the CA certificates of peers: %w", err)
	}
	if g.tls.RootCAs, err = x509.SystemCertPool(); err != nil {
		return fmt.Errorf("reading the system's CA certificates, to which %s is added: %w", g.cfg.CAFile, err)
	}
	if !g.tls.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate in PEM form", g.cfg.CAFile)
	}
	return nil
}

// newPeer is a peer at a URL, whose host is address where that is not "".
func (g *Group) newPeer(name string, base *url.URL, address string) *Peer {
	dialer := net.Dialer{Timeout: g.cfg.Deadline, KeepAlive: 15 * time.Second}
	return &Peer{name: name, base: base, transport: &http.Transport{
		// Peers are near: no proxy of the environment is between.
		DialContext: func(ctx context.Context, network, hostport string) (net.Conn, error) {
			if address != "" {
				hostport = address
			}
			return dialer.DialContext(ctx, network, hostport)
		},
		TLSClientConfig:     g.tls,
		TLSHandshakeTimeout: g.cfg.Deadline,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
		ReadBufferSize:      128 << 10,
		DisableCompression:  true,
	}}
}

// members are the peers that are known, up or not.
func (g *Group) members() []*Peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.list
}

// arrange makes list of peers. Call with mu held, or before others see g.
func (g *Group) arrange() {
	g.list = nil
	for _, p := range g.peers {
		g.list = append(g.list, p)
	}
	slices.SortFunc(g.list, func(a, b *Peer) int {
		switch {
		case a.name < b.name:
			return -1
		case a.name > b.name:
			return 1
		}
		return 0
	})
}

// Run looks for peers, and greets them, until ctx ends.
func (g *Group) Run(ctx context.Context) {
	defer g.closeIdle()
	// Peers that failed are due more often than all are.
	tick := time.NewTicker(min(g.cfg.Interval, firstRest))
	defer tick.Stop()
	var looked time.Time
	for {
		if g.dns != nil && time.Since(looked) >= g.cfg.Interval {
			g.lookup(ctx)
			looked = time.Now()
		}
		var greeting sync.WaitGroup
		for _, p := range g.members() {
			if p.isDue(time.Now()) {
				greeting.Go(func() { g.greet(ctx, p) })
			}
		}
		greeting.Wait()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (g *Group) closeIdle() {
	for _, p := range g.members() {
		p.transport.CloseIdleConnections()
	}
}

// lookup has the peers be who the DNS name leads to. When it cannot be looked up
// they stay who they were.
func (g *Group) lookup(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, max(g.cfg.Interval, 5*time.Second))
	defer cancel()
	host, port := g.dns.Hostname(), g.dns.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[g.dns.Scheme]
	}
	ips, err := g.cfg.Resolver.LookupNetIP(ctx, "ip", host)
	if notFound, ok := errors.AsType[*net.DNSError](err); ok && notFound.IsNotFound {
		err, ips = nil, nil // a headless service none of whose nodes is ready
	}
	if err != nil {
		if ctx.Err() == nil {
			g.cfg.Logger.Warn("looking up the peers failed; they stay who they were", "name", host, "error", err)
		}
		return
	}
	found := map[string]bool{}
	for _, ip := range ips {
		found[net.JoinHostPort(ip.Unmap().String(), port)] = true
	}
	for _, text := range g.cfg.URLs {
		found[text] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, p := range g.peers {
		if !found[name] {
			delete(g.peers, name)
			p.transport.CloseIdleConnections()
			g.cfg.Logger.Info("a peer has left", "peer", name)
		}
	}
	for name := range found {
		if g.peers[name] == nil {
			g.peers[name] = g.newPeer(name, g.dns, name)
		}
	}
	g.arrange()
}

// greet asks a peer who it is.
func (g *Group) greet(ctx context.Context, p *Peer) {
	ctx, cancel := context.WithTimeout(ctx, max(g.cfg.Deadline, greetTimeout))
	defer cancel()
	a, err := g.ask(ctx, p, "")
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // else the node ends
			g.failed(p, err)
		}
		return
	}
	next := time.Now().Add(g.cfg.Interval)
	switch {
	case a.ID != g.cfg.ID:
		if p.answered(a.ID, next) {
			g.cfg.Logger.Info("a peer is up", "peer", p.name, "id", a.ID)
		}
	case a.Run == g.run: // it is this node
		p.isSelf(next)
	default:
		g.failed(p, errTwin)
	}
}

// errTwin is a mistake that would have two nodes both bring everything.
var errTwin = errors.New("it has the id of this node: its directory is a copy of this one's; remove the record node/id from one of them")

// failed has a peer left alone for a while.
func (g *Group) failed(p *Peer, why error) {
	if p.failed(why, time.Now(), g.cfg.Interval) {
		g.cfg.Logger.Warn("a peer cannot be used; going on without it", "peer", p.name, "error", why)
	}
}
