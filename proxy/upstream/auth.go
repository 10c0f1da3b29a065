package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// newAuthClient makes the client that authenticates requests to e. It follows
// no redirect: [Upstream.send] does, without the credentials.
func newAuthClient(e *Endpoint, next http.RoundTripper, realms *realmRule, credential auth.CredentialFunc, userAgent string) *auth.Client {
	g := &guard{endpoint: e, realms: realms, next: next}
	return &auth.Client{
		Client:     &http.Client{Transport: g, CheckRedirect: g.checkRedirect},
		Header:     http.Header{"User-Agent": {userAgent}},
		Credential: credential,
		Cache:      e.tokens,
		ClientID:   "entrepot",
		// The guard's rule replaces this one: it names hosts instead of refusing
		// addresses.
		BlockedRealmPrefixes: []netip.Prefix{},
	}
}

// guard stands below an endpoint's auth client and sees every request it makes:
// those to the registry, and those for tokens.
type guard struct {
	endpoint *Endpoint
	realms   *realmRule
	next     http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	reply, forToken := req.Context().Value(tokenReplyKey{}).(*tokenReply)
	if forToken {
		if err := g.realms.check(req.URL, g.endpoint); err != nil {
			return nil, err
		}
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil && forToken {
		return nil, fmt.Errorf("token server %s: %w", req.URL.Host, err)
	}
	if err != nil {
		return nil, err
	}
	if _, err := redirectTarget(resp); err != nil {
		resp.Body.Close() // net/http would put the header's text into its error
		return nil, err
	}
	if forToken {
		return reply.take(resp)
	}
	return resp, nil
}

// checkRedirect hands redirects to the caller, but for those of token requests:
// each hop passes through RoundTrip, which says where tokens may be asked for.
func (g *guard) checkRedirect(req *http.Request, via []*http.Request) error {
	if _, forToken := req.Context().Value(tokenReplyKey{}).(*tokenReply); !forToken {
		return http.ErrUseLastResponse
	}
	if len(via) > maxRedirects {
		return invalidf("token server %s redirects more than %d times", via[0].URL.Host, maxRedirects)
	}
	return nil
}

// realmRule says where tokens may be asked for. A registry names the realm in
// its challenge, and what answers there is sent the credentials: so only hosts
// that the configuration names are trusted (CVE-2026-33540 and its like).
type realmRule struct {
	hosts map[string]bool // as bareHost writes them
}

func newRealmRule(bases []*url.URL, tokenHosts []string) (*realmRule, error) {
	rule := &realmRule{hosts: make(map[string]bool)}
	for _, b := range bases {
		rule.hosts[bareHost(b)] = true
	}
	for _, h := range tokenHosts {
		u, err := url.Parse("https://" + h)
		if err != nil || u.Host != h || u.Hostname() == "" {
			return nil, fmt.Errorf("token host %q: want host or host:port", h)
		}
		rule.hosts[bareHost(u)] = true
	}
	return rule, nil
}

func (r *realmRule) check(realm *url.URL, e *Endpoint) error {
	switch {
	case realm.Host == "":
		return invalidf("the challenge names no token realm")
	case realm.Scheme != "https" && (realm.Scheme != "http" || e.base.Scheme != "http"):
		return invalidf("the token realm on %s is reached by %q, where https is wanted", realm.Host, realm.Scheme)
	case realm.User != nil:
		return invalidf("the token realm on %s brings credentials of its own", realm.Host)
	case !r.hosts[bareHost(realm)]:
		return invalidf("the token realm is on %s, which is not trusted: if tokens do come from there, add it to token_hosts", realm.Host)
	}
	return nil
}

// bareHost is the lower-case host, and the port unless it is the scheme's own.
func bareHost(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return host
}

// credentialSource finds the credentials for an endpoint's host: those
// configured, or those in a docker configuration, which is read each time a
// token is fetched, so that a login or a helper's new password is found.
func credentialSource(cfg *Config) (auth.CredentialFunc, error) {
	switch {
	case cfg.Username != "" && cfg.DockerConfig != "":
		return nil, errors.New("give either a user name and password or a docker configuration, not both")
	case cfg.Username == "" && cfg.Password != "":
		return nil, errors.New("a password needs a user name")
	case cfg.Username != "" && cfg.Password == "":
		return nil, errors.New("a user name needs a password")
	case cfg.Username != "":
		fixed := auth.Credential{Username: cfg.Username, Password: cfg.Password}
		return func(context.Context, string) (auth.Credential, error) { return fixed, nil }, nil
	case cfg.DockerConfig != "":
		path := cfg.DockerConfig
		if _, err := openDockerConfig(path); err != nil {
			return nil, err
		}
		return func(ctx context.Context, host string) (auth.Credential, error) {
			return dockerCredential(ctx, path, host)
		}, nil
	}
	return nil, nil //nolint:nilnil // the auth client's word for "none"
}

func openDockerConfig(path string) (credentials.Store, error) {
	if _, err := os.Stat(path); err != nil { // NewStore takes a missing file for an empty one
		return nil, fmt.Errorf("reading the docker configuration: %w", err)
	}
	store, err := credentials.NewStore(path, credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the docker configuration %s: %w", path, err)
	}
	return store, nil
}

func dockerCredential(ctx context.Context, path, host string) (auth.Credential, error) {
	store, err := openDockerConfig(path)
	if err != nil {
		return auth.EmptyCredential, &Error{Kind: Unavailable, Err: err}
	}
	c, err := credentials.Credential(store)(ctx, host)
	if err != nil {
		// A helper's words are not passed on: it handles secrets.
		return auth.EmptyCredential, &Error{Kind: Unavailable, Timeout: ctx.Err() != nil, Err: fmt.Errorf("no credentials for %s: the credential helper named in %s failed", host, path)}
	}
	return c, nil
}
