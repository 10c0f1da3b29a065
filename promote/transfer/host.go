package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// dockerHub is where the API of docker.io is.
	dockerHub = "registry-1.docker.io"
	// maxRedirects bounds the hops of one request.
	maxRedirects = 5
	// maxDiscard is how much of an answer nobody wants is read, in bytes, to
	// keep its connection.
	maxDiscard = 16 << 10
)

// host is a registry or file server, and what all work with it shares.
type host struct {
	name     string   // as names spell it
	base     *url.URL // scheme and host
	cfg      *Config
	network  *network
	auth     *auth.Client
	gate     *gate
	sending  chan struct{} // a slot for each blob that is sent there
	reading  chan struct{} // and for each that is read there; taken after sending's, if both
	progress Progress
	log      *slog.Logger
	gaveUp   atomic.Int32 // requests in a row that used up their attempts
}

// host returns what is shared for the host of that name.
func (c *Client) host(name string) *host { return c.hostAt("", name) }

// hostAt is [Client.host] for a host whose scheme is known; else plain HTTP is
// spoken with this machine only.
func (c *Client) hostAt(scheme, name string) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	if scheme == "" {
		scheme = "https"
		if isLoopback(name) {
			scheme = "http"
		}
	}
	key := scheme + "://" + strings.ToLower(name)
	if h := c.hosts[key]; h != nil {
		return h
	}
	h := &host{
		name: name, base: &url.URL{Scheme: scheme, Host: name}, cfg: &c.cfg, network: c.network,
		gate:    newGate(c.cfg.Concurrency, c.cfg.RequestsPerSecond),
		sending: make(chan struct{}, c.cfg.Streams), reading: make(chan struct{}, c.cfg.Streams),
		progress: c.cfg.Progress, log: c.cfg.Logger,
	}
	if name == "docker.io" || name == "index.docker.io" {
		h.base.Host = dockerHub
	}
	h.auth = c.newAuthClient(h)
	c.hosts[key] = h
	return h
}

// request is one HTTP request, which can be made again.
type request struct {
	method string
	url    *url.URL // on the host; see [host.url]
	scopes []string // what a token is asked for
	header http.Header
	// body is opened for each attempt; nil means none. size is its length.
	body func() (io.ReadCloser, error)
	size int64
}

// url is where path is on the host; path is clean already.
func (h *host) url(path string, query url.Values) *url.URL {
	return &url.URL{Scheme: h.base.Scheme, Host: h.base.Host, Path: path, RawQuery: query.Encode()}
}

// what names a request in errors.
func (r *request) what() string { return r.method + " " + r.url.Host + r.url.Path }

// do makes a request once and returns the answer if it is a good one, with its
// headers; the body is to be closed. Errors: [*Error], the end of ctx.
func (h *host) do(ctx context.Context, r *request) (*http.Response, error) {
	resp, err := h.follow(ctx, r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", r.what(), context.Cause(ctx))
		}
		return nil, sendError(r, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
			dismiss(resp)
			return nil, failf(ErrRefused, "%s: sent Content-Encoding %.40q where none was asked for", r.what(), encoding)
		}
		h.well()
		return resp, nil
	}
	defer resp.Body.Close()
	told := statusError(resp)
	if !told.is(ErrRateLimited, ErrUnavailable) {
		h.well()
	}
	told.Err = fmt.Errorf("%s: %w", r.what(), told.Err)
	return nil, told
}

// well reports an answer that shows the host at work.
func (h *host) well() {
	h.gaveUp.Store(0)
	h.gate.well()
}

// sendError says what went wrong before there was an answer.
func sendError(r *request, err error) *Error {
	if told, ok := errors.AsType[*Error](err); ok {
		again := *told
		again.Err = fmt.Errorf("%s: %w", r.what(), told.Err)
		return &again
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return failf(ErrUnauthorized, "%s: wants a login, and the docker configuration has none for it", r.what())
	}
	return failf(ErrRefused, "%s: %w", r.what(), withoutURL(err))
}

// follow gets the answer wherever the host redirects to. Only requests to the
// host itself are authenticated, and once a redirect has left it, none is
// (GHSA-vh4v-2xq2-g5cg, CVE-2026-50151). What changes something is not
// redirected at all.
func (h *host) follow(ctx context.Context, r *request) (*http.Response, error) {
	target, own := r.url, sameOrigin(h.base, r.url)
	for hops := 0; ; hops++ {
		resp, err := h.send(ctx, r, target, own)
		if err != nil || !isRedirect(resp) {
			return resp, err
		}
		dismiss(resp)
		next, err := target.Parse(resp.Header.Get("Location"))
		switch {
		case err != nil:
			return nil, failf(ErrRefused, "redirected to something that is not a URL")
		case r.method != http.MethodGet && r.method != http.MethodHead:
			return nil, failf(ErrRefused, "redirected to %s, where only reading may be", next.Host)
		case next.Scheme != "https" && next.Scheme != "http" || next.Host == "":
			return nil, failf(ErrRefused, "redirected to something that is not HTTP")
		case next.Scheme == "http" && target.Scheme == "https":
			return nil, failf(ErrRefused, "redirected from https to http, on %s", next.Host)
		case hops == maxRedirects:
			return nil, failf(ErrRefused, "redirected more than %d times", maxRedirects)
		}
		next.User, next.Fragment = nil, ""
		own = own && sameOrigin(h.base, next)
		target = next
	}
}

// send makes one hop of a request.
func (h *host) send(ctx context.Context, r *request, target *url.URL, own bool) (*http.Response, error) {
	if own && len(r.scopes) > 0 {
		ctx = auth.WithScopes(ctx, r.scopes...)
	}
	header := r.header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	header.Set("Accept-Encoding", "identity")
	hr := (&http.Request{Method: r.method, URL: target, Host: target.Host, Header: header}).WithContext(ctx)
	if r.body != nil {
		body, err := r.body()
		if err != nil {
			return nil, err
		}
		// The auth client sends a body anew after a challenge.
		hr.Body, hr.GetBody, hr.ContentLength = body, r.body, r.size
	}
	if own {
		return h.auth.Do(hr)
	}
	header.Del("Authorization")
	header.Set("User-Agent", h.cfg.UserAgent)
	h.progress.Request(target.Host, r.method)
	trip := h.network.others
	if isLoopback(h.base.Host) && isLoopback(target.Host) {
		trip = h.network.named // one server of this machine may send to another
	}
	resp, err := trip.RoundTrip(hr)
	if err != nil {
		return nil, fmt.Errorf("at %s: %w", target.Host, err)
	}
	return resp, nil
}

func isRedirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		switch p := u.Port(); {
		case p != "":
			return p
		case u.Scheme == "https":
			return "443"
		}
		return "80"
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// dismiss ends an answer that nobody wants.
func dismiss(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxDiscard)
	resp.Body.Close()
}
