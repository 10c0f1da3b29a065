package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/registry/admission"

	"golang.org/x/time/rate"
)

const (
	defaultConcurrent      = 64
	defaultConnectTimeout  = 5 * time.Second
	defaultResponseTimeout = 20 * time.Second
	defaultStallTimeout    = 20 * time.Second

	// smallConcurrent bounds the requests for names and manifests, which do not
	// wait behind blobs.
	smallConcurrent = 32
	// minBurst is the smallest read, in bytes, that the bandwidth limit makes.
	minBurst = 16 << 10
)

// Config describes one upstream. Only Name and URLs are needed.
type Config struct {
	// Name is how people call the registry, such as "docker.io".
	Name string
	// URLs are tried in this order, those that are well first. A path is a
	// prefix of every repository: https://host/prefix is asked for
	// https://host/v2/prefix/<repository>/….
	URLs []string

	// Offline says that there is no network to the upstream: nothing is asked, and
	// all that it is asked for it is said not to have. It needs no URLs then.
	Offline bool
	// Files says that the upstream is a file server instead: what it is asked
	// for lies below the URLs themselves, may have a Content-Encoding, and is
	// redirected to the URLs' hosts and RedirectHosts only.
	Files bool
	// RedirectHosts are the hosts besides the URLs' own that a file server may
	// redirect to, and that any upstream may though their addresses are private:
	// host, host:port, or *.domain for all below a domain.
	RedirectHosts []string

	// Username and Password are for registries that want them.
	Username, Password string
	// DockerConfig is the path of a docker config.json whose credentials and
	// credential helpers are used instead.
	DockerConfig string
	// TokenHosts are the hosts (host or host:port) besides the URLs' own that
	// may issue tokens, such as auth.docker.io.
	TokenHosts []string
	// CAFile is a PEM bundle of authorities trusted besides the system's.
	CAFile string
	// CertFile and KeyFile are the PEM client certificate shown to the URLs'
	// hosts.
	CertFile, KeyFile string

	// MaxConcurrent bounds the blob bodies being read at once; 0 means 64.
	// Manifests, lists and HEAD requests do not count.
	MaxConcurrent int
	// Patience bounds the wait for one of those, and for one of the few questions
	// that are asked at once; 0 means without end.
	Patience time.Duration
	// BandwidthLimit, in bytes per second, is shared by all bodies; 0 means no
	// limit.
	BandwidthLimit int64

	// ConnectTimeout bounds dialling and the TLS handshake, each; 0 means 5 s.
	ConnectTimeout time.Duration
	// ResponseTimeout bounds the wait for response headers; 0 means 20 s.
	ResponseTimeout time.Duration
	// StallTimeout bounds the wait for a body's next byte; 0 means 20 s.
	StallTimeout time.Duration

	// LoopID is the node's own in CDN-Loop (see package loop); empty sends none.
	LoopID string
	// UserAgent identifies this program; empty means entrepot and its version.
	UserAgent string
	// Logger is told of endpoints that are left alone and come back; nil means
	// silence.
	Logger *slog.Logger
	// Observe, when set, is called after every attempt, for metrics.
	Observe func(Observation)
	// Transport replaces the network, in tests.
	Transport http.RoundTripper
}

// Observation is what one attempt at one endpoint came to.
type Observation struct {
	Host    string // of the endpoint's URL, whatever it redirected to
	Method  string
	Status  int           // 0 when there was no answer
	Latency time.Duration // to the response headers, or to the failure
}

// Upstream is one registry. It is safe for concurrent use.
type Upstream struct {
	cfg       Config
	endpoints []*Endpoint
	redirects *redirectRule
	transport http.RoundTripper
	network   *transports // nil when Config.Transport replaces it
	limiter   *rate.Limiter
	blobs     *admission.Queue // a place for each body
	small     *admission.Queue
	jitter    func() float64 // in [0, 1)
}

// New prepares an upstream from its configuration. It reads the files that cfg
// names and does not touch the network: an upstream that is down can be
// prepared.
func New(cfg Config) (*Upstream, error) {
	cfg.setDefaults()
	u := &Upstream{
		cfg: cfg,
		blobs: admission.NewQueue(admission.QueueConfig{
			What: "downloads from " + cfg.Name, Places: cfg.MaxConcurrent, Patience: cfg.Patience,
		}),
		small: admission.NewQueue(admission.QueueConfig{
			What: "questions to " + cfg.Name, Places: smallConcurrent, Patience: cfg.Patience,
		}),
		jitter: rand.Float64,
	}
	if cfg.Offline {
		cfg.URLs = nil
	} else if len(cfg.URLs) == 0 {
		return nil, errors.New("no URL is given")
	}
	var bases []*url.URL
	for _, text := range cfg.URLs {
		base, prefix, err := parseBase(text)
		if err != nil {
			return nil, err
		}
		bases = append(bases, base)
		u.endpoints = append(u.endpoints, &Endpoint{
			base: base, prefix: prefix, text: endpointText(base, prefix), files: cfg.Files,
			tokens: newTokenCache(cfg.answerTimeout()), jitter: u.jitter, log: cfg.Logger,
		})
	}
	var err error
	if u.redirects, err = newRedirectRule(&cfg, bases); err != nil {
		return nil, err
	}
	if err := u.connect(bases); err != nil {
		return nil, err
	}
	realms, err := newRealmRule(bases, cfg.TokenHosts)
	if err != nil {
		return nil, err
	}
	credential, err := credentialSource(&cfg)
	if err != nil {
		return nil, err
	}
	for _, e := range u.endpoints {
		e.client = newAuthClient(e, u.transport, realms, credential, cfg.UserAgent)
	}
	return u, nil
}

func (u *Upstream) connect(bases []*url.URL) error {
	network, err := newTransports(&u.cfg, bases, u.redirects)
	if err != nil {
		return err
	}
	below := u.cfg.Transport
	if below == nil {
		u.network, below = network, network
	}
	u.transport = &deadlines{next: below, headers: u.cfg.answerTimeout(), stall: u.cfg.StallTimeout}
	if limit := u.cfg.BandwidthLimit; limit > 0 {
		// What an idle limiter saves up is 2 % of a second's bytes.
		u.limiter = rate.NewLimiter(rate.Limit(limit), int(min(max(limit/50, minBurst), 1<<20)))
	}
	return nil
}

func (c *Config) setDefaults() {
	c.MaxConcurrent = positive(c.MaxConcurrent, defaultConcurrent)
	c.ConnectTimeout = positive(c.ConnectTimeout, defaultConnectTimeout)
	c.ResponseTimeout = positive(c.ResponseTimeout, defaultResponseTimeout)
	c.StallTimeout = positive(c.StallTimeout, defaultStallTimeout)
	if c.UserAgent == "" {
		c.UserAgent = "entrepot/" + buildVersion()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observe == nil {
		c.Observe = func(Observation) {}
	}
}

// answerTimeout bounds everything up to the response headers.
func (c *Config) answerTimeout() time.Duration {
	return 2*c.ConnectTimeout + c.ResponseTimeout
}

func positive[T int | time.Duration](value, otherwise T) T {
	if value > 0 {
		return value
	}
	return otherwise
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func endpointText(base *url.URL, prefix string) string {
	u := *base
	if prefix != "" {
		u.Path = "/" + prefix[:len(prefix)-1]
	}
	return u.String()
}

// Name is the configured name.
func (u *Upstream) Name() string { return u.cfg.Name }

// Endpoints are the configured URLs, in order.
func (u *Upstream) Endpoints() []*Endpoint { return u.endpoints }

// Offline says whether there is no network to the upstream.
func (u *Upstream) Offline() bool { return u.cfg.Offline }

// Close ends background work and idle connections. Bodies that are open can
// still be read.
func (u *Upstream) Close() {
	for _, e := range u.endpoints {
		e.tokens.close()
	}
	if u.network != nil {
		u.network.close()
	}
}

// Do asks the endpoints in order, those that are well first, and returns the
// first good answer. Its body must be closed.
//
// Errors: [*Error] when no endpoint could answer, of the kind that says least
// about the content: Unavailable before RateLimited, Invalid, Denied and
// NotFound, which is told only when every endpoint says so. An endpoint that is
// left alone counts as what made it so. Other errors are [*admission.Busy], when it
// waited for longer than Config.Patience, and the end of ctx.
func (u *Upstream) Do(ctx context.Context, req *Request) (*Response, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if u.cfg.Offline {
		return nil, &Error{Kind: NotFound, Err: fmt.Errorf("%s is offline here", u.cfg.Name)}
	}
	slots := u.blobs
	if u.isSmall(req) {
		slots = u.small
	}
	leave, err := slots.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("waiting to ask %s for %s: %w", u.cfg.Name, req.Path, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	release := func() {
		cancel()
		leave()
	}
	resp, err := u.ask(ctx, req, release)
	if err != nil {
		release()
		return nil, err
	}
	return resp, nil
}

// ask tries the endpoints, and the last one asked once more when it merely
// failed and no other is left.
func (u *Upstream) ask(ctx context.Context, req *Request, release func()) (*Response, error) {
	var round round
	for _, e := range u.endpoints {
		if req.Skip != nil && req.Skip(e) {
			continue
		}
		if resp, err := u.try(ctx, e, req, release, &round); resp != nil || err != nil {
			return resp, err
		}
	}
	if e := round.worthAnother(); e != nil {
		if err := pause.For(ctx, 100*time.Millisecond+time.Duration(u.jitter()*float64(200*time.Millisecond))); err != nil {
			return nil, u.gone(ctx, req)
		}
		round.takeBack()
		if resp, err := u.try(ctx, e, req, release, &round); resp != nil || err != nil {
			return resp, err
		}
	}
	return nil, round.verdict(u.cfg.Name)
}

// try asks one endpoint, if it may be asked, and keeps its failure in r. The
// error is the end of ctx.
func (u *Upstream) try(ctx context.Context, e *Endpoint, req *Request, release func(), r *round) (*Response, error) {
	if refusal := e.admit(time.Now()); refusal != nil {
		r.refused(refusal)
		return nil, nil //nolint:nilnil // the failure is in r
	}
	resp, failure := u.attempt(ctx, e, req, release)
	switch {
	case failure == nil:
		return resp, nil
	case ctx.Err() != nil:
		e.undecided()
		return nil, u.gone(ctx, req)
	}
	switch failure.Kind {
	case NotFound, Denied:
		e.well()
	case Unavailable, RateLimited:
		left := e.failed(failure, time.Now())
		told := *failure // the endpoint keeps failure
		told.RetryAfter = max(told.RetryAfter, left)
		failure = &told
	case Invalid:
		e.undecided()
	}
	r.failed(e, failure)
	return nil, nil //nolint:nilnil // the failure is in r
}

func (u *Upstream) gone(ctx context.Context, req *Request) error {
	return fmt.Errorf("asking %s for %s: %w", u.cfg.Name, req.Path, context.Cause(ctx))
}
