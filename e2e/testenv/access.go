package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/bcrypt"
)

// Htpasswd writes an htpasswd file of names with passwords.
func Htpasswd(t testing.TB, passwords map[string]string) string {
	t.Helper()
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(passwords)) {
		hash, err := bcrypt.GenerateFromPassword([]byte(passwords[name]), bcrypt.MinCost)
		if err != nil {
			t.Fatalf("hashing a password: %v", err)
		}
		fmt.Fprintf(&lines, "%s:%s\n", name, hash)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "htpasswd"), lines.String())
}

// TokenServer is a token server as registries have: it knows passwords, and signs
// tokens for what it is told that a name may pull ("Token Authentication" of
// distribution).
type TokenServer struct {
	*httptest.Server
	Issuer, Audience string

	passwords map[string]string
	pulls     map[string][]string // repositories that a name may pull; "" is who has none
	key       *ecdsa.PrivateKey

	mu     sync.Mutex
	scopes []string // that were asked for
}

// StartTokenServer starts a token server. It ends with the test.
func StartTokenServer(t testing.TB, passwords map[string]string, pulls map[string][]string) *TokenServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making the key of a token server: %v", err)
	}
	s := &TokenServer{Issuer: "token server", Audience: "node.test", passwords: passwords, pulls: pulls, key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Use: "sig"}}})
	})
	mux.HandleFunc("/token", s.token)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// Config is the tokens section of a node's access that believes the server.
func (s *TokenServer) Config() map[string]any {
	return map[string]any{"issuer": s.Issuer, "audience": s.Audience, "jwks": s.URL + "/jwks", "realm": strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/token"}
}

// Scopes are those that were asked for.
func (s *TokenServer) Scopes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.scopes)
}

// token gives a token for as much of what is asked for as may be had.
func (s *TokenServer) token(w http.ResponseWriter, r *http.Request) {
	name, password, _ := r.BasicAuth()
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.PostForm.Get("grant_type") == "password" { // the OAuth2 form of it
		name, password = r.PostForm.Get("username"), r.PostForm.Get("password")
	}
	if name != "" && s.passwords[name] != password || r.Form.Get("service") != s.Audience {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	access := []map[string]any{}
	for _, scopes := range r.Form["scope"] {
		for scope := range strings.FieldsSeq(scopes) {
			s.mu.Lock()
			s.scopes = append(s.scopes, scope)
			s.mu.Unlock()
			repository := strings.TrimSuffix(strings.TrimPrefix(scope, "repository:"), ":pull")
			if slices.Contains(s.pulls[name], repository) {
				access = append(access, map[string]any{"type": "repository", "name": repository, "actions": []string{"pull"}})
			}
		}
	}
	token, err := s.sign(map[string]any{
		"iss": s.Issuer, "aud": s.Audience, "sub": name, "access": access,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	err = json.NewEncoder(w).Encode(struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"` // seconds
	}{token, token, 60})
	if err != nil {
		return // who asked is gone
	}
}

func (s *TokenServer) sign(claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, (&jose.SignerOptions{}).WithHeader("kid", "one"))
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	object, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return object.CompactSerialize()
}

// Authority issues certificates.
type Authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// File is the PEM file of its own certificate.
	File string
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = a.newKey()
	a.File = a.write("authority", a.cert, a.cert, a.key)
	return a
}

func (a *Authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatalf("making a key: %v", err)
	}
	return key
}

// Issue writes a certificate for a name, of a server on loopback and of a client,
// and its key, in PEM files.
func (a *Authority) Issue(name string) (cert, key string) {
	a.t.Helper()
	own := a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert = a.write(name, template, a.cert, own)
	der, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		a.t.Fatalf("writing a key: %v", err)
	}
	return cert, writeFile(a.t, filepath.Join(a.dir, url.PathEscape(name)+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func (a *Authority) write(name string, template, parent *x509.Certificate, key *ecdsa.PrivateKey) string {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatalf("issuing a certificate: %v", err)
	}
	return writeFile(a.t, filepath.Join(a.dir, url.PathEscape(name)+".crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// Home is a home directory with a docker configuration that has a name and a
// password for an address, or none where the name is "".
func Home(t testing.TB, address, name, password string) string {
	t.Helper()
	home := t.TempDir()
	auths := map[string]any{}
	if name != "" {
		auths[address] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(name + ":" + password))}
	}
	text, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatalf("writing a docker configuration: %v", err)
	}
	writeFile(t, filepath.Join(home, "config.json"), string(text))
	return home
}

// ClientIn is a command of a client with a home directory of [Home], not yet
// started. It ends with the test.
func ClientIn(t testing.TB, home, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + home, "DOCKER_CONFIG=" + home, "REGISTRY_AUTH_FILE=" + filepath.Join(home, "config.json"), "PATH=/usr/bin:/bin"}
	return cmd
}
