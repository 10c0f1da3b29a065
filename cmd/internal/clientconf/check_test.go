package clientconf

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// aServer is what a check finds: a node, unless something else is put before.
func aServer(before func(w http.ResponseWriter, r *http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const manifest = `{"schemaVersion":2}`
		switch {
		case before != nil && before(w, r):
		case r.URL.Path == WellKnown:
			fmt.Fprint(w, `{"role":"node","default_upstream":"docker.io","upstreams":[{"name":"docker.io"},{"name":"registry.test"}]}`)
		case r.URL.Path == "/v2/":
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Docker-Content-Digest", digest.FromString(manifest).String())
			fmt.Fprint(w, manifest)
		default:
			http.NotFound(w, r)
		}
	})
}

// answer answers a path with a status and a body.
func answer(path string, status int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, path) {
			return false
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
		return true
	}
}

// check looks at a server by its URL, and returns the findings as lines.
func check(t *testing.T, at string, client Client, images ...string) string {
	t.Helper()
	u, err := ParseURL(at)
	if err != nil {
		t.Fatal(err)
	}
	findings := open(t, t.TempDir()).Check(t.Context(), client, &Server{URL: u}, images, &http.Client{Timeout: 2 * time.Second})
	var lines []string
	for _, f := range findings {
		lines = append(lines, fmt.Sprintf("%v %s: %s", f.OK, f.What, f.Detail))
	}
	return strings.Join(lines, "\n")
}

func TestCheckNamesWhatIsWrongWithTheServer(t *testing.T) {
	plain := httptest.NewServer(aServer(nil))
	defer plain.Close()
	secure := httptest.NewTLSServer(aServer(nil))
	defer secure.Close()
	secure.Config.ErrorLog = nil
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close() // it takes connections, and says nothing

	for name, c := range map[string]struct{ at, want string }{
		"no such name":      {"http://no-such-name.invalid", "is not in the DNS"},
		"refused":           {"http://" + gone.Addr().String(), "nothing listens at " + gone.Addr().String()},
		"no answer":         {"http://" + mute.Addr().String(), "did not answer in time"},
		"HTTP, not HTTPS":   {strings.Replace(plain.URL, "http", "https", 1), "write " + plain.URL},
		"HTTPS, not HTTP":   {strings.Replace(secure.URL, "https", "http", 1), "write " + secure.URL},
		"unknown authority": {secure.URL, "--ca"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := check(t, c.at, Containerd); !strings.HasPrefix(got, "false") || !strings.Contains(got, c.want) {
				t.Errorf("check says %q, want %q", got, c.want)
			}
		})
	}
}

func TestCheckNamesWhatIsWrongWithTheAnswer(t *testing.T) {
	unknown := `{"errors":[{"code":"NAME_UNKNOWN","message":"\"docker.io\" is not an upstream here"}]}`
	for name, c := range map[string]struct {
		before func(http.ResponseWriter, *http.Request) bool
		want   string
	}{
		"no registry":             {answer("/v2/", 404, "not here"), "there is no registry"},
		"asks for a login":        {answer("/v2/", 401, ""), "log the client in"},
		"no entrepot":             {answer(WellKnown, 404, ""), "not an entrepot"},
		"something else at path":  {answer(WellKnown, 200, "<html>"), "not an entrepot"},
		"hostile names":           {answer(WellKnown, 200, `{"role":"node","upstreams":[{"name":"../x"}]}`), "cannot be one"},
		"upstream not configured": {answer("/manifests/", 404, unknown), "docker.io is not configured at"},
		"no such image":           {answer("/manifests/", 404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"gone"}]}`), "there is no such image (404 Not Found: gone)"},
		"upstream wants a login":  {answer("/manifests/", 401, ""), "credentials are asked for"},
		"upstream is down":        {answer("/manifests/", 503, ""), "cannot get it from docker.io"},
		"rate limit":              {answer("/manifests/", 429, ""), "too many requests"},
		"changed on the way": {func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", digest.FromString("other").String())
			return answer("/manifests/", 200, "{}")(w, r)
		}, "something on the way changes what is sent"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(aServer(c.before))
			defer server.Close()
			got := check(t, server.URL, Containerd, "docker.io/library/a:1")
			if !strings.Contains(got, "false") || !strings.Contains(got, c.want) {
				t.Errorf("check says %q, want %q", got, c.want)
			}
		})
	}
}

func TestCheckAsksAsTheClientWould(t *testing.T) {
	for client, want := range map[Client]string{
		Containerd: "/v2/a/b/manifests/1?ns=registry.test",
		Podman:     "/v2/registry.test/a/b/manifests/1",
		CRIO:       "/v2/registry.test/a/b/manifests/1",
	} {
		var asked []string
		server := httptest.NewServer(aServer(func(_ http.ResponseWriter, r *http.Request) bool {
			asked = append(asked, r.URL.RequestURI())
			return false
		}))
		got := check(t, server.URL, client, "registry.test/a/b:1")
		server.Close()
		if !strings.Contains(strings.Join(asked, " "), want) || !strings.Contains(got, "true registry.test/a/b:1") {
			t.Errorf("%s asked for %v and found %s; want %s", client, asked, got, want)
		}
	}
}

func TestCheckTrustsTheCAThatItIsGiven(t *testing.T) {
	server := httptest.NewTLSServer(aServer(nil))
	defer server.Close()
	u, err := ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	findings := open(t, t.TempDir()).Check(t.Context(), Podman, &Server{URL: u}, []string{"docker.io/library/a:1"}, client)
	if last := findings[len(findings)-1]; !last.OK {
		t.Errorf("the image was not found: %+v", findings)
	}
}
