package upstream

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// Config describes one upstream. Only Name and URLs are needed.
type Config struct {
	// Name is how people call the registry, such as "docker.io".
	Name string
	// URLs are tried in order of health, then in this order. A path is a
	// prefix of every repository: https://host/prefix is asked for
	// https://host/v2/prefix/<repository>/….
	URLs []string

	// Username and Password are for registries that want them.
	Username, Password string
	// DockerConfig is the path of a docker config.json whose credentials and
	// credential helpers are used where Username is empty.
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
	MaxConcurrent int
	// BandwidthLimit, in bytes per second, is shared by all bodies; 0 means no
	// limit.
	BandwidthLimit int64

	// ConnectTimeout bounds dialling and the TLS handshake, each; 0 means 5 s.
	ConnectTimeout time.Duration
	// ResponseTimeout bounds the wait for response headers; 0 means 20 s.
	ResponseTimeout time.Duration
	// StallTimeout bounds the wait for a body's next byte; 0 means 20 s.
	StallTimeout time.Duration

	// UserAgent identifies this program; empty means entrepot and its version.
	UserAgent string
	// Logger is told of endpoints that open and close their circuit; nil means
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
}

// New prepares an upstream from its configuration. It reads the files that cfg
// names and does not touch the network.
func New(cfg Config) (*Upstream, error) {
	u := &Upstream{cfg: cfg}
	for range cfg.URLs {
		u.endpoints = append(u.endpoints, &Endpoint{})
	}
	return u, nil
}

// Name is the configured name.
func (u *Upstream) Name() string { return u.cfg.Name }

// Endpoints are the configured URLs, in order.
func (u *Upstream) Endpoints() []*Endpoint { return u.endpoints }

// Close ends background work and idle connections. Bodies still open stay
// usable.
func (u *Upstream) Close() {}

// Do asks for req.
func (u *Upstream) Do(context.Context, *Request) (*Response, error) {
	return nil, errors.New("not built yet")
}

// Endpoint is one URL of an upstream, with its own health.
type Endpoint struct{}

// String is the URL, without credentials.
func (e *Endpoint) String() string { return "" }

// Penalize counts a failure that the caller found: content that is not what its
// digest says.
func (e *Endpoint) Penalize(error) {}
