package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

const (
	// maxTokens bounds the tokens that are remembered, by host and scope.
	maxTokens = 2048
	// maxRedirects bounds the hops of one request.
	maxRedirects = 5
)

// authClient makes the client of one endpoint. Credentials go to the
// endpoint's own origin, and with a token request to a realm on it or on one of
// the trusted token hosts; nowhere else.
func authClient(base *url.URL, transport http.RoundTripper, tokenHosts []string, credential auth.CredentialFunc) *auth.Client {
	g := &guard{base: base, tokenHosts: tokenHosts, next: transport}
	return &auth.Client{
		Client:     &http.Client{Transport: g, CheckRedirect: g.checkRedirect},
		Header:     http.Header{"User-Agent": {userAgent}},
		Credential: credential,
		Cache:      newTokenCache(),
		ClientID:   userAgent,
		// Our rule is stricter: named hosts only.
		BlockedRealmPrefixes: []netip.Prefix{},
	}
}

// credentialFunc finds the credentials of an upstream's hosts.
func credentialFunc(cfg *Config) (auth.CredentialFunc, error) {
	switch {
	case cfg.DockerConfig != "" && cfg.Username != "":
		return nil, errors.New("give either a user and password or a docker configuration, not both")
	case cfg.DockerConfig != "":
		if _, err := os.Stat(cfg.DockerConfig); err != nil {
			return nil, fmt.Errorf("reading the docker configuration: %w", err)
		}
		store, err := credentials.NewStore(cfg.DockerConfig, credentials.StoreOptions{})
		if err != nil {
			return nil, fmt.Errorf("reading the docker configuration %s: %w", cfg.DockerConfig, err)
		}
		return credentials.Credential(store), nil
	case cfg.Username != "":
		c := auth.Credential{Username: cfg.Username, Password: cfg.Password}
		return func(context.Context, string) (auth.Credential, error) { return c, nil }, nil
	case cfg.Password != "":
		return nil, errors.New("a password needs a user name")
	}
	return nil, nil
}

// guard sees every request of an endpoint's client, the first and redirected
// ones, and those for tokens.
type guard struct {
	base       *url.URL
	tokenHosts []string
	next       http.RoundTripper
}

// RoundTrip refuses a token request to a realm that is not trusted. A first
// request that is not below the endpoint's API is one.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Response == nil && !g.isAPI(req.URL) {
		if err := g.checkRealm(req.URL); err != nil {
			return nil, err
		}
	}
	return g.next.RoundTrip(req)
}

func (g *guard) isAPI(u *url.URL) bool {
	return sameOrigin(u, g.base) && strings.HasPrefix(u.Path, "/v2/")
}

// checkRealm trusts a realm on the endpoint itself and on the configured token
// hosts, over TLS unless the endpoint itself is plain HTTP.
func (g *guard) checkRealm(u *url.URL) error {
	switch {
	case sameOrigin(u, g.base):
		return nil
	case u.Scheme != "https" && g.base.Scheme == "https":
		return &Error{Kind: Invalid, Err: fmt.Errorf("the token realm on %s is not https", u.Host)}
	case u.User != nil:
		return &Error{Kind: Invalid, Err: fmt.Errorf("the token realm on %s carries credentials", u.Host)}
	case slices.ContainsFunc(g.tokenHosts, func(h string) bool { return strings.EqualFold(h, u.Host) }):
		return nil
	}
	return &Error{Kind: Invalid, Err: fmt.Errorf("the token realm is on %s, which is not trusted with this node's credentials: if it should be, add it to token_hosts", u.Host)}
}

// checkRedirect judges each hop anew.
func (g *guard) checkRedirect(req *http.Request, via []*http.Request) error {
	refuse := func(format string, args ...any) error {
		return &Error{Kind: Invalid, Err: fmt.Errorf(format, args...)}
	}
	last := via[len(via)-1]
	switch {
	case len(via) > maxRedirects:
		return refuse("it redirects more than %d times", maxRedirects)
	case req.URL.Scheme != "https" && last.URL.Scheme == "https":
		return refuse("it redirects from https to %s on %s", req.URL.Scheme, req.URL.Host)
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return refuse("it redirects to the scheme %q", req.URL.Scheme)
	}
	for _, v := range via {
		if v.URL.String() == req.URL.String() {
			return refuse("it redirects in a circle")
		}
	}
	if !g.isAPI(via[0].URL) {
		return g.checkRealm(req.URL)
	}
	req.Header.Del("Referer")
	return nil
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostPort(a) == hostPort(b)
}

func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// tokenCache remembers tokens by scope, a bounded number of them. One that has
// expired is found out by upstream's 401, and replaced. It implements
// auth.Cache for one endpoint.
type tokenCache struct {
	tokens  *lru.Cache[string, string]
	schemes *lru.Cache[string, auth.Scheme]
	flights singleflight.Group
}

func newTokenCache() *tokenCache {
	tokens, err1 := lru.New[string, string](maxTokens)
	schemes, err2 := lru.New[string, auth.Scheme](16)
	if err := errors.Join(err1, err2); err != nil {
		panic("upstream: " + err.Error()) // sizes are positive constants
	}
	return &tokenCache{tokens: tokens, schemes: schemes}
}

// GetScheme implements auth.Cache.
func (c *tokenCache) GetScheme(_ context.Context, registry string) (auth.Scheme, error) {
	if s, ok := c.schemes.Get(registry); ok {
		return s, nil
	}
	return auth.SchemeUnknown, errdef.ErrNotFound
}

// GetToken implements auth.Cache.
func (c *tokenCache) GetToken(_ context.Context, registry string, scheme auth.Scheme, key string) (string, error) {
	if t, ok := c.tokens.Get(tokenKey(registry, scheme, key)); ok {
		return t, nil
	}
	return "", errdef.ErrNotFound
}

// Set implements auth.Cache: requests that need the same token at once share
// one request for it, which ends with none of them.
func (c *tokenCache) Set(ctx context.Context, registry string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (string, error) {
	id := tokenKey(registry, scheme, key)
	result := c.flights.DoChan(id, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tokenTimeout)
		defer cancel()
		t, err := fetch(ctx)
		if err != nil {
			return "", err
		}
		c.schemes.Add(registry, scheme)
		c.tokens.Add(id, t)
		return t, nil
	})
	select {
	case r := <-result:
		t, _ := r.Val.(string)
		return t, r.Err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func tokenKey(registry string, scheme auth.Scheme, key string) string {
	return registry + " " + scheme.String() + " " + key
}
