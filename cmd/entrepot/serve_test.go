package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// gatedUpstream is a registry with one blob, of which it sends the first half
// and then waits until release is closed.
type gatedUpstream struct {
	*httptest.Server
	blob    []byte
	digest  string
	release chan struct{}
}

func newGatedUpstream(t *testing.T) *gatedUpstream {
	u := &gatedUpstream{blob: make([]byte, 8<<20), release: make(chan struct{})}
	if _, err := rand.Read(u.blob); err != nil {
		t.Fatal(err)
	}
	u.digest = fmt.Sprintf("sha256:%x", sha256.Sum256(u.blob))
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/app/blobs/"+u.digest, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(u.blob)))
		half := len(u.blob) / 2
		_, _ = w.Write(u.blob[:half])
		w.(http.Flusher).Flush()
		select {
		case <-u.release:
			_, _ = w.Write(u.blob[half:])
		case <-r.Context().Done():
		}
	})
	u.Server = httptest.NewServer(mux)
	t.Cleanup(u.Close)
	return u
}

// config is a node for this upstream.
func (u *gatedUpstream) config(dir, more string) string {
	return fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: 127.0.0.1:0
  store: {dir: %q}
  upstreams:
    up.example: {urls: [%q]}
%s`, dir, u.URL, more)
}

// halfway asks the node for the blob and reads a part of it.
func (u *gatedUpstream) halfway(t *testing.T, p *served) (body io.ReadCloser, got []byte) {
	t.Helper()
	resp, err := http.Get("http://" + p.node + "/v2/up.example/app/blobs/" + u.digest)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %s", resp.Status)
	}
	got = make([]byte, 1<<20)
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		t.Fatal(err)
	}
	return resp.Body, got
}

func TestSIGTERMLetsARunningTransferFinish(t *testing.T) {
	u := newGatedUpstream(t)
	p := start(t, u.config(t.TempDir(), ""))
	if status, _ := get(t, "http://"+p.admin+"/readyz"); status != http.StatusOK {
		t.Errorf("/readyz says %d before the signal", status)
	}
	body, got := u.halfway(t, p)
	defer body.Close()

	p.signal(t, syscall.SIGTERM)
	p.waitFor(t, "stopping; running transfers may finish")
	if status, _ := get(t, "http://"+p.admin+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz says %d after the signal", status)
	}
	close(u.release)
	rest, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("the transfer was cut: %v", err)
	}
	if !bytes.Equal(append(got, rest...), u.blob) {
		t.Error("the blob is wrong")
	}
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if conn, err := net.Dial("tcp", p.node); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
}

func TestTransfersAreCutAfterShutdownTimeout(t *testing.T) {
	u := newGatedUpstream(t)
	p := start(t, u.config(t.TempDir(), "  shutdown_timeout: 100ms\n"))
	body, _ := u.halfway(t, p)
	defer body.Close()
	p.signal(t, syscall.SIGTERM)
	if _, err := io.ReadAll(body); err == nil {
		t.Error("half a blob ended as if it were whole")
	}
	if line := p.waitFor(t, "transfers were cut"); line["reason"] != "not finished after 100ms" {
		t.Errorf("reason: %v", line["reason"])
	}
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestASecondSignalCutsAtOnceAndTheNextStartResumes(t *testing.T) {
	u := newGatedUpstream(t)
	dir := t.TempDir()
	p := start(t, u.config(dir, "  shutdown_timeout: 1h\n"))
	body, _ := u.halfway(t, p)
	defer body.Close()
	p.signal(t, syscall.SIGINT)
	p.waitFor(t, "stopping; running transfers may finish")
	p.signal(t, syscall.SIGTERM)
	if _, err := io.ReadAll(body); err == nil {
		t.Error("half a blob ended as if it were whole")
	}
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}

	close(u.release)
	p = start(t, u.config(dir, ""))
	status, blob := get(t, "http://"+p.node+"/v2/up.example/app/blobs/"+u.digest)
	if status != http.StatusOK || blob != string(u.blob) {
		t.Errorf("after the restart: status %d, %d bytes", status, len(blob))
	}
}

func TestServeStartsWithUpstreamsDownAndTellsOperators(t *testing.T) {
	const down = "http://127.0.0.1:1" // nobody listens there
	p := start(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: 127.0.0.1:0
  store: {dir: %q}
  upstreams: {up.example: {urls: [%q]}}
`, t.TempDir(), down))
	for path, want := range map[string]string{"/": "/metrics", "/healthz": "ok", "/readyz": "ready", "/debug/pprof/": "goroutine"} {
		if status, body := get(t, "http://"+p.admin+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: status %d, %s", path, status, body)
		}
	}
	if status, _ := get(t, "http://"+p.node+"/v2/"); status != http.StatusOK {
		t.Errorf("/v2/: status %d", status)
	}
	if status, body := get(t, "http://"+p.node+"/v2/up.example/app/manifests/latest"); status < 500 || !strings.Contains(body, `"errors"`) {
		t.Errorf("a manifest of an upstream that is down: status %d, %s", status, body)
	}
	line := p.waitFor(t, "request")
	for _, key := range []string{"id", "client", "method", "status", "cache", "bytes", "duration"} {
		if _, ok := line[key]; !ok {
			t.Errorf("the access log lacks %s: %v", key, line)
		}
	}
	_, metrics := get(t, "http://"+p.admin+"/metrics")
	for _, want := range []string{
		`entrepot_requests_total{kind="base",outcome="none",role="node",upstream="none"} 1`,
		`entrepot_requests_total{kind="manifest",outcome="error",role="node",upstream="up.example"} 1`,
		`entrepot_response_bytes_total{outcome="hit",role="node",upstream="up.example"} 0`,
		`entrepot_request_duration_seconds_count{kind="base",outcome="none",role="node"} 1`,
		`entrepot_upstream_requests_total{host="127.0.0.1:1",role="node",status="0",upstream="up.example"}`,
		`entrepot_fills_in_progress{role="node"} 0`, `entrepot_store_bytes{role="node"} 0`, `entrepot_store_blobs{role="node"} 0`, `entrepot_store_evictions_total{role="node"} 0`,
		`entrepot_store_quarantined_total{role="node"} 0`, `entrepot_scrub_rotten_total{role="node"} 0`, `entrepot_scrub_progress_ratio{role="node"} `,
		"entrepot_memory_", "entrepot_build_info{", "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestTheAccessLogCanBeSwitchedOff(t *testing.T) {
	p := start(t, newGatedUpstream(t).config(t.TempDir(), "log: {access: false}\n"))
	get(t, "http://"+p.node+"/v2/")
	p.signal(t, syscall.SIGTERM)
	p.exit(t)
	for _, line := range p.lines {
		if line["msg"] == "request" {
			t.Errorf("logged %v", line)
		}
	}
}

func TestANewCertificateIsTakenWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "first")
	p := start(t, newGatedUpstream(t).config(t.TempDir(), fmt.Sprintf("  tls: {cert: %s/cert.pem, key: %s/key.pem}\n", dir, dir)))
	shows := func(name string) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the name is what is tested
			ForceAttemptHTTP2: true,
			DisableKeepAlives: true,
		}}
		resp, err := client.Get("https://" + p.node + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.TLS.PeerCertificates[0].Subject.CommonName; got != name || resp.ProtoMajor != 2 {
			t.Errorf("certificate %s over %s, want %s over HTTP/2", got, resp.Proto, name)
		}
	}
	shows("first")
	writeFile(t, dir, "key.pem", "half a key")
	p.signal(t, syscall.SIGHUP)
	p.waitFor(t, "the new certificate cannot be used; the old one stays")
	shows("first")
	writePair(t, dir, "second")
	p.signal(t, syscall.SIGHUP)
	p.waitFor(t, "took a new certificate into use")
	shows("second")
}

// writePair writes a self-signed certificate for name and its key.
func writePair(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
}
