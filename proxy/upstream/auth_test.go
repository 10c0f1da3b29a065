package upstream

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tokenRegistry is a registry that wants a bearer token, and its token server
// on the same host at /token.
type tokenRegistry struct {
	*server
	realm   string // overrides the realm
	scope   string // overrides the scope it asks for
	answer  func(w http.ResponseWriter, token string)
	content http.HandlerFunc

	mu      sync.Mutex
	issued  int
	revoked bool
}

func newTokenRegistry(t *testing.T) *tokenRegistry {
	r := &tokenRegistry{content: say("content")}
	r.answer = func(w http.ResponseWriter, token string) {
		_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, token)
	}
	r.server = newServer(t, r.serve)
	return r
}

func (r *tokenRegistry) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.URL.Path == "/token" {
		r.issued++
		r.revoked = false
		r.answer(w, fmt.Sprintf("tok%d-%s", r.issued, strings.Join(req.URL.Query()["scope"], "+")))
		return
	}
	repo, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/blobs/")
	scope := "repository:" + repo + ":pull"
	if r.scope != "" {
		scope = r.scope
	}
	if want := fmt.Sprintf("Bearer tok%d-", r.issued); r.revoked || !strings.HasPrefix(req.Header.Get("Authorization"), want) || !strings.Contains(req.Header.Get("Authorization"), scope) {
		realm := r.URL + "/token"
		if r.realm != "" {
			realm = r.realm
		}
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="reg",scope=%q`, realm, scope))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.content(w, req)
}

func (r *tokenRegistry) revoke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revoked = true
}

func (r *tokenRegistry) tokensIssued(t *testing.T, want int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.issued != want {
		t.Errorf("%d tokens were issued, want %d", r.issued, want)
	}
}

func TestAnonymousTokenIsFetchedOnceForARepository(t *testing.T) {
	r := newTokenRegistry(t)
	u := newUpstream(t, Config{URLs: []string{r.URL}})
	for range 3 {
		wantBody(t, u, blob(), "content")
	}
	r.tokensIssued(t, 1)
	r.asked(t, 5) // 401, token, and three times the blob
	for _, req := range r.requests() {
		if req.URL.Path == "/token" && req.Header.Get("Authorization") != "" {
			t.Error("an anonymous token was asked for with credentials")
		}
		if ua := req.Header["User-Agent"]; len(ua) != 1 || !strings.HasPrefix(ua[0], "entrepot/") {
			t.Errorf("%s was asked with User-Agent %q", req.URL.Path, ua)
		}
	}
}

func TestTokenForMoreScopesThanHintedIsReused(t *testing.T) {
	r := newTokenRegistry(t)
	r.scope = "repository:other/app:pull"
	u := newUpstream(t, Config{URLs: []string{r.URL}})
	for range 3 {
		wantBody(t, u, blob(), "content")
	}
	r.tokensIssued(t, 1)
	r.asked(t, 5)
}

func TestUserAndPasswordGoToTheTokenServer(t *testing.T) {
	r := newTokenRegistry(t)
	u := newUpstream(t, Config{URLs: []string{r.URL}, Username: "user", Password: "hunter2"})
	wantBody(t, u, blob(), "content")
	for _, req := range r.requests() {
		name, password, _ := req.BasicAuth()
		if isToken := req.URL.Path == "/token"; isToken != (name == "user" && password == "hunter2") {
			t.Errorf("%s was sent user %q and password %q", req.URL.Path, name, password)
		}
	}
}

func TestRevokedTokenIsReplacedOnce(t *testing.T) {
	r := newTokenRegistry(t)
	u := newUpstream(t, Config{URLs: []string{r.URL}})
	wantBody(t, u, blob(), "content")
	r.revoke()
	wantBody(t, u, blob(), "content")
	r.tokensIssued(t, 2)

	r.answer = func(w http.ResponseWriter, _ string) { _, _ = io.WriteString(w, `{"token":"useless"}`) }
	r.revoke()
	if err := wantError(t, u, blob(), Denied); err.Status != http.StatusUnauthorized {
		t.Errorf("status %d", err.Status)
	}
	r.tokensIssued(t, 3)
}

func TestExpiredTokenIsNotSent(t *testing.T) {
	r := newTokenRegistry(t)
	r.answer = func(w http.ResponseWriter, token string) {
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_in":0.000001}`, token)
	}
	u := newUpstream(t, Config{URLs: []string{r.URL}})
	wantBody(t, u, blob(), "content")
	wantBody(t, u, blob(), "content")
	r.tokensIssued(t, 2)
	if got := r.requests()[3].Header.Get("Authorization"); got != "" {
		t.Errorf("the expired token was sent: %q", got)
	}
}

func TestLifetimeOfTokens(t *testing.T) {
	for answer, want := range map[string]time.Duration{
		`{"expires_in":300}`:   5 * time.Minute,
		`{"expires_in":1e300}`: maxTokenLifetime,
		`{"expires_in":-5}`:    tokenLifetime,
		`{"expires_in":"x"}`:   tokenLifetime,
		`{}`:                   tokenLifetime,
		`not JSON`:             tokenLifetime,
	} {
		if got := lifetimeOf([]byte(answer)); got != want {
			t.Errorf("%s: %v, want %v", answer, got, want)
		}
	}
}

func TestManyRequestsAtOnceShareOneToken(t *testing.T) {
	r := newTokenRegistry(t)
	u := newUpstream(t, Config{URLs: []string{r.URL}})
	var group sync.WaitGroup
	for range 40 {
		group.Go(func() {
			resp, err := u.Do(t.Context(), blob())
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	group.Wait()
	r.tokensIssued(t, 1)
}

func TestTokensAreBounded(t *testing.T) {
	c := newTokenCache(time.Second)
	for i := range 3 * maxTokens {
		c.remember(1, fmt.Sprint(i), token{text: "x"})
	}
	if len(c.tokens) > maxTokens {
		t.Errorf("%d tokens are remembered", len(c.tokens))
	}
}

func TestBasicAuthentication(t *testing.T) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:hunter2"))
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != want {
			w.Header().Set("Www-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "content")
	})
	u := newUpstream(t, Config{URLs: []string{s.URL}, Username: "user", Password: "hunter2"})
	wantBody(t, u, blob(), "content")
	wantBody(t, u, blob(), "content")
	s.asked(t, 3)

	err := wantError(t, newUpstream(t, Config{URLs: []string{s.URL}}), blob(), Denied)
	if !strings.Contains(err.Error(), "none is configured") {
		t.Errorf("without credentials: %v", err)
	}
	err = wantError(t, newUpstream(t, Config{URLs: []string{s.URL}, Username: "user", Password: "wrong"}), blob(), Denied)
	if strings.Contains(err.Error(), "wrong") || err.Status != http.StatusUnauthorized {
		t.Errorf("with a wrong password: %v, status %d", err, err.Status)
	}
}

func TestRealmOnAForeignHostIsRefused(t *testing.T) {
	foreign := newServer(t, say(`{"token":"x"}`))
	for name, realm := range map[string]string{
		"other port": foreign.URL + "/token",
		"other name": strings.Replace(foreign.URL, "127.0.0.1", "localhost", 1) + "/token",
		"scheme":     "ftp://" + foreign.host() + "/token?sig=s3cret",
		"none":       "x",
		"user":       "http://a:b@" + foreign.host() + "/token",
	} {
		t.Run(name, func(t *testing.T) {
			r := newTokenRegistry(t)
			r.realm = realm
			u := newUpstream(t, Config{URLs: []string{r.URL}, Username: "user", Password: "hunter2"})
			err := wantError(t, u, blob(), Invalid)
			if name == "other port" && (!strings.Contains(err.Error(), foreign.host()) || !strings.Contains(err.Error(), "token_hosts")) {
				t.Errorf("error does not say what to do: %v", err)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error tells the realm's query: %v", err)
			}
			r.asked(t, 1)
		})
	}
	foreign.asked(t, 0)
}

func TestRealmOnAConfiguredTokenHostIsTrusted(t *testing.T) {
	r := newTokenRegistry(t)
	tokens := newServer(t, func(w http.ResponseWriter, req *http.Request) { r.serve(w, req) })
	r.realm = tokens.URL + "/token"
	u := newUpstream(t, Config{URLs: []string{r.URL}, TokenHosts: []string{tokens.host()}, Username: "user", Password: "hunter2"})
	wantBody(t, u, blob(), "content")
	tokens.asked(t, 1)
}

func TestRealmMustBeHTTPSWhereTheRegistryIs(t *testing.T) {
	rule, err := newRealmRule(nil, []string{"auth.example.org", "other.example.org:8443"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		endpoint, realm string
		trusted         bool
	}{
		{"https://r", "https://auth.example.org/token", true},
		{"https://r", "https://AUTH.example.org:443/token", true},
		{"https://r", "http://auth.example.org/token", false},
		{"https://r", "https://auth.example.org:444/token", false},
		{"https://r", "https://sub.auth.example.org/token", false},
		{"https://r", "https://example.org/token", false},
		{"https://r", "https://other.example.org:8443/token", true},
		{"https://r", "https://other.example.org/token", false},
		{"http://r", "http://auth.example.org/token", true},
		{"http://r", "https://auth.example.org/token", true},
	} {
		base, _, err := parseBase(c.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		realm, _, err := parseBase(c.realm)
		if err != nil {
			t.Fatal(err)
		}
		if err := rule.check(realm, &Endpoint{base: base}); (err == nil) != c.trusted {
			t.Errorf("registry %s, realm %s: %v", c.endpoint, c.realm, err)
		}
	}
}

func TestTokenRequestIsNotRedirectedToAForeignHost(t *testing.T) {
	foreign := newServer(t, say(`{"token":"x"}`))
	r := newTokenRegistry(t)
	r.answer = func(w http.ResponseWriter, _ string) {
		w.Header().Set("Location", foreign.URL+"/token")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	u := newUpstream(t, Config{URLs: []string{r.URL}, Username: "user", Password: "hunter2"})
	wantError(t, u, blob(), Invalid)
	foreign.asked(t, 0)
}

func TestRefusalOfTheTokenServerIsToldApart(t *testing.T) {
	for status, want := range map[int]Kind{401: Denied, 403: Denied, 429: RateLimited, 500: Unavailable, 503: Unavailable, 404: Invalid, 400: Invalid} {
		r := newTokenRegistry(t)
		r.answer = func(w http.ResponseWriter, _ string) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"password hunter2 is wrong"}]}`)
		}
		u := newUpstream(t, Config{URLs: []string{r.URL}, Username: "user", Password: "hunter2"})
		err := wantError(t, u, blob(), want)
		if err.Status != status || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d: %v, status %d", status, err, err.Status)
		}
		if waits := want == RateLimited || want == Unavailable; waits != (err.RetryAfter == 7*time.Second) {
			t.Errorf("%d: retry after %v", status, err.RetryAfter)
		}
	}
}

func TestAnswerOfTheTokenServerIsBounded(t *testing.T) {
	for name, answer := range map[string]string{
		"too large": `{"token":"` + strings.Repeat("x", maxTokenResponse) + `"}`,
		"no token":  `{}`,
		"not JSON":  `<html>`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newTokenRegistry(t)
			r.answer = func(w http.ResponseWriter, _ string) { _, _ = io.WriteString(w, answer) }
			wantError(t, newUpstream(t, Config{URLs: []string{r.URL}}), blob(), Invalid)
		})
	}
}

func TestSilentTokenServerHasADeadline(t *testing.T) {
	r := newTokenRegistry(t)
	release := make(chan struct{})
	silent := newServer(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	r.realm = silent.URL + "/token"
	u := newUpstream(t, Config{
		URLs: []string{r.URL}, TokenHosts: []string{silent.host()},
		ConnectTimeout: 50 * time.Millisecond, ResponseTimeout: 100 * time.Millisecond, StallTimeout: time.Second,
	})
	if err := wantError(t, u, blob(), Unavailable); !err.Timeout {
		t.Errorf("not told as a timeout: %v", err)
	}
}

func TestDockerConfigurationAndItsHelper(t *testing.T) {
	dir := t.TempDir()
	helper := "#!/bin/sh\nread host\n[ \"$1\" = get ] || exit 1\n" +
		"if [ -e '" + dir + "/broken' ]; then echo 'secret hunter2 unusable'; exit 1; fi\n" +
		"echo \"{\\\"ServerURL\\\":\\\"$host\\\",\\\"Username\\\":\\\"helper\\\",\\\"Secret\\\":\\\"hunter2\\\"}\"\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(helper), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var user atomic.Value
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		name, password, ok := r.BasicAuth()
		if !ok || password != "hunter2" {
			w.Header().Set("Www-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		user.Store(name)
		_, _ = io.WriteString(w, "content")
	})
	config := filepath.Join(dir, "config.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.host(), base64.StdEncoding.EncodeToString([]byte("file:hunter2"))))
	wantBody(t, newUpstream(t, Config{URLs: []string{s.URL}, DockerConfig: config}), blob(), "content")
	if user.Load() != "file" {
		t.Errorf("user %v came, want the configuration's own", user.Load())
	}

	for _, text := range []string{`{"credsStore":"test"}`, fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, s.host())} {
		write(text)
		u := newUpstream(t, Config{URLs: []string{s.URL}, DockerConfig: config})
		wantBody(t, u, blob(), "content")
		if user.Load() != "helper" {
			t.Errorf("%s: user %v came, want the helper's", text, user.Load())
		}
	}

	if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := wantError(t, newUpstream(t, Config{URLs: []string{s.URL}, DockerConfig: config}), blob(), Unavailable)
	if strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "credential helper") {
		t.Errorf("broken helper: %v", err)
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example.org/token",service="x",scope="repository:app:pull"`)
	f.Add(`Bearer realm="https://u:p@evil.example/?sig=1",scope="a b c"`)
	f.Add(`Basic realm="x"`)
	f.Add("Bearer realm=\"\x00://\"")
	f.Add(`Bearer realm="//host/path"`)
	f.Fuzz(func(t *testing.T, challenge string) {
		// The registry answers with any challenge; nobody but it may be asked.
		network := roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Scheme != "https" || bareHost(r.URL) != "r.example.org" {
				t.Errorf("asked %s", r.URL)
			}
			if r.URL.Path == "/v2/app/blobs/sha256:abc" && strings.Contains(r.Header.Get("Authorization"), "hunter2") {
				t.Error("the password went to the registry in the clear")
			}
			return &http.Response{
				StatusCode: http.StatusUnauthorized, Request: r, Body: http.NoBody,
				Header: http.Header{"Www-Authenticate": {challenge}},
			}, nil
		})
		u, err := New(Config{Name: "x", URLs: []string{"https://r.example.org"}, Username: "u", Password: "hunter2", Transport: network})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		resp, err := u.Do(t.Context(), blob())
		if err == nil {
			resp.Body.Close()
			t.Fatal("a 401 became an answer")
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error tells the password: %v", err)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
