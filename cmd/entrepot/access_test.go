package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// guardedConfig is a node for alice, with more of its keys and roles.
func guardedConfig(t *testing.T, nodeKeys, roles string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("wonderland"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"tags":["1"]}`)) }))
	t.Cleanup(upstream.Close)
	dir := t.TempDir()
	return fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: 127.0.0.1:0
  store: {dir: %q}
  access: {htpasswd: %q}
  upstreams: {up.example: {urls: [%q], private: true}}
%s%s`, dir, writeFile(t, dir, "htpasswd", "alice:"+string(hash)+"\n"), upstream.URL, nodeKeys, roles)
}

// statusAt asks for the tags of a repository, by a host's name and with headers.
func statusAt(t *testing.T, address, host string, with func(*http.Request)) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/v2/up.example/app/tags/list", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	if with != nil {
		with(r)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func asAlice(r *http.Request) { r.SetBasicAuth("alice", "wonderland") }

func TestRouterServesFixedHostsWithTheNodesAccessControl(t *testing.T) {
	mirror := aMirror(t)
	p := start(t, guardedConfig(t, "", fmt.Sprintf(`router:
  listen: 127.0.0.1:0
  fixed: {hosts: [fixed.example]}
  mirrors: [{name: origin, urls: [%q], tier: origin, country: US, lat: 41.3, lon: -95.9}]
`, mirror.URL)))
	router := fmt.Sprint(p.waitFor(t, "serving")["router"])
	for address, host := range map[string]string{p.node: p.node, router: "fixed.example"} {
		if status := statusAt(t, address, host, nil); status != http.StatusUnauthorized {
			t.Errorf("without credentials at %s: %d", host, status)
		}
		if status := statusAt(t, address, host, asAlice); status != http.StatusOK {
			t.Errorf("alice at %s: %d", host, status)
		}
	}
	p.signal(t, syscall.SIGTERM)
	p.exit(t)
}

func TestOnlyNodesWithTheSecretOfTheRegionReadWithoutCredentials(t *testing.T) {
	p := start(t, guardedConfig(t, "  peers: {list: [\"http://127.0.0.1:1\"], secret: 0123456789abcdef}\n", ""))
	for name, with := range map[string]func(*http.Request){
		"nothing":        nil,
		"a made-up id":   func(r *http.Request) { r.Header.Set("CDN-Loop", "entrepot; id=other") },
		"another secret": signedBy("fedcba9876543210"),
	} {
		if status := statusAt(t, p.node, p.node, with); status != http.StatusUnauthorized && status != http.StatusForbidden {
			t.Errorf("with %s: %d", name, status)
		}
	}
	for name, with := range map[string]func(*http.Request){"alice": asAlice, "a node of the region": signedBy("0123456789abcdef")} {
		if status := statusAt(t, p.node, p.node, with); status != http.StatusOK {
			t.Errorf("%s: %d", name, status)
		}
	}
	p.signal(t, syscall.SIGTERM)
	p.exit(t)
}

// signedBy signs a request as a node of the region does that has the secret.
func signedBy(secret string) func(*http.Request) {
	return func(r *http.Request) {
		at := fmt.Sprint(time.Now().Unix())
		r.Header.Set("CDN-Loop", "entrepot; id=other")
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(strings.Join([]string{"request", at, r.Method, r.URL.RequestURI(), "entrepot; id=other", ""}, "\n")))
		r.Header.Set("Authorization", fmt.Sprintf("Entrepot-Peer %s %x", at, mac.Sum(nil)))
	}
}
