package access_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/registry"
	"entrepot/registry/access"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"golang.org/x/crypto/bcrypt"
)

// upstreamsOfReaders are those of the nodes here: two of images, of which one is private, and
// two of files.
func upstreamsOfReaders(cfg *access.ReadersConfig) {
	cfg.Images = []access.Upstream{{Name: "docker.io"}, {Name: "private.test", Private: true}}
	cfg.Files = []access.Upstream{{Name: "dl.test"}, {Name: "vault.test", Private: true}}
	cfg.DefaultImages = "docker.io"
}

func newReaders(t *testing.T, cfg access.ReadersConfig) *access.Readers {
	t.Helper()
	upstreamsOfReaders(&cfg)
	a, err := access.NewReaders(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func htpasswd(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask asks for leave to read what a target names, with credentials.
func ask(t *testing.T, a *access.Readers, target string, with func(*http.Request)) (registry.Leave, error) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	if with != nil {
		with(r)
	}
	if registry.IsAPI(r.URL.Path) {
		req, err := registry.ParseRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		return a.ReadImage(r, &req)
	}
	req, err := registry.ParseFileRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	return a.ReadFile(r, &req)
}

// verdict is what became of a request: "open", "leave of NAME", or the code of an error.
func verdict(t *testing.T, a *access.Readers, target string, with func(*http.Request)) string {
	t.Helper()
	leave, err := ask(t, a, target, with)
	var told *registry.Error
	switch {
	case errors.As(err, &told):
		if (told.Code == errcode.ErrorCodeUnauthorized) != (told.Challenge != "") {
			t.Errorf("%s: %s with challenge %q", target, told.Code, told.Challenge)
		}
		return told.Code.Descriptor().Value
	case err != nil:
		t.Fatalf("%s: not an error for a client: %v", target, err)
	case leave.Open:
		return "open"
	}
	return "leave of " + leave.Identity
}

func basic(name, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(name, password) }
}

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestRulesSayWhoMayReadWhat(t *testing.T) {
	a := newReaders(t, access.ReadersConfig{
		Htpasswd: htpasswd(t, line(t, "ci", "1", bcrypt.MinCost)+line(t, "ops", "2", bcrypt.MinCost)+line(t, "team-a", "3", bcrypt.MinCost)),
		Anonymous: []access.ReadRule{
			{Upstreams: []string{"docker.io"}, Repositories: []string{"library/**"}},
			{Repositories: []string{"open/**"}, Files: []string{"open/**"}},
		},
		Rules: []access.ReadRule{
			{Identity: "ci", Upstreams: []string{"private.test"}, Repositories: []string{"team/*"}},
			{Identity: "ops", Repositories: []string{"**"}, Files: []string{"**"}},
			{Identity: "team-*", Upstreams: []string{"vault.test"}, Files: []string{"shared/**"}},
		},
	})
	ci, ops, team := basic("ci", "1"), basic("ops", "2"), basic("team-a", "3")
	for _, c := range []struct {
		target string
		with   func(*http.Request)
		want   string
	}{
		{"/v2/docker.io/library/alpine/manifests/3", nil, "open"},
		{"/v2/library/alpine/manifests/3", nil, "open"},
		{"/v2/library/alpine/manifests/3?ns=docker.io", nil, "open"},
		{"/v2/library/alpine/manifests/3", ci, "open"},
		{"/v2/library/alpine/manifests/3?ns=private.test", nil, "UNAUTHORIZED"},
		{"/v2/private.test/library/alpine/tags/list", nil, "UNAUTHORIZED"},
		{"/v2/docker.io/me/app/manifests/3", nil, "UNAUTHORIZED"},
		{"/v2/docker.io/open/app/manifests/3", nil, "open"},
		{"/v2/private.test/open/app/manifests/3", nil, "UNAUTHORIZED"}, // no upstream means all but private ones
		{"/dl.test/open/a", nil, "open"},
		{"/vault.test/open/a", nil, "UNAUTHORIZED"},

		{"/v2/private.test/team/app/blobs/" + someDigest, ci, "leave of ci"},
		{"/v2/team/app/blobs/" + someDigest + "?ns=private.test", ci, "leave of ci"},
		{"/v2/private.test/team/app/referrers/" + someDigest, ci, "leave of ci"},
		{"/v2/private.test/team/app/tags/list", ci, "leave of ci"},
		{"/v2/private.test/team/app/x/tags/list", ci, "DENIED"},
		{"/v2/team/app/blobs/" + someDigest, ci, "DENIED"}, // docker.io's
		{"/v2/private.test/team/manifests/1", ci, "DENIED"},
		{"/dl.test/a", ci, "DENIED"},

		{"/v2/private.test/any/thing/manifests/1", ops, "leave of ops"},
		{"/v2/nowhere.test/app/manifests/1", ops, "leave of ops"}, // to be told that it is not there
		{"/v2/nowhere.test/app/manifests/1", ci, "DENIED"},
		{"/v2/nowhere.test/app/manifests/1", nil, "UNAUTHORIZED"},
		{"/v2/nowhere.test/open/app/manifests/1", nil, "UNAUTHORIZED"}, // as of a private one
		{"/vault.test/", ops, "leave of ops"},
		{"/", ops, "leave of ops"},
		{"/blobs/" + someDigest, ops, "leave of ops"},

		{"/vault.test/shared/a", team, "leave of team-a"},
		{"/vault.test/shared/", team, "leave of team-a"},
		{"/vault.test/%73hared/a", team, "leave of team-a"},
		{"/vault.test/other/a", team, "DENIED"},
		{"/vault.test/", team, "DENIED"},
		{"/vault.test//shared/a", team, "DENIED"},
		{"/vault.test/shared//a", team, "DENIED"},
		{"/dl.test/shared/a", team, "DENIED"},
		{"/blobs/" + someDigest, team, "DENIED"},
		{"/blobs/" + someDigest, nil, "UNAUTHORIZED"},
		{"/vault.test/blobs/" + someDigest, team, "DENIED"},

		{"/v2/", nil, "UNAUTHORIZED"},
		{"/v2/", ci, "leave of ci"},
		{"/v2/", basic("ci", "2"), "UNAUTHORIZED"},
		{"/v2/", basic("nobody", "1"), "UNAUTHORIZED"},
		{"/v2/library/alpine/manifests/3", basic("ci", "wrong"), "UNAUTHORIZED"},
		{"/v2/library/alpine/manifests/3", basic("", ""), "open"}, // of containers/image without a login
		{"/v2/private.test/team/app/tags/list", basic("", ""), "UNAUTHORIZED"},
		{"/v2/library/alpine/manifests/3", header("Bearer abc"), "UNAUTHORIZED"},
		{"/v2/library/alpine/manifests/3", header("Basic !!!"), "UNAUTHORIZED"},
		{"/v2/library/alpine/manifests/3", header(""), "UNAUTHORIZED"},
		{"/v2/library/alpine/manifests/3", func(r *http.Request) {
			ci(r)
			r.Header.Add("Authorization", "Basic b3BzOjI=")
		}, "UNAUTHORIZED"},
	} {
		if got := verdict(t, a, c.target, c.with); got != c.want {
			t.Errorf("%s: %s; want %s", c.target, got, c.want)
		}
	}
}

func header(authorization string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", authorization) }
}

func TestWithoutRulesWhoeverHasAPasswordMayReadEverything(t *testing.T) {
	a := newReaders(t, access.ReadersConfig{Htpasswd: htpasswd(t, line(t, "a", "1", bcrypt.MinCost)), Realm: "here"})
	for _, target := range []string{"/v2/private.test/x/y/tags/list", "/vault.test/a", "/blobs/" + someDigest} {
		if got := verdict(t, a, target, basic("a", "1")); got != "leave of a" {
			t.Errorf("%s: %s", target, got)
		}
		if got := verdict(t, a, target, nil); got != "UNAUTHORIZED" {
			t.Errorf("%s: %s", target, got)
		}
	}
	_, err := ask(t, a, "/v2/", nil)
	var told *registry.Error
	if !errors.As(err, &told) || told.Challenge != `Basic realm="here", charset="UTF-8"` {
		t.Errorf("challenge of %v: %+v", err, told)
	}
}

// A refusal must not tell whether there is something to refuse.
func TestARefusalSaysWhatMayBeReadInstead(t *testing.T) {
	a := newReaders(t, access.ReadersConfig{
		Htpasswd: htpasswd(t, line(t, "ci", "1", bcrypt.MinCost)),
		Rules:    []access.ReadRule{{Identity: "ci", Upstreams: []string{"private.test"}, Repositories: []string{"team/*"}}},
	})
	for target, want := range map[string]string{
		"/v2/private.test/other/app/manifests/1": `identity "ci" may not pull repository "private.test/other/app": its rules have team/* of private.test`,
		"/dl.test/a":                             `identity "ci" may not pull any file: no rule lets it`,
	} {
		if _, err := ask(t, a, target, basic("ci", "1")); err == nil || err.Error() != want {
			t.Errorf("%s: %v; want %s", target, err, want)
		}
	}
}

// connection is one over TLS whose client's certificate was verified, unless it says otherwise.
func connection(cert *x509.Certificate, verified bool) func(*http.Request) {
	return func(r *http.Request) {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		if verified {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
		}
	}
}

func TestAClientIsKnownByItsCertificate(t *testing.T) {
	uri, err := url.Parse("spiffe://example.org/ci")
	if err != nil {
		t.Fatal(err)
	}
	named := &x509.Certificate{Subject: pkix.Name{CommonName: "ci"}, DNSNames: []string{"ops"}}
	rule := []access.ReadRule{{Identity: "ci", Repositories: []string{"team/*"}}, {Identity: "spiffe://example.org/*", Repositories: []string{"mesh/*"}}}
	a := newReaders(t, access.ReadersConfig{Certificates: true, Rules: rule})
	for name, c := range map[string]struct {
		target string
		with   func(*http.Request)
		want   string
	}{
		"its name":              {"/v2/team/app/tags/list", connection(named, true), "leave of ci"},
		"another's":             {"/v2/mesh/app/tags/list", connection(named, true), "DENIED"},
		"a URI":                 {"/v2/mesh/app/tags/list", connection(&x509.Certificate{URIs: []*url.URL{uri}}, true), "leave of spiffe://example.org/ci"},
		"one that nobody named": {"/v2/team/app/tags/list", connection(&x509.Certificate{}, true), "DENIED"},
		"one not verified":      {"/v2/team/app/tags/list", connection(named, false), "DENIED"},
		"none":                  {"/v2/team/app/tags/list", nil, "DENIED"},
		"login":                 {"/v2/", connection(named, true), "leave of ci"},
		"login without":         {"/v2/", nil, "DENIED"},
		"with a password":       {"/v2/team/app/tags/list", both(connection(named, true), basic("ci", "x")), "DENIED"}, // which nobody has here
	} {
		if got := verdict(t, a, c.target, c.with); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
	}
	others := newReaders(t, access.ReadersConfig{Htpasswd: htpasswd(t, ""), Rules: rule})
	if got := verdict(t, others, "/v2/team/app/tags/list", connection(named, true)); got != "UNAUTHORIZED" {
		t.Errorf("where certificates do not count: %s", got)
	}
}

func both(one, other func(*http.Request)) func(*http.Request) {
	return func(r *http.Request) { one(r); other(r) }
}

func TestWhereNobodyIsKnownAllAreWelcomeToLogIn(t *testing.T) {
	a := newReaders(t, access.ReadersConfig{Anonymous: []access.ReadRule{{Repositories: []string{"**"}}}})
	for target, want := range map[string]string{"/v2/": "open", "/v2/x/y/tags/list": "open", "/v2/private.test/x/tags/list": "DENIED", "/dl.test/a": "DENIED"} {
		if got := verdict(t, a, target, nil); got != want {
			t.Errorf("%s: %s; want %s", target, got, want)
		}
	}
}

func TestEveryProblemOfReadRulesIsNamed(t *testing.T) {
	cfg := access.ReadersConfig{
		Anonymous: []access.ReadRule{{Identity: "a", Repositories: []string{"**"}}},
		Rules: []access.ReadRule{
			{Repositories: []string{"**"}},
			{Identity: "a", Upstreams: []string{"quay.io"}, Repositories: []string{"x[12]"}},
			{Identity: "b"},
		},
	}
	upstreamsOfReaders(&cfg)
	_, err := access.NewReaders(cfg)
	want := strings.Join([]string{
		`reading what everybody may read: rule 1: it names identity "a", and is for those who have none`,
		`reading the rules of who may read: rule 1: it names no identity: "*" means everybody who is known`,
		`rule 2: "quay.io" is not an upstream here: there are docker.io, private.test, dl.test, vault.test`,
		`rule 2: pattern "x[12]": '[' means nothing in a pattern: there are only "*" within an element, and "**" for any number of elements`,
		`rule 3: it names neither repositories nor files`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
