package access

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// TokensConfig says which tokens are believed: signed JSON Web Tokens (RFC 7519)
// as the token servers of registries issue them, and as identity providers do.
type TokensConfig struct {
	// Issuer and Audience are what a token must say of who issued it and whom
	// for (iss, aud).
	Issuer, Audience string
	// JWKS is where the issuer's public keys are (RFC 7517): a file, or an http
	// or https URL.
	JWKS string
	// Realm is the URL of the token server that clients are sent to, and Service
	// the name by which it knows this node ("Token Authentication" of
	// distribution); Service is Audience when empty. Without a Realm, clients
	// have to come with tokens.
	Realm, Service string
}

// leeway is how far the clocks of issuers may be off.
const leeway = 30 * time.Second

// tokens verifies tokens.
type tokens struct {
	cfg  TokensConfig
	keys *keys
	now  func() time.Time
}

func newTokens(cfg TokensConfig, now func() time.Time, log *slog.Logger) (*tokens, error) {
	if cfg.Issuer == "" || cfg.Audience == "" {
		return nil, errors.New("tokens need an issuer and an audience: others' would be taken too")
	}
	cfg.Service = cmp.Or(cfg.Service, cfg.Audience)
	keys, err := newKeys(cfg.JWKS, log)
	if err != nil {
		return nil, err
	}
	return &tokens{cfg: cfg, keys: keys, now: now}, nil
}

// claims are what a token says.
type claims struct {
	jwt.Claims
	// Access is what the token was issued for, as token servers of registries
	// say it. A token that has the claim, be it null, is good for nothing else.
	Access json.RawMessage `json:"access"`
}

// algorithms are those that are believed: with a public key, nobody but the
// issuer can sign by them. "none" and HMAC, which would take the public key for
// a secret, are not among them.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// verify reads a token and says whose it is. Errors: errToken, with the reason;
// that the keys are not known yet.
func (t *tokens) verify(ctx context.Context, text string) (*claims, error) {
	wrong := func(why error) (*claims, error) { return nil, fmt.Errorf("%w: %w", errToken, why) }
	token, err := jwt.ParseSigned(text, algorithms())
	if err != nil {
		return wrong(err)
	}
	header := token.Headers[0]
	candidates, err := t.keys.find(ctx, header.KeyID, header.Algorithm)
	if err != nil {
		return nil, err
	}
	c := new(claims)
	err = fmt.Errorf("key %.100q is not one of the issuer's", header.KeyID)
	for _, key := range candidates {
		if err = token.Claims(key, c); err == nil {
			break
		}
	}
	if err != nil {
		return wrong(err)
	}
	if c.Expiry == nil {
		return wrong(errors.New("it does not say when it expires"))
	}
	expected := jwt.Expected{Issuer: t.cfg.Issuer, AnyAudience: jwt.Audience{t.cfg.Audience}, Time: t.now()}
	if err := c.ValidateWithLeeway(expected, leeway); err != nil {
		return wrong(err)
	}
	return c, nil
}

// scoped says whether a token is good for what its access claim lists only.
func (c *claims) scoped() bool { return c.Access != nil }

// pulls are the repositories that a token was issued for pulling from.
func (c *claims) pulls() []string {
	var access []struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	if json.Unmarshal(c.Access, &access) != nil {
		return nil
	}
	var repositories []string
	for _, a := range access {
		if a.Type == "repository" && (slices.Contains(a.Actions, "pull") || slices.Contains(a.Actions, "*")) {
			repositories = append(repositories, a.Name)
		}
	}
	return repositories
}

// challenge tells a client where tokens are had, and for what it needs one (RFC
// 6750, section 3).
func (t *tokens) challenge(why error, n *name) string {
	var b strings.Builder
	b.WriteString("Bearer realm=" + quoted(cmp.Or(t.cfg.Realm, DefaultRealm)))
	if t.cfg.Realm != "" {
		b.WriteString(",service=" + quoted(t.cfg.Service))
	}
	if n != nil && n.kind == kindRepository {
		b.WriteString(",scope=" + quoted("repository:"+n.String()+":pull"))
	}
	switch {
	case errors.Is(why, errScope):
		b.WriteString(`,error="insufficient_scope"`)
	case errors.Is(why, errToken):
		b.WriteString(`,error="invalid_token"`)
	}
	return b.String()
}
