package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newTLSServer asks for a client certificate and does not insist.
func newTLSServer(t *testing.T, h http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(s.record(h))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func writePEM(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAuthorityOfItsOwnIsTrusted(t *testing.T) {
	s := newTLSServer(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	ca := writePEM(t, "ca.pem", "CERTIFICATE", s.Certificate().Raw)
	wantBody(t, newUpstream(t, Config{URLs: []string{s.URL}, CAFile: ca}), blob(), "HTTP/2.0")

	err := wantError(t, newUpstream(t, Config{URLs: []string{s.URL}}), blob(), Unavailable)
	if !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("without it: %v", err)
	}
}

func TestClientCertificateIsShownToTheUpstreamOnly(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}

	names := func(r *http.Request) (all []string) {
		for _, c := range r.TLS.PeerCertificates {
			all = append(all, c.Subject.CommonName)
		}
		return all
	}
	bucket := newTLSServer(t, say("content"))
	s := newTLSServer(t, redirectTo(bucket.URL))
	u := newUpstream(t, Config{
		URLs:     []string{s.URL},
		CAFile:   writePEM(t, "ca.pem", "CERTIFICATE", s.Certificate().Raw), // httptest's servers share it
		CertFile: writePEM(t, "cert.pem", "CERTIFICATE", cert),
		KeyFile:  writePEM(t, "key.pem", "PRIVATE KEY", keyDER),
	})
	wantBody(t, u, blob(), "content")
	if got := names(s.requests()[0]); len(got) != 1 || got[0] != "node" {
		t.Errorf("the upstream was shown %q", got)
	}
	if got := names(bucket.requests()[0]); len(got) != 0 {
		t.Errorf("the bucket was shown %q", got)
	}
}

func TestRedirectFromHTTPSToHTTPIsRefused(t *testing.T) {
	plain := newServer(t, say("content"))
	s := newTLSServer(t, redirectTo(plain.URL))
	u := newUpstream(t, Config{URLs: []string{s.URL}, CAFile: writePEM(t, "ca.pem", "CERTIFICATE", s.Certificate().Raw)})
	if err := wantError(t, u, blob(), Invalid); !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("got error %v", err)
	}
	plain.asked(t, 0)
}

func TestPlainRealmOfAnHTTPSRegistryIsRefused(t *testing.T) {
	plain := newServer(t, say(`{"token":"x"}`))
	s := newTLSServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", `Bearer realm="`+plain.URL+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	u := newUpstream(t, Config{
		URLs: []string{s.URL}, TokenHosts: []string{plain.host()}, Username: "user", Password: "hunter2",
		CAFile: writePEM(t, "ca.pem", "CERTIFICATE", s.Certificate().Raw),
	})
	wantError(t, u, blob(), Invalid)
	plain.asked(t, 0)
}
