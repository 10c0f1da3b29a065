package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"
)

// startPeers starts the peers that can be installed here, with the settings
// their documentation gives for this work.
func (w *world) startPeers(t testing.TB) {
	t.Helper()
	peers := []struct {
		find    func(testing.TB) string
		version string // argument that has the program say its version; empty when its path does
		start   func(t testing.TB, binary string) []*server
	}{
		{
			func(t testing.TB) string { return testenv.Debian(t, "nginx", "nginx") },
			"-v",
			func(t testing.TB, binary string) []*server {
				return []*server{w.startNginxCache(t, binary), w.startNginxStatic(t, binary)}
			},
		},
		{
			func(t testing.TB) string { return testenv.Tool(t, "registry") },
			"",
			func(t testing.TB, binary string) []*server { return []*server{w.startDistribution(t, binary)} },
		},
		{
			func(t testing.TB) string { return testenv.Debian(t, "varnishd", "varnish") },
			"-V",
			func(t testing.TB, binary string) []*server { return []*server{w.startVarnish(t, binary)} },
		},
	}
	number := regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+`)
	for _, peer := range peers {
		binary, missing := harness.Program(t, peer.find)
		if missing != "" {
			w.missing = append(w.missing, missing)
			continue
		}
		said := []byte(binary)
		if peer.version != "" {
			var err error
			if said, err = exec.CommandContext(t.Context(), binary, peer.version).CombinedOutput(); err != nil {
				t.Fatalf("asking %s for its version: %v\n%s", binary, err, said)
			}
		}
		w.peers = append(w.peers, filepath.Base(binary)+" "+string(number.Find(said)))
		progress("starting %s", filepath.Base(binary))
		for _, s := range peer.start(t, binary) {
			w.servers[s.name] = s
		}
	}
}

// upstreamHost is the host:port of the upstream, behind the relay.
func (w *world) upstreamHost() string { return w.relay.Address() }

// startNginxCache starts nginx as a caching proxy. The lock has the first of
// many requests fill the cache for the others, who wait for it; its timeout is
// longer than any fill, because who waits longer would be sent upstream.
func (w *world) startNginxCache(t testing.TB, binary string) *server {
	t.Helper()
	cache := t.TempDir()
	return startNginx(t, binary, nginxCache, cache, fmt.Sprintf(`
  proxy_cache_path %s/cache levels=1:2 keys_zone=mirror:16m max_size=100g inactive=1h use_temp_path=off;
  upstream origin { server %s; keepalive 32; }
  upstream files { server %s; keepalive 32; }`, cache, w.upstreamHost(), strings.TrimPrefix(w.filesURL, "http://")), fmt.Sprintf(`
    location /files/ {
      proxy_pass http://files/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache mirror;
      proxy_cache_valid 200 1h;
    }
    location /v2/ {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host %s;
      proxy_cache mirror;
      proxy_cache_key "$request_uri $http_accept";
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 2m;
      proxy_cache_lock_age 2m;
    }`, w.upstreamHost()))
}

// startNginxStatic starts nginx on the files, and a directory that holds the small
// blob.
func (w *world) startNginxStatic(t testing.TB, binary string) *server {
	t.Helper()
	files := t.TempDir()
	desc := blob(w.small)
	file, err := os.Create(filepath.Join(files, desc.Digest.String()))
	if err != nil {
		t.Fatalf("writing the static file: %v", err)
	}
	defer file.Close()
	_, err = download(t.Context(), newClient(1), w.relay.URL()+blobPath(w.small, desc.Digest), desc.Size, file)
	if err != nil {
		t.Fatalf("writing the static file: %v", err)
	}
	return startNginx(t, binary, nginxStatic, "", "", fmt.Sprintf(`
    location /files/ { alias %s/; }
    location /v2/%s/blobs/ { alias %s/; }`, w.files, w.small.Repository, files))
}

// startNginx starts nginx with directives for its http and server sections.
func startNginx(t testing.TB, binary, name, cache, http, server string) *server {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	config := writeConfig(t, "nginx.conf", fmt.Sprintf(`
daemon off;
user root;
pid %[1]s/pid;
error_log stderr crit;
worker_processes auto;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  default_type application/octet-stream;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  scgi_temp_path %[1]s/scgi;
  uwsgi_temp_path %[1]s/uwsgi;%[3]s
  server {
    listen %[2]s backlog=1024;%[4]s
  }
}
`, dir, address, http, server))
	return startServer(t, name, "http://"+address, cache, testenv.ProcessConfig{
		Path: binary,
		Args: []string{"-p", dir, "-e", "stderr", "-c", config},
	})
}

// startDistribution starts distribution as a pull-through proxy, with the
// in-memory cache of descriptors that its own example configuration has.
func (w *world) startDistribution(t testing.TB, binary string) *server {
	t.Helper()
	cache, address := t.TempDir(), freeAddress(t)
	config := writeConfig(t, "distribution.yml", fmt.Sprintf(`
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  cache: {blobdescriptor: inmemory}
http: {addr: %q}
proxy: {remoteurl: %q}
`, cache, address, w.relay.URL()))
	return startServer(t, distribution, "http://"+address, cache, testenv.ProcessConfig{
		Path: binary,
		Args: []string{"serve", config},
		// Its tracing exports to a collector on this machine unless told not to.
		Env: append(os.Environ(), "OTEL_TRACES_EXPORTER=none"),
	})
}

// startVarnish starts varnish with its cache in memory, which is its usual
// one. It streams to all who ask while it fetches, by default.
func (w *world) startVarnish(t testing.TB, binary string) *server {
	t.Helper()
	address := freeAddress(t)
	host, port, _ := strings.Cut(w.upstreamHost(), ":")
	config := writeConfig(t, "bench.vcl", fmt.Sprintf(`
vcl 4.1;
backend upstream { .host = "%s"; .port = "%s"; }
sub vcl_backend_response { set beresp.ttl = 1h; }
`, host, port))
	dir := t.TempDir() // not of content: that a restart forgets
	return startServer(t, varnish, "http://"+address, dir, testenv.ProcessConfig{
		Path: binary,
		// Without its jail, in which it could not read the configuration.
		Args: []string{"-j", "none", "-F", "-f", config, "-a", address, "-n", dir, "-s", "malloc,2g", "-T", "none"},
	})
}
