package transfer_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/promote/transfer"
)

// writeDockerConfig writes a login of "release" at a host.
func writeDockerConfig(t *testing.T, host, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	login := base64.StdEncoding.EncodeToString([]byte("release:" + password))
	if err := os.WriteFile(path, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, login), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokensAreAskedForByScopeAndRenewedWhenTheyExpire(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	var issued atomic.Int64
	to.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			if user, password, _ := r.BasicAuth(); user != "release" || password != "secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			fmt.Fprintf(w, `{"token":"%d for %s"}`, issued.Add(1), r.URL.Query()["scope"])
			return true
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		number, scope, _ := strings.Cut(token, " for ")
		// Every fifth request finds its token expired.
		if strings.Contains(scope, "repository:app:pull,push") && (issued.Load() > 3 || r.Method != http.MethodPut || number != "1") {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="fake",scope="repository:app:pull,push"`, to.URL+"/token"))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	root := from.pusher(t, "app").image(nil, "v1", "layer")
	client := newClient(t, func(c *transfer.Config) { c.DockerConfig = writeDockerConfig(t, to.host(), "secret") })
	if err := copyApp(t, client, from, to, root.Digest); err != nil {
		t.Fatal(err)
	}
	if n := issued.Load(); n < 2 {
		t.Errorf("%d tokens issued, want new ones for those that expired", n)
	}

	wrong := newClient(t, func(c *transfer.Config) { c.DockerConfig = writeDockerConfig(t, to.host(), "guess") })
	err := copyApp(t, wrong, from, to, root.Digest)
	if !errors.Is(err, transfer.ErrUnauthorized) || strings.Contains(err.Error(), "guess") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestCredentialsAreGivenToNobodyElse(t *testing.T) {
	var stolen atomic.Value
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "" {
			stolen.Store(got)
		}
		if strings.HasSuffix(r.URL.Path, "/token") {
			fmt.Fprint(w, `{"token":"x"}`)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(thief.Close)
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	config := writeDockerConfig(t, from.host(), "secret")
	client := newClient(t, func(c *transfer.Config) { c.DockerConfig = config })

	challenge := fmt.Sprintf(`Bearer realm=%q`, thief.URL+"/token")
	from.fault = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	err := copyApp(t, client, from, to, digest.FromString("any"))
	if !errors.Is(err, transfer.ErrUnauthorized) || !strings.Contains(err.Error(), "token host") {
		t.Errorf("realm elsewhere: %v", err)
	}

	from.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		http.Redirect(w, r, thief.URL+"/content", http.StatusTemporaryRedirect)
		return true
	}
	if err := copyApp(t, newClient(t, func(c *transfer.Config) { c.DockerConfig = config }), from, to, digest.FromString("any")); err == nil {
		t.Error("content from elsewhere was taken without its digest")
	}
	if got := stolen.Load(); got != nil {
		t.Errorf("another host was sent %q", got)
	}
}
