package access_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/registry"
	"entrepot/registry/access"

	"github.com/go-jose/go-jose/v4"
)

// issuer signs tokens.
type issuer struct {
	t   *testing.T
	id  string
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

func newIssuer(t *testing.T, id string, alg jose.SignatureAlgorithm) *issuer {
	t.Helper()
	i := &issuer{t: t, id: id, alg: alg}
	var err error
	switch alg[:2] {
	case "RS", "PS":
		i.key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES":
		i.key, err = ecdsa.GenerateKey(map[jose.SignatureAlgorithm]elliptic.Curve{
			jose.ES256: elliptic.P256(), jose.ES384: elliptic.P384(), jose.ES512: elliptic.P521(),
		}[alg], rand.Reader)
	default:
		_, i.key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// set is a JSON Web Key Set of issuers' keys.
func set(t *testing.T, issuers ...*issuer) []byte {
	t.Helper()
	var s jose.JSONWebKeySet
	for _, i := range issuers {
		s.Keys = append(s.Keys, jose.JSONWebKey{Key: i.key.Public(), KeyID: i.id, Use: "sig"})
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// token signs claims: those of a good token with changes, of which nil removes one.
func (i *issuer) token(changes map[string]any) string {
	i.t.Helper()
	return signed(i.t, i.alg, i.key, i.id, changes)
}

func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, id string, changes map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": "https://auth.test", "aud": "node.test", "sub": "ci", "exp": noon.Add(time.Minute).Unix()}
	for name, value := range changes {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", id).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// noon is the time of the readers here.
var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func keyFile(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tokenReaders(t *testing.T, jwks string, change func(*access.ReadersConfig)) *access.Readers {
	t.Helper()
	cfg := access.ReadersConfig{
		Tokens: &access.TokensConfig{Issuer: "https://auth.test", Audience: "node.test", JWKS: jwks, Realm: "https://auth.test/token"},
		Rules: []access.ReadRule{
			{Identity: "ci", Upstreams: []string{"private.test"}, Repositories: []string{"team/*"}},
			{Identity: "repo:org/*", Repositories: []string{"org/**"}, Files: []string{"org/**"}},
		},
		Now: func() time.Time { return noon },
	}
	if change != nil {
		change(&cfg)
	}
	return newReaders(t, cfg)
}

func bearer(token string) func(*http.Request) { return header("Bearer " + token) }

const teamApp = "/v2/private.test/team/app/tags/list"

func TestTokensOfEachAlgorithmAreVerified(t *testing.T) {
	var issuers []*issuer
	for _, alg := range []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	} {
		issuers = append(issuers, newIssuer(t, string(alg), alg))
	}
	a := tokenReaders(t, keyFile(t, set(t, issuers...)), nil)
	for _, i := range issuers {
		if got := verdict(t, a, teamApp, bearer(i.token(nil))); got != "leave of ci" {
			t.Errorf("%s: %s", i.alg, got)
		}
		stranger := newIssuer(t, i.id, i.alg)
		if got := verdict(t, a, teamApp, bearer(stranger.token(nil))); got != "UNAUTHORIZED" {
			t.Errorf("%s of another key: %s", i.alg, got)
		}
	}
	// Some token servers name no key.
	if got := verdict(t, a, teamApp, bearer(signed(t, jose.ES256, issuers[4].key, "", nil))); got != "leave of ci" {
		t.Errorf("without a key id: %s", got)
	}
}

func TestTokenThatIsNotForThisNodeAndNowDoesNotCount(t *testing.T) {
	i := newIssuer(t, "one", jose.ES256)
	rsaKey := newIssuer(t, "two", jose.RS256)
	content := set(t, i, rsaKey)
	a := tokenReaders(t, keyFile(t, content), nil)
	for name, c := range map[string]struct {
		changes map[string]any
		want    string
	}{
		"a good one":             {nil, "leave of ci"},
		"one of several for":     {map[string]any{"aud": []string{"other", "node.test"}}, "leave of ci"},
		"for another":            {map[string]any{"aud": "other.test"}, "UNAUTHORIZED"},
		"for nobody":             {map[string]any{"aud": nil}, "UNAUTHORIZED"},
		"of another issuer":      {map[string]any{"iss": "https://auth.test/"}, "UNAUTHORIZED"},
		"of no issuer":           {map[string]any{"iss": nil}, "UNAUTHORIZED"},
		"expired":                {map[string]any{"exp": noon.Add(-31 * time.Second).Unix()}, "UNAUTHORIZED"},
		"expired by a clock":     {map[string]any{"exp": noon.Add(-29 * time.Second).Unix()}, "leave of ci"},
		"for ever":               {map[string]any{"exp": nil}, "UNAUTHORIZED"},
		"not yet":                {map[string]any{"nbf": noon.Add(31 * time.Second).Unix()}, "UNAUTHORIZED"},
		"just now":               {map[string]any{"nbf": noon.Add(29 * time.Second).Unix()}, "leave of ci"},
		"issued in the future":   {map[string]any{"iat": noon.Add(time.Hour).Unix()}, "UNAUTHORIZED"},
		"of nobody":              {map[string]any{"sub": nil}, "DENIED"},
		"of somebody else":       {map[string]any{"sub": "stranger"}, "DENIED"},
		"that expires in a word": {map[string]any{"exp": "tomorrow"}, "UNAUTHORIZED"},
	} {
		if got := verdict(t, a, teamApp, bearer(i.token(c.changes))); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
	}
	good := i.token(nil)
	parts := strings.Split(good, ".")
	raw := func(header, signature string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + signature
	}
	public, err := json.Marshal(jose.JSONWebKey{Key: rsaKey.key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	foreign := newIssuer(t, "one", jose.ES256)
	embedded, err := json.Marshal(jose.JSONWebKey{Key: foreign.key.Public(), KeyID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"no signature":            raw(`{"alg":"none","kid":"one"}`, ""),
		"none in capitals":        raw(`{"alg":"NONE","kid":"one"}`, ""),
		"a stripped signature":    parts[0] + "." + parts[1] + ".",
		"the set as a secret":     signed(t, jose.HS256, content, "two", nil),
		"the key as a secret":     signed(t, jose.HS256, public, "two", nil),
		"another kind of key":     signed(t, jose.ES256, i.key, "two", nil),
		"a key that is not known": signed(t, jose.ES256, i.key, "three", nil),
		"a key of its own":        raw(fmt.Sprintf(`{"alg":"ES256","kid":"one","jwk":%s}`, embedded), parts[2]),
		"a critical extension":    raw(`{"alg":"ES256","kid":"one","crit":["exp"]}`, parts[2]),
		"another payload":         parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"ci"}`)) + "." + parts[2],
		"nothing":                 "",
		"no token":                "a.b.c",
		"a long word":             strings.Repeat("a", 60000),
	} {
		if got := verdict(t, a, teamApp, bearer(token)); got != "UNAUTHORIZED" {
			t.Errorf("%s: %s", name, got)
		}
		if got := verdict(t, a, "/v2/", bearer(token)); got != "UNAUTHORIZED" {
			t.Errorf("logging in with %s: %s", name, got)
		}
	}
	if _, err := ask(t, a, teamApp, bearer(good+"x")); err == nil || strings.Contains(err.Error(), parts[1]) || strings.Contains(fmt.Sprint(errors.Unwrap(err)), parts[1]) {
		t.Errorf("the error repeats the token: %v", err)
	}
}

func TestTokenOfARegistrysTokenServerIsGoodForWhatItListsOnly(t *testing.T) {
	i := newIssuer(t, "one", jose.ES256)
	a := tokenReaders(t, keyFile(t, set(t, i)), nil)
	pull := func(kind, name string, actions ...string) map[string]any {
		return map[string]any{"access": []any{map[string]any{"type": kind, "name": name, "actions": actions}}}
	}
	for _, c := range []struct {
		target  string
		changes map[string]any
		want    string
	}{
		{"/v2/private.test/a/b/tags/list", pull("repository", "private.test/a/b", "pull"), "leave of ci"},
		{"/v2/a/b/tags/list?ns=private.test", pull("repository", "private.test/a/b", "push", "pull"), "leave of ci"},
		{"/v2/private.test/a/b/tags/list", pull("repository", "private.test/a/b", "*"), "leave of ci"},
		{"/v2/private.test/a/b/tags/list", pull("repository", "private.test/a/b", "push"), "UNAUTHORIZED"},
		{"/v2/private.test/a/b/tags/list", pull("registry", "private.test/a/b", "pull"), "UNAUTHORIZED"},
		{"/v2/private.test/a/bc/tags/list", pull("repository", "private.test/a/b", "pull"), "UNAUTHORIZED"},
		{"/v2/private.test/a/b/c/tags/list", pull("repository", "private.test/a/b", "pull"), "UNAUTHORIZED"},
		{"/v2/private.test/a/b/tags/list", pull("repository", "private.test/**", "pull"), "UNAUTHORIZED"},
		// A name without an upstream is the default's, whatever upstream a request is for.
		{"/v2/a/b/tags/list", pull("repository", "a/b", "pull"), "leave of ci"},
		{"/v2/docker.io/a/b/tags/list", pull("repository", "a/b", "pull"), "leave of ci"},
		{"/v2/a/b/tags/list", pull("repository", "docker.io/a/b", "pull"), "leave of ci"},
		{"/v2/a/b/tags/list?ns=private.test", pull("repository", "a/b", "pull"), "UNAUTHORIZED"},
		// The rules would let its subject, which is not what it was issued for.
		{teamApp, pull("repository", "private.test/a/b", "pull"), "UNAUTHORIZED"},
		{teamApp, map[string]any{"access": []any{}}, "UNAUTHORIZED"},
		{teamApp, map[string]any{"access": json.RawMessage("null")}, "UNAUTHORIZED"},
		{teamApp, map[string]any{"access": "everything"}, "UNAUTHORIZED"},
		{"/dl.test/a", pull("repository", "dl.test/a", "pull"), "UNAUTHORIZED"},
		{"/v2/nowhere.test/a/tags/list", pull("repository", "nowhere.test/a", "pull"), "UNAUTHORIZED"},
		{"/v2/", map[string]any{"access": []any{}}, "leave of ci"},
		{"/v2/", map[string]any{"access": []any{}, "sub": ""}, "leave of "},
		// Without the claim, the rules say.
		{teamApp, nil, "leave of ci"},
		{"/v2/private.test/other/app/tags/list", nil, "DENIED"},
		{"/v2/org/app/tags/list", map[string]any{"sub": "repo:org/app:ref:refs/heads/main"}, "leave of repo:org/app:ref:refs/heads/main"},
		{"/dl.test/org/x", map[string]any{"sub": "repo:org/app:ref:refs/heads/main"}, "leave of repo:org/app:ref:refs/heads/main"},
		{"/v2/org/app/tags/list", map[string]any{"sub": "repo:organised/app"}, "DENIED"},
	} {
		if got := verdict(t, a, c.target, bearer(i.token(c.changes))); got != c.want {
			t.Errorf("%s with %v: %s; want %s", c.target, c.changes, got, c.want)
		}
	}
	ruleless := tokenReaders(t, keyFile(t, set(t, i)), func(cfg *access.ReadersConfig) { cfg.Rules = nil })
	if got := verdict(t, ruleless, teamApp, bearer(i.token(nil))); got != "DENIED" {
		t.Errorf("a token that says nothing, where no rules do: %s", got)
	}
}

// "Token Authentication" of distribution, and RFC 6750, section 3.
func TestClientsAreToldWhereToGetATokenForWhat(t *testing.T) {
	i := newIssuer(t, "one", jose.ES256)
	a := tokenReaders(t, keyFile(t, set(t, i)), nil)
	const server = `Bearer realm="https://auth.test/token",service="node.test"`
	scoped := bearer(i.token(map[string]any{"access": []any{}}))
	for _, c := range []struct {
		target string
		with   func(*http.Request)
		want   string
	}{
		{"/v2/", nil, server},
		{"/v2/private.test/a/b/manifests/1", nil, server + `,scope="repository:private.test/a/b:pull"`},
		{"/v2/a/b/manifests/1?ns=private.test", nil, server + `,scope="repository:private.test/a/b:pull"`},
		{"/v2/a/b/manifests/1", nil, server + `,scope="repository:docker.io/a/b:pull"`},
		{"/v2/a/b/manifests/1", scoped, server + `,scope="repository:docker.io/a/b:pull",error="insufficient_scope"`},
		{"/v2/a/b/manifests/1", bearer("x"), server + `,scope="repository:docker.io/a/b:pull",error="invalid_token"`},
		{"/v2/a/b/manifests/1", basic("a", "b"), server + `,scope="repository:docker.io/a/b:pull"`},
		{"/dl.test/a", nil, server},
	} {
		_, err := ask(t, a, c.target, c.with)
		var told *registry.Error
		if !errors.As(err, &told) || told.Challenge != c.want {
			t.Errorf("%s: %v, with challenge\n%s\nwant\n%s", c.target, err, told.Challenge, c.want)
		}
	}
	without := tokenReaders(t, keyFile(t, set(t, i)), func(cfg *access.ReadersConfig) { cfg.Tokens.Realm = "" })
	_, err := ask(t, without, "/v2/", nil)
	var told *registry.Error
	if !errors.As(err, &told) || told.Challenge != `Bearer realm="entrepot"` {
		t.Errorf("without a token server: %v, %+v", err, told)
	}
}

func TestKeysThatCannotBeUsedAreNamed(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this Go makes no such keys")
	}
	i := newIssuer(t, "one", jose.ES256)
	for name, c := range map[string]struct {
		key  any
		want string
	}{
		"short":   {short.Public(), "none of its 1 keys can be used"},
		"secret":  {[]byte("0123456789abcdef0123456789abcdef"), "none of its 1 keys can be used"},
		"private": {i.key, "none of its 1 keys can be used"},
	} {
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: c.key, KeyID: "one"}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = access.NewReaders(access.ReadersConfig{Tokens: &access.TokensConfig{Issuer: "i", Audience: "a", JWKS: keyFile(t, text)}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
	for content, want := range map[string]string{"no json": "not a JSON Web Key Set", `{"keys":[]}`: "none of its 0 keys"} {
		_, err := access.NewReaders(access.ReadersConfig{Tokens: &access.TokensConfig{Issuer: "i", Audience: "a", JWKS: keyFile(t, []byte(content))}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", content, err, want)
		}
	}
}

// keyServer has sets of keys, and counts who asks.
type keyServer struct {
	*httptest.Server

	mu     sync.Mutex
	answer http.HandlerFunc
	asked  int
}

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	s := &keyServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked++
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) serve(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *keyServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func running(t *testing.T, a *access.Readers) {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { a.Run(ctx) })
	t.Cleanup(func() {
		end()
		work.Wait()
	})
}

func TestKeysOfAURLAreReadOnceTheyAreNeeded(t *testing.T) {
	i, s := newIssuer(t, "one", jose.ES256), newKeyServer(t)
	content := set(t, i)
	s.serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	a := tokenReaders(t, s.URL, nil)
	running(t, a)
	if got := verdict(t, a, teamApp, bearer(i.token(nil))); got != "leave of ci" {
		t.Fatalf("a request that came before the keys: %s", got)
	}
	stranger := newIssuer(t, "two", jose.ES256)
	for range 20 { // whoever makes up key ids does not make the node ask
		if got := verdict(t, a, teamApp, bearer(stranger.token(nil))); got != "UNAUTHORIZED" {
			t.Errorf("a token of a key that is not known: %s", got)
		}
	}
	if got := s.count(); got != 1 {
		t.Errorf("the keys were asked for %d times in a moment", got)
	}
}

func TestWithoutKeysATokenIsNeitherGoodNorBad(t *testing.T) {
	i, s, elsewhere := newIssuer(t, "one", jose.ES256), newKeyServer(t), newKeyServer(t)
	content := set(t, i)
	elsewhere.serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	for name, answer := range map[string]http.HandlerFunc{
		"an error":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"no keys":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat(" ", 1<<20)))
			_, _ = w.Write(content)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.serve(answer)
			a := tokenReaders(t, s.URL, func(cfg *access.ReadersConfig) {
				cfg.Anonymous = []access.ReadRule{{Repositories: []string{"library/**"}}}
			})
			running(t, a)
			_, err := ask(t, a, teamApp, bearer(i.token(nil)))
			var told *registry.Error
			if !errors.As(err, &told) || told.Code.Descriptor().HTTPStatusCode != http.StatusServiceUnavailable || told.RetryAfter == 0 {
				t.Errorf("%v; want 503 and when to come back", err)
			}
			if got := verdict(t, a, "/v2/library/alpine/tags/list", nil); got != "open" {
				t.Errorf("what is open: %s", got)
			}
		})
	}
}
