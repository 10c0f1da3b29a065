package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"entrepot/geo"
)

const routerRoles = `
admin: {listen: "127.0.0.1:0"}
router:
  listen: 127.0.0.1:0
  trusted_proxies: ["127.0.0.0/8"]
  default_upstream: up.example
  upstreams: {up.example: {}}
  geo: {prefixes: [{prefix: 192.0.2.0/24, country: DE}, {prefix: 2001:db8::/32, cloud: "aws:sa-east-1"}]}
  probes: {interval: 1s}
  mirrors:
    - {name: origin, urls: [%q], tier: origin, country: US, lat: 41.3, lon: -95.9}
    - {name: eu, urls: [%q], tier: trusted, country: DE, lat: 50.1, lon: 8.7, capacity: 20Gbps}
    - {name: sa, urls: [%q], tier: trusted, country: BR, lat: -23.5, lon: -46.6, cloud: "aws:sa-east-1"}
`

// aMirror answers whatever it is asked.
func aMirror(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	return s
}

// sentTo is where a router sends a client, by the answer's Location.
func sentTo(t *testing.T, router, client, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+router+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", client)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.Header.Get("Location")
}

func TestARouterSendsEachClientToItsMirrorAndTakesAChangedListIntoUse(t *testing.T) {
	origin, eu, sa := aMirror(t), aMirror(t), aMirror(t)
	config := fmt.Sprintf(routerRoles, origin.URL, eu.URL, sa.URL)
	p := start(t, config)
	router := fmt.Sprint(p.waitFor(t, "serving")["router"])
	manifest := "/v2/app/manifests/sha256:" + strings.Repeat("a", 64)
	const below = "/v2/up.example/app/manifests/sha256:"
	deadline := time.Now().Add(patience)
	for sentTo(t, router, "192.0.2.1", manifest) != eu.URL+below+strings.Repeat("a", 64) {
		if time.Now().After(deadline) {
			t.Fatalf("sent to %q", sentTo(t, router, "192.0.2.1", manifest))
		}
		time.Sleep(50 * time.Millisecond) // between two questions to another process
	}
	if got := sentTo(t, router, "2001:db8::1", manifest); got != sa.URL+below+strings.Repeat("a", 64) {
		t.Errorf("from the cloud's region: %s", got)
	}
	if got := sentTo(t, router, "192.0.2.1", "/v2/app/manifests/latest"); got != origin.URL+"/v2/up.example/app/manifests/latest" {
		t.Errorf("a tag: %s", got)
	}

	file := p.config
	if err := os.WriteFile(file, []byte(strings.Replace(config, "tier: origin", "tier: gold", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	p.waitFor(t, "the new list of mirrors cannot be used; the old one serves on")
	if got := sentTo(t, router, "192.0.2.2", manifest); !strings.HasPrefix(got, eu.URL) {
		t.Errorf("after the refused list: %s", got)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(config, "capacity: 20Gbps", "draining: true", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	p.waitFor(t, "took the list of mirrors into use")
	if got := sentTo(t, router, "192.0.2.2", manifest); strings.HasPrefix(got, eu.URL) {
		t.Errorf("after it was drained: %s", got)
	}
	eu.Close()
	origin.Close()
	p.signal(t, syscall.SIGTERM)
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestAListIsTakenIntoUseWhenALinkToAnotherTakesItsPlace(t *testing.T) {
	origin := aMirror(t)
	config := fmt.Sprintf(routerRoles, origin.URL, origin.URL, origin.URL)
	p := start(t, config)
	// As Kubernetes changes a ConfigMap, with the same size and time.
	info, err := os.Stat(p.config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	other := writeFile(t, dir, "config.yaml", strings.Replace(config, "20Gbps", "10Gbps", 1))
	if err := errors.Join(os.Chtimes(other, info.ModTime(), info.ModTime()), os.Symlink(other, dir+"/link"), os.Rename(dir+"/link", p.config)); err != nil {
		t.Fatal(err)
	}
	p.waitFor(t, "took the list of mirrors into use")
	p.waitForMetrics(t, `entrepot_mirror_list_reloads_total{result="taken",role="router"} 1`)
	if err := os.Remove(p.config); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	p.waitFor(t, "the new list of mirrors cannot be used; the old one serves on")
	p.waitForMetrics(t, `entrepot_mirror_list_reloads_total{result="refused",role="router"} 1`)
	p.signal(t, syscall.SIGTERM)
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestWhoMayReachOneHostOnlyIsServedByTheNodeOfTheProcess(t *testing.T) {
	const content = "the content of a file"
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/release/v1/tool" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(content))
	}))
	t.Cleanup(upstream.Close)
	p := start(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: 127.0.0.1:0
  store: {dir: data}
  upstreams: {up.example: {urls: [%[1]q]}}
  files: {dl.example: {urls: [%[1]q]}}
router:
  listen: 127.0.0.1:0
  trusted_proxies: ["127.0.0.0/8"]
  fixed: {hosts: [fixed.example.org], clients: ["192.0.2.0/24", "2001:db8::/32"]}
  mirrors: [{name: origin, urls: [%[1]q], tier: origin, country: US}]
`, upstream.URL))
	router := fmt.Sprint(p.waitFor(t, "serving")["router"])
	for _, row := range []struct {
		host, client, method, ranges string
		status                       int // 0 when it is not for the node to say
		body                         string
	}{
		{"Fixed.Example.org:443", "203.0.113.1", http.MethodGet, "", http.StatusOK, content},
		{"fixed.example.org", "203.0.113.1", http.MethodHead, "", http.StatusOK, ""},
		{"any.example.org", "192.0.2.7", http.MethodGet, "bytes=4-10", http.StatusPartialContent, "content"},
		{"any.example.org", "::ffff:192.0.2.7", http.MethodGet, "", http.StatusOK, content},
		{"any.example.org", "2001:db8::7", http.MethodGet, "", http.StatusOK, content},
		{"any.example.org", "203.0.113.1", http.MethodGet, "", 0, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), row.method, "http://"+router+"/dl.example/release/v1/tool", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = row.host
		req.Header.Set("X-Forwarded-For", row.client)
		if row.ranges != "" {
			req.Header.Set("Range", row.ranges)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		served := resp.StatusCode == row.status && string(body) == row.body
		if err != nil || row.status != 0 && !served || row.status == 0 && resp.StatusCode < http.StatusMultipleChoices {
			t.Errorf("%+v: %s, %q, %v", row, resp.Status, body, err)
		}
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestGeoWhereExplainsOffline(t *testing.T) {
	file := writeFile(t, t.TempDir(), "config.yaml", fmt.Sprintf(routerRoles, "https://o.example.org", "https://e.example.org", "https://s.example.org"))
	args := []string{"geo", "where", "--config", file, "--client", "192.0.2.1", "--request", "/v2/app/manifests/latest"}
	stdout, stderr, status := finish(t, command(t, args...))
	if status != 0 || !strings.Contains(stdout, "192.0.2.1 is in DE (source: operator)") || !strings.Contains(stdout, "it is not authoritative for names") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	stdout, _, status = finish(t, command(t, append(args, "--output", "json")...))
	var e geo.Explanation
	if err := json.Unmarshal([]byte(stdout), &e); err != nil || status != 0 || len(e.Mirrors) != 3 ||
		e.Mirrors[0].Name != "origin" || e.Mirrors[0].URL != "https://o.example.org/v2/up.example/app/manifests/latest" {
		t.Errorf("status %d, %v: %s", status, err, stdout)
	}
	plain := writeFile(t, t.TempDir(), "config.yaml", fmt.Sprintf(routerRoles, "http://o.example.org", "http://e.example.org", "http://s.example.org"))
	if stdout, _, _ := finish(t, command(t, "geo", "where", "--config", plain, "--client", "192.0.2.1")); !strings.Contains(stdout, "1     origin") {
		t.Errorf("with mirrors by http only: %s", stdout)
	}
	for _, row := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"geo", "where", "--config", file, "--client", "nobody"}, "is no address", 1},
		{[]string{"geo", "where", "--config", file}, "client", 2},
		{append(args, "--output", "xml"), "want text or json", 2},
		{[]string{"geo", "lift", "--config", file, "eu"}, "in the router's memory only", 1},
		{[]string{"geo"}, "where, update or lift", 2},
		{[]string{"geo", "update", "--config", file}, "has no router.geo.dir", 1},
	} {
		if _, stderr, status := finish(t, command(t, row.args...)); status != row.code || !strings.Contains(stderr, row.want) {
			t.Errorf("%v: status %d, %s", row.args, status, stderr)
		}
	}
}

func TestGeoLiftTakesAMirrorOutOfTheFile(t *testing.T) {
	dir := t.TempDir()
	quarantine := writeFile(t, dir, "quarantine.json", `{"eu": {"reason": "wrong bytes", "since": "2026-11-23T00:00:00Z"}}`)
	config := strings.Replace(fmt.Sprintf(routerRoles, "https://o.example.org", "https://e.example.org", "https://s.example.org"),
		"probes: {interval: 1s}", fmt.Sprintf("probes: {quarantine: %q}", quarantine), 1)
	file := writeFile(t, dir, "config.yaml", config)
	where := []string{"geo", "where", "--config", file, "--client", "192.0.2.1", "--request", "/v2/app/manifests/sha256:" + strings.Repeat("a", 64)}
	if stdout, _, _ := finish(t, command(t, where...)); !strings.Contains(stdout, "quarantined until a person lifts that") {
		t.Errorf("before: %s", stdout)
	}
	if stdout, stderr, status := finish(t, command(t, "geo", "lift", "--config", file, "eu")); status != 0 {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	data, err := os.ReadFile(filepath.Clean(quarantine))
	if err != nil || strings.TrimSpace(string(data)) != "{}" {
		t.Errorf("the file: %s, %v", data, err)
	}
}

func TestGeoUpdateDownloadsWhatIsConfigured(t *testing.T) {
	ranges := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// As providers of databases want it: an account, and a query.
		if user, password, _ := r.BasicAuth(); r.URL.Path != "/gcp" || user != "me" || password != "pass" || r.URL.RawQuery != "suffix=json" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"prefixes": [{"ipv4Prefix": "192.0.2.0/25", "scope": "europe-west3"}]}`)
	}))
	defer ranges.Close()
	dir := filepath.Join(t.TempDir(), "geo")
	password := writeFile(t, t.TempDir(), "password", "pass\n")
	asked := strings.Replace(ranges.URL, "http://", "http://me:${file:"+password+"}@", 1) + "/gcp?suffix=json"
	sources := fmt.Sprintf("geo: {dir: %q, sources: {aws: %q, gcp: %q, oracle: %q}}", dir, ranges.URL+"/aws", asked, asked)
	config := fmt.Sprintf(routerRoles, "https://o.example.org", "https://e.example.org", "https://s.example.org")
	before, after, _ := strings.Cut(config, "geo: {")
	_, after, _ = strings.Cut(after, "\n")
	file := writeFile(t, t.TempDir(), "config.yaml", before+sources+"\n"+after)
	stdout, stderr, status := finish(t, command(t, "geo", "update", "--config", file))
	if status != 1 || !strings.Contains(stdout, "gcp: 1 networks") || !strings.Contains(stderr, "aws: the download is not taken") || !strings.Contains(stderr, "oracle: not the address ranges") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	stdout, stderr, _ = finish(t, command(t, "geo", "where", "--config", file, "--client", "192.0.2.1"))
	if !strings.Contains(stdout, "192.0.2.1 is in DE gcp europe-west3 (source: ") {
		t.Errorf("%s%s", stdout, stderr)
	}
	if _, stderr, status := finish(t, command(t, "geo", "update", "--config", file, "--every", "1s")); status != 1 || !strings.Contains(stderr, "more than once a minute") {
		t.Errorf("every second: status %d, %s", status, stderr)
	}

	// As a container beside a router: it ends when it is told to, and not by what failed.
	beside := command(t, "geo", "update", "--config", file, "--every", "24h")
	errs, err := beside.StderrPipe()
	if err == nil {
		err = beside.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(errs).ReadString('\n'); err != nil || !strings.Contains(line, "aws: the download is not taken") {
		t.Errorf("it says %q, %v", line, err)
	}
	if err := errors.Join(beside.Process.Signal(syscall.SIGTERM), beside.Wait()); err != nil {
		t.Errorf("stopped: %v", err)
	}
}
