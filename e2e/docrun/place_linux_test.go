package docrun

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/e2e/testenv"
)

// programs tells the test, on the machine of its own, where the programs are.
const programs = "ENTREPOT_TEST_DOCRUN_PROGRAMS"

// hosts are the names that exist on the machine, and which server of it each
// leads to: a port, on which plain HTTP is spoken behind the certificate.
// Those of the world's registries lead to one that the test fills.
func hosts() map[string]string {
	const registry, files = "5999", "5998"
	return map[string]string{
		"origin.inside.example": "5001", "dl.example.org": "5001",
		"node.example.org": "5000", "mirror.example.edu": "5000", "mirror.example.org": "5000",
		"origin.example.org": "5001", "artifacts.example.org": "8080", "staging.example.org": registry, "registry.example.org": registry,
		"registry-1.docker.io": registry, "mcr.microsoft.com": registry, "public.ecr.aws": registry, "registry.k8s.io": registry, "ghcr.io": registry, "quay.io": registry, "gcr.io": registry,
		"dl.k8s.io": files, "files.example.org": files, "minio.example.org": "9000",
	}
}

// settle makes the machine that of the pages: hosts have names, and what is written
// below /etc and such is gone with it.
func settle() error {
	if err := testenv.LayOver("etc", "var/lib", "var/cache", "run", "srv", "media"); err != nil {
		return err
	}
	return writeHosts(hosts())
}

// writeHosts has names be those of this machine, and no others exist.
func writeHosts(leads map[string]string) error {
	var names strings.Builder
	names.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for name := range leads {
		names.WriteString("127.0.0.1 " + name + "\n")
	}
	return os.WriteFile("/etc/hosts", []byte(names.String()), 0o644)
}

// front is what serves the hosts by https.
type front struct {
	ca string // file with the certificate, which clients are to trust

	mu    sync.Mutex
	leads map[string]string // hosts, as they are now
}

// newFront serves the hosts, and trusts itself.
func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{ca: filepath.Join(t.TempDir(), "ca.pem"), leads: hosts()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "docrun"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for name := range hosts() {
		ca.DNSNames = append(ca.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:443", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(f.lead), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	if err := os.WriteFile(f.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// change has the hosts be others until the test ends.
func (f *front) change(t *testing.T, leads map[string]string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.leads
	f.leads = leads
	if err := writeHosts(leads); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.leads = was
		if err := writeHosts(was); err != nil {
			t.Error(err)
		}
	})
}

// lead sends a request on to the server that its host leads to.
func (f *front) lead(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	f.mu.Lock()
	port, ok := f.leads[host]
	f.mu.Unlock()
	if !ok {
		http.Error(w, "no such host here: "+host, http.StatusMisdirectedRequest)
		return
	}
	reverse("http://127.0.0.1:"+port).ServeHTTP(w, r)
}

// reverse serves what another server has.
func reverse(target string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, _ = strings.Cut(target, "://")
			p.Out.Host = p.In.Host
			p.SetXForwarded()
		},
		FlushInterval: -1,
	}
}
