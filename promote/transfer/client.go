package transfer

import (
	"cmp"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	defaultConcurrency     = 24
	defaultStreams         = 8
	defaultAttempts        = 6
	defaultConnectTimeout  = 10 * time.Second
	defaultResponseTimeout = 30 * time.Second
	defaultCommitTimeout   = 5 * time.Minute
	defaultStallTimeout    = 30 * time.Second
	defaultMaxPause        = 5 * time.Minute
	defaultFirstBackoff    = 500 * time.Millisecond
)

// Config says how a [Client] behaves. The zero value is useful.
type Config struct {
	// DockerConfig is the docker config.json whose credentials and credential
	// helpers are used. Empty means $DOCKER_CONFIG/config.json, or
	// ~/.docker/config.json; none there means no credentials.
	DockerConfig string
	// TokenHosts are hosts (host or host:port) that may issue tokens besides a
	// registry's own, and auth.docker.io for docker.io.
	TokenHosts []string

	// Concurrency bounds the requests to one host that wait for an answer; 0
	// means 24. A host that answers 429 is asked fewer at once, until it does
	// no longer.
	Concurrency int
	// Streams bounds the blobs that are sent to one host at once, and those
	// that are read from one; 0 means 8.
	Streams int
	// RequestsPerSecond bounds the rate of requests to one host; 0 means no
	// limit.
	RequestsPerSecond float64
	// Attempts is how often a request is made at most that fails for a reason
	// that may pass; 0 means 6. Answers of 429 have more, since they say that
	// the host is well. A host that failed to the end again and again has one,
	// until it answers.
	Attempts int
	// MaxPause is the longest pause that a host is granted, with Retry-After or
	// without; 0 means 5 minutes.
	MaxPause time.Duration
	// FirstBackoff is the pause after the first failure of a request, half of
	// it up to chance; it doubles. 0 means 500 ms.
	FirstBackoff time.Duration

	// ConnectTimeout bounds dialling and the TLS handshake, each; 0 means 10 s.
	ConnectTimeout time.Duration
	// ResponseTimeout bounds the wait for an answer; 0 means 30 s.
	ResponseTimeout time.Duration
	// CommitTimeout bounds the wait for the answer to an upload, from its last
	// byte on, for registries that hash and copy it then; 0 means 5 minutes.
	CommitTimeout time.Duration
	// StallTimeout bounds the wait for a body's next byte, in either
	// direction; 0 means 30 s.
	StallTimeout time.Duration

	// UserAgent identifies this program; empty means entrepot.
	UserAgent string
	// Progress is told what happens; nil means nobody is.
	Progress Progress
	// Logger is told of pauses and retries; nil means silence.
	Logger *slog.Logger
	// Getenv reads the environment, where S3 has its settings; nil means
	// [os.Getenv].
	Getenv func(string) string
	// Transport replaces the network, in tests.
	Transport http.RoundTripper
}

func (c *Config) setDefaults() {
	c.Concurrency = positive(c.Concurrency, defaultConcurrency)
	c.Streams = positive(c.Streams, defaultStreams)
	c.Attempts = positive(c.Attempts, defaultAttempts)
	c.MaxPause = positive(c.MaxPause, defaultMaxPause)
	c.FirstBackoff = positive(c.FirstBackoff, defaultFirstBackoff)
	c.ConnectTimeout = positive(c.ConnectTimeout, defaultConnectTimeout)
	c.ResponseTimeout = positive(c.ResponseTimeout, defaultResponseTimeout)
	c.CommitTimeout = positive(c.CommitTimeout, defaultCommitTimeout)
	c.StallTimeout = positive(c.StallTimeout, defaultStallTimeout)
	c.UserAgent = cmp.Or(c.UserAgent, "entrepot")
	if c.Progress == nil {
		c.Progress = silence{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
}

func positive[T int | time.Duration](value, otherwise T) T {
	if value > 0 {
		return value
	}
	return otherwise
}

// Client copies images and files during one run. It remembers what it saw and
// put where, so it should not outlive the run: what others delete meanwhile it
// does not notice. It is safe for concurrent use.
type Client struct {
	cfg     Config
	network *network

	mu     sync.Mutex
	hosts  map[string]*host
	stores map[string]FileStore // by URL

	blobs, trees, listings flights
	held                   holdings // blobs
	known                  memory
	sources                sources
}

// New prepares a client. It reads no file and asks no host.
func New(cfg Config) (*Client, error) {
	cfg.setDefaults()
	c := &Client{cfg: cfg, hosts: make(map[string]*host), stores: make(map[string]FileStore)}
	c.network = newNetwork(&c.cfg)
	return c, nil
}

// Close lets go of idle connections. Bodies that are open can still be read.
func (c *Client) Close() error {
	c.network.close()
	return nil
}
