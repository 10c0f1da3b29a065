package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// maxTokens bounds the tokens remembered for an endpoint.
	maxTokens = 2048
	// maxTokenResponse bounds a token server's answer, in bytes.
	maxTokenResponse = 1 << 20
	// tokenLifetime is a token's when its server does not say
	// (distribution.github.io/distribution/spec/auth/token, expires_in).
	tokenLifetime = time.Minute
	// maxTokenLifetime bounds what a server can say.
	maxTokenLifetime = 24 * time.Hour
)

// exchange is what one authenticated request knows. It travels in the
// request's context, through the auth client, to the token cache.
type exchange struct {
	scope string // what was hinted
	used  string // the token that was sent last
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	return new(exchange)
}

// tokenCache remembers the tokens of one endpoint by scope until they expire,
// a bounded number of them. It implements [auth.Cache].
type tokenCache struct {
	timeout time.Duration // of fetching a token

	mu      sync.Mutex
	scheme  auth.Scheme
	tokens  map[string]token
	flights map[string]*flight
	closed  bool
	wait    sync.WaitGroup // for flights
}

type token struct {
	text    string
	expires time.Time // zero for never
}

func (t token) good(now time.Time) bool {
	return t.text != "" && (t.expires.IsZero() || now.Before(t.expires))
}

// flight is a token being fetched for everybody who wants it.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int // with the cache's lock held

	token token // after done
	err   error
}

func newTokenCache(timeout time.Duration) *tokenCache {
	return &tokenCache{timeout: timeout, tokens: make(map[string]token), flights: make(map[string]*flight)}
}

// GetScheme implements [auth.Cache].
func (c *tokenCache) GetScheme(context.Context, string) (auth.Scheme, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scheme == auth.SchemeUnknown {
		return auth.SchemeUnknown, errdef.ErrNotFound
	}
	return c.scheme, nil
}

// GetToken implements [auth.Cache].
func (c *tokenCache) GetToken(ctx context.Context, _ string, scheme auth.Scheme, key string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tokens[key]
	if scheme != c.scheme || !t.good(time.Now()) {
		return "", errdef.ErrNotFound
	}
	exchangeOf(ctx).used = t.text
	return t.text, nil
}

// Set implements [auth.Cache]. It is called after a 401, and fetches a token
// unless another request has done so since this one began. Requests that want
// the same one at once share the fetch, which ends when none is left.
//
// A registry may challenge with more scopes than were hinted. The token is then
// remembered for the hint as well, so that the next request brings it along.
func (c *tokenCache) Set(ctx context.Context, _ string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (string, error) {
	x := exchangeOf(ctx)
	f, t, err := c.board(ctx, x, scheme, key, fetch)
	if err != nil || f == nil {
		x.used = t.text
		return t.text, err
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		c.mu.Lock()
		if f.waiting--; f.waiting == 0 {
			f.cancel()
		}
		c.mu.Unlock()
		return "", context.Cause(ctx)
	}
	if f.err != nil {
		return "", f.err
	}
	if scheme == auth.SchemeBearer && x.scope != "" && x.scope != key {
		c.remember(scheme, x.scope, f.token)
	}
	x.used = f.token.text
	return f.token.text, nil
}

// board returns a token that is good, or else the flight that fetches one.
func (c *tokenCache) board(ctx context.Context, x *exchange, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (*flight, token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.tokens[key]; scheme == c.scheme && t.good(time.Now()) && t.text != x.used {
		return nil, t, nil
	}
	name := scheme.String() + " " + key
	if f := c.flights[name]; f != nil && f.waiting > 0 {
		f.waiting++
		return f, token{}, nil
	}
	if c.closed {
		return nil, token{}, errClosed
	}
	fctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), c.timeout, &networkError{errNoAnswer})
	f := &flight{done: make(chan struct{}), cancel: cancel, waiting: 1}
	c.flights[name] = f
	c.wait.Go(func() {
		defer cancel()
		f.token, f.err = fetchToken(fctx, scheme, fetch)
		if f.err == nil {
			c.remember(scheme, key, f.token)
		}
		c.mu.Lock()
		if c.flights[name] == f {
			delete(c.flights, name)
		}
		c.mu.Unlock()
		close(f.done)
	})
	return f, token{}, nil
}

func fetchToken(ctx context.Context, scheme auth.Scheme, fetch func(context.Context) (string, error)) (token, error) {
	asked := time.Now()
	reply := &tokenReply{lifetime: tokenLifetime}
	text, err := fetch(context.WithValue(ctx, tokenReplyKey{}, reply))
	if err != nil {
		return token{}, err
	}
	if scheme == auth.SchemeBasic {
		return token{text: text}, nil
	}
	// A tenth is left for the way to the registry, and for clocks.
	return token{text: text, expires: asked.Add(reply.lifetime * 9 / 10)}, nil
}

func (c *tokenCache) remember(scheme auth.Scheme, key string, t token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scheme != scheme {
		c.scheme = scheme
		clear(c.tokens)
	}
	if _, known := c.tokens[key]; !known && len(c.tokens) >= maxTokens {
		c.makeRoom(time.Now())
	}
	c.tokens[key] = t
}

// makeRoom drops what has expired; if that is little, any tokens, since one more
// fetch is all that costs. It makes room for many, because it goes over all.
func (c *tokenCache) makeRoom(now time.Time) {
	for key, t := range c.tokens {
		if !t.good(now) {
			delete(c.tokens, key)
		}
	}
	for key := range c.tokens {
		if len(c.tokens) < maxTokens*7/8 {
			return
		}
		delete(c.tokens, key)
	}
}

// close ends the flights and waits for them.
func (c *tokenCache) close() {
	c.mu.Lock()
	c.closed = true
	for _, f := range c.flights {
		f.cancel()
	}
	c.mu.Unlock()
	c.wait.Wait()
}

// tokenReply marks, in a context, a request to a token server, and takes what
// the auth client does not tell from its answer.
type tokenReply struct {
	lifetime time.Duration
}

type tokenReplyKey struct{}

// take reads the whole answer, bounded. A refusal becomes an [Error], with the
// token server's Retry-After and without its words.
func (r *tokenReply) take(resp *http.Response) (*http.Response, error) {
	if isRedirect(resp) {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		refusal := statusError(resp, false)
		switch {
		case refusal == nil: // 206
			refusal = invalidf("answered %d", resp.StatusCode)
		case refusal.Kind == NotFound:
			refusal.Kind = Invalid // it is not the content that is missing
		}
		return nil, refusal.at("token server " + resp.Request.URL.Host)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenResponse+1))
	if err != nil {
		return nil, &networkError{fmt.Errorf("reading the answer of token server %s: %w", resp.Request.URL.Host, err)}
	}
	if len(content) > maxTokenResponse {
		return nil, invalidf("the answer of token server %s is larger than %d bytes", resp.Request.URL.Host, maxTokenResponse)
	}
	r.lifetime = lifetimeOf(content)
	resp.Body = io.NopCloser(bytes.NewReader(content))
	return resp, nil
}

// lifetimeOf is how long the token in a token server's answer is good for.
func lifetimeOf(answer []byte) time.Duration {
	var told struct {
		ExpiresIn float64 `json:"expires_in"` // seconds
	}
	if err := json.Unmarshal(answer, &told); err != nil || !(told.ExpiresIn > 0) {
		return tokenLifetime
	}
	if told.ExpiresIn > maxTokenLifetime.Seconds() {
		return maxTokenLifetime
	}
	return time.Duration(told.ExpiresIn * float64(time.Second))
}

var errClosed = errors.New("the upstream is closed")
