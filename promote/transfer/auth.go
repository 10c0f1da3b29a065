package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// newAuthClient makes the client that authenticates requests to a host. It
// hands redirects back: [host.follow] follows them, without the credentials.
func (c *Client) newAuthClient(h *host) *auth.Client {
	return &auth.Client{
		Client: &http.Client{
			Transport: &realmGuard{host: h, trusted: c.tokenHosts(h), next: c.network.named},
			CheckRedirect: func(req *http.Request, _ []*http.Request) error {
				if isTokenRequest(req.Context()) {
					return failf(ErrRefused, "the token server of %s redirects to %s", h.name, req.URL.Host)
				}
				return http.ErrUseLastResponse
			},
		},
		Header: http.Header{"User-Agent": {c.cfg.UserAgent}},
		Credential: func(ctx context.Context, name string) (auth.Credential, error) {
			if h.base.Scheme == "http" && !isLoopback(name) {
				return auth.EmptyCredential, nil // passwords are not sent in the clear
			}
			return c.credential(ctx, name)
		},
		Cache:    &tokenCache{Cache: auth.NewCache()},
		ClientID: "entrepot",
		// The guard's rule replaces this one: it names hosts instead of
		// refusing addresses.
		BlockedRealmPrefixes: []netip.Prefix{},
	}
}

// tokenHosts are the hosts that tokens for h may be asked from.
func (c *Client) tokenHosts(h *host) map[string]bool {
	trusted := map[string]bool{strings.ToLower(h.base.Host): true}
	for _, t := range c.cfg.TokenHosts {
		trusted[strings.ToLower(t)] = true
	}
	if h.base.Host == dockerHub {
		trusted["auth.docker.io"] = true
	}
	return trusted
}

// tokenCache marks the requests for tokens, which the auth client makes with
// the context of the request that wants one.
type tokenCache struct{ auth.Cache }

type tokenRequestKey struct{}

// Set implements [auth.Cache].
func (t *tokenCache) Set(ctx context.Context, registry string, scheme auth.Scheme, key string,
	fetch func(context.Context) (string, error),
) (string, error) {
	return t.Cache.Set(ctx, registry, scheme, key, func(ctx context.Context) (string, error) {
		return fetch(context.WithValue(ctx, tokenRequestKey{}, true))
	})
}

func isTokenRequest(ctx context.Context) bool { return ctx.Value(tokenRequestKey{}) != nil }

// realmGuard stands below the auth client of a host. A registry names in its
// challenge where tokens are to be had, and what answers there is sent the
// credentials: so only hosts that are known are asked (CVE-2026-33540 and its
// like).
type realmGuard struct {
	host    *host
	trusted map[string]bool
	next    http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (g *realmGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	g.host.progress.Request(g.host.name, req.Method)
	if !isTokenRequest(req.Context()) {
		return g.next.RoundTrip(req)
	}
	if err := g.check(req.URL); err != nil {
		return nil, err
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK || isRedirect(resp) {
		return resp, nil
	}
	defer resp.Body.Close()
	told := statusError(resp)
	told.Err = fmt.Errorf("asking %s for a token for %s: %w", req.URL.Host, g.host.name, told.Err)
	if told.is(ErrNotFound) { // it is not the content that is missing
		told.Kind = ErrRefused
	}
	return nil, told
}

func (g *realmGuard) check(realm *url.URL) *Error {
	name := strings.ToLower(realm.Host)
	switch {
	case realm.Scheme != "https" && (realm.Scheme != "http" || g.host.base.Scheme != "http"):
		return failf(ErrUnauthorized, "%s sends for tokens to %s by %q, where https is wanted", g.host.name, realm.Host, realm.Scheme)
	case realm.User != nil:
		return failf(ErrUnauthorized, "%s sends for tokens with credentials of its own", g.host.name)
	case !g.trusted[name] && !g.trusted[strings.TrimSuffix(name, ":443")]:
		return failf(ErrUnauthorized, "%s sends for tokens to %s, which is not trusted: if they do come from there, name it as a token host", g.host.name, realm.Host)
	}
	return nil
}

// credential finds what the docker configuration has for a host. It is read
// anew each time, so that a login during a long run is found.
func (c *Client) credential(ctx context.Context, host string) (auth.Credential, error) {
	path := c.cfg.DockerConfig
	if path == "" {
		dir := c.cfg.Getenv("DOCKER_CONFIG")
		if dir == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return auth.EmptyCredential, nil // no home, no login
			}
			dir = filepath.Join(home, ".docker")
		}
		path = filepath.Join(dir, "config.json")
	}
	// A helper is a program of somebody else's.
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ResponseTimeout)
	defer cancel()
	store, err := credentials.NewStore(path, credentials.StoreOptions{})
	if err != nil {
		return auth.EmptyCredential, failf(ErrUnauthorized, "reading the docker configuration %s: %w", path, err)
	}
	found, err := credentials.Credential(store)(ctx, host)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return auth.EmptyCredential, context.Cause(ctx)
	case err != nil:
		// A helper's words are not passed on: it handles secrets.
		return auth.EmptyCredential, failf(ErrUnauthorized, "no credentials for %s: the credential helper that %s names failed", host, path)
	}
	return found, nil
}
