package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/bcrypt"
)

const (
	promoter         = "promoter"
	promoterPassword = "correct-horse"
)

// site is a staging registry and a production one, both origins in the test's
// own process, with a ledger and a plain file of configuration.
type site struct {
	staging, production *httptest.Server
	ledger              string // URL
	ledgerDir           string
	key                 string // file of the private key; the public one is key+".pub"
	file                string // the configuration
}

// newSite starts both, and has promotion log in with the right password. Rules
// are the production's.
func newSite(t *testing.T, rules ...RuleConfig) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{ledgerDir: filepath.Join(dir, "ledger"), key: filepath.Join(dir, "ledger.key"), file: filepath.Join(dir, "app.yaml")}
	s.ledger = (&url.URL{Scheme: "file", Path: s.ledgerDir}).String()
	entrepot(t, "ledger", "keygen", "--name", "production.test/ledger", "--out", s.key).check(t, exitDone, s.key+" (private) and "+s.key+".pub\n", "")
	s.staging = startOrigin(t, OriginConfig{})
	s.production = startOrigin(t, OriginConfig{Ledger: s.ledger, Rules: rules})
	s.login(t, promoterPassword)
	return s
}

// startOrigin serves an origin that the promoter may write to.
func startOrigin(t *testing.T, cfg OriginConfig) *httptest.Server {
	t.Helper()
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(promoterPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	cfg.SetDefaults()
	cfg.Store.Dir, cfg.Uploads = Path(filepath.Join(dir, "store")), Path(filepath.Join(dir, "uploads"))
	cfg.Htpasswd = Path(writeFile(t, dir, "htpasswd", promoter+":"+string(hash)+"\n"))
	o, err := openOrigin(&cfg, newLoggers(LogConfig{Level: "error", Format: "json"}, io.Discard), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(o.handler())
	t.Cleanup(func() {
		server.Close()
		if err := o.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server
}

func host(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

// login has promotion use a password for both registries.
func (s *site) login(t *testing.T, password string) {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(promoter + ":" + password))
	dir := t.TempDir()
	writeFile(t, dir, "config.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}, %q: {"auth": %q}}}`,
		host(s.staging), auth, host(s.production), auth))
	t.Setenv("DOCKER_CONFIG", dir)
}

// push puts an image of one small layer under a tag, and returns its digest.
func push(t *testing.T, server *httptest.Server, repository, tag string) digest.Digest {
	t.Helper()
	put := func(method, path, mediaType string, body []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/v2/"+repository+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(promoter, promoterPassword)
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s: %s", method, req.URL, resp.Status)
		}
	}
	config, layer := []byte("{}"), []byte("layer of "+repository+":"+tag)
	for _, blob := range [][]byte{config, layer} {
		put(http.MethodPost, "/blobs/uploads/?digest="+digest.FromBytes(blob).String(), "application/octet-stream", blob)
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		manifestType, digest.FromBytes(config), len(config), digest.FromBytes(layer), len(layer))
	put(http.MethodPut, "/manifests/"+tag, manifestType, manifest)
	return digest.FromBytes(manifest)
}

// configure writes the configuration with these items of its list.
func (s *site) configure(t *testing.T, items ...string) {
	t.Helper()
	text := fmt.Sprintf("registries:\n- {name: %s/staging, src: true}\n- name: %s/app\nmutable_tags: [stable]\nimages:\n%s",
		host(s.staging), host(s.production), strings.Join(items, ""))
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// item lists one digest of an image under tags.
func item(name string, d digest.Digest, tags ...string) string {
	return fmt.Sprintf("- name: %s\n  dmap: {%q: [%s]}\n", name, d, strings.Join(tags, ", "))
}

// promote runs a subcommand of promote with the ledger and its key.
func (s *site) promote(t *testing.T, command string, args ...string) outcome {
	t.Helper()
	return entrepot(t, append([]string{"promote", command, "--ledger", s.ledger, "--ledger-key", s.key}, args...)...)
}

// produces checks what production answers for a tag: "" is that it has none.
func (s *site) produces(t *testing.T, repository, tag string, want digest.Digest) {
	t.Helper()
	status, body := get(t, s.production.URL+"/v2/app/"+repository+"/manifests/"+tag)
	switch {
	case want == "" && status != http.StatusNotFound:
		t.Errorf("production answers %d for app/%s:%s, which was not to be written", status, repository, tag)
	case want != "" && digest.FromString(body) != want:
		t.Errorf("production answers %d %s for app/%s:%s, want %s", status, digest.FromString(body), repository, tag, want)
	}
}

// untouched checks that neither production nor the ledger was written for an
// image.
func (s *site) untouched(t *testing.T, repository string, d digest.Digest) {
	t.Helper()
	s.produces(t, repository, d.String(), "")
	if _, err := os.Stat(s.ledgerDir); !os.IsNotExist(err) {
		t.Errorf("the ledger was written: %v", err)
	}
}
