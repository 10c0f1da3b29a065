package docrun

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"
)

// scriptTimeout bounds one block.
const scriptTimeout = 2 * time.Minute

// pages are those with commands, from the root of the module.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/guides/*.md", "deploy/README.md"} {
		matches, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches...)
	}
	if len(found) < 4 {
		t.Fatalf("there are only the pages %q", found)
	}
	return found
}

// machine is what the pages are run on.
type machine struct {
	*front

	binaries string // folder of entrepot and clients
}

func TestEveryCommandOfTheDocumentationDoesWhatItSays(t *testing.T) {
	if !testenv.Alone(t, func() []string { return []string{programs + "=" + install(t)} }) {
		return
	}
	if err := settle(); err != nil {
		t.Fatalf("settling in: %v", err)
	}
	m := newMachine(t)
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := Steps(string(text))
		if err != nil {
			t.Errorf("%s: %v", page, err)
			continue
		}
		if slices.ContainsFunc(steps, func(s Step) bool { return s.File == "" && s.Given == "" && s.Apart == "" }) {
			t.Run(filepath.Base(page), func(t *testing.T) { m.run(t, steps) })
		}
	}
}

// newMachine fills the machine with what the pages take for granted: content at the
// world's registries and file servers.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{front: newFront(t), binaries: os.Getenv(programs)}
	fillTheWorld(t)
	return m
}

// install puts the programs that pages use into a folder. The machine has no way
// to those who have them.
func install(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	link := func(name, target string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("entrepot", testenv.BuildEntrepot(t))
	for _, name := range []string{"crane", "oras", "helm", "minio", "registry"} {
		link(name, testenv.Tool(t, name))
	}
	// kubeadm is not to be had for tests. This is its output.
	kubeadm := "#!/bin/sh\nprintf 'registry.k8s.io/kube-proxy:v1.36.0\\nregistry.k8s.io/coredns/coredns:v1.13.1\\nregistry.k8s.io/pause:3.10\\n'\n"
	if err := os.WriteFile(filepath.Join(dir, "kubeadm"), []byte(kubeadm), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, pkg := range map[string]string{"skopeo": "skopeo", "curl": "curl", "htpasswd": "apache2-utils", "dockerd": "docker.io"} {
		testenv.Debian(t, name, pkg)
	}
	return dir
}

// run runs a page from its first line to its last.
func (m *machine) run(t *testing.T, steps []Step) {
	t.Helper()
	p := &page{machine: m, dir: t.TempDir(), home: t.TempDir(), servers: map[string]*testenv.Process{}}
	p.clean(t)
	p.steps(t, steps)
}

// page is a page that is being run.
type page struct {
	*machine

	dir, home string
	servers   map[string]*testenv.Process // by their place
}

// clean takes away what the page before left on the machine.
func (p *page) clean(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"/etc/entrepot*", "/var/lib/entrepot*", "/var/cache/entrepot*", "/srv/*", "/media/*"} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (p *page) steps(t *testing.T, steps []Step) {
	t.Helper()
	for _, s := range steps {
		switch {
		case s.Apart != "":
		case s.Given != "":
			p.give(t, s)
		case s.File != "":
			p.write(t, s)
		default:
			p.script(t, s)
		}
		if t.Failed() {
			return // what follows builds on it
		}
	}
}

// path is where a file of the page lies.
func (p *page) path(name string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		return filepath.Join(p.home, rest)
	}
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.dir, name)
}

func (p *page) write(t *testing.T, s Step) {
	t.Helper()
	path := p.path(s.File)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(s.Text), 0o644); err != nil {
		t.Fatalf("line %d: %v", s.Line, err)
	}
}

func (p *page) env() []string {
	return []string{
		"HOME=" + p.home, "PATH=" + p.binaries + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
		"SSL_CERT_FILE=" + p.ca, "CURL_CA_BUNDLE=" + p.ca, "TMPDIR=" + os.TempDir(),
	}
}

// script runs a block line by line where it begins servers, and else as it is.
func (p *page) script(t *testing.T, s Step) {
	t.Helper()
	var script strings.Builder
	for line := range strings.Lines(s.Text) {
		if !Server(line) {
			script.WriteString(line)
			continue
		}
		p.bash(t, s, script.String())
		script.Reset()
		p.serve(t, s.Line, strings.TrimSpace(line))
	}
	p.bash(t, s, script.String())
}

func (p *page) bash(t *testing.T, s Step, script string) {
	t.Helper()
	if strings.TrimSpace(script) == "" || t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), scriptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = p.dir, p.env()
	if s.Answer != "" {
		terminal := testenv.OpenTerminal(t)
		terminal.Type(s.Answer + "\n") // it waits there until it is asked for
		cmd.Stdin = terminal.File()
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	t.Logf("line %d:\n%s%s", s.Line, script, out.Bytes())
	if err != nil {
		t.Errorf("line %d: %v", s.Line, err)
	}
}

// serve begins a server and waits until it can be used. One that is begun in the
// place of another replaces it.
func (p *page) serve(t *testing.T, line int, command string) {
	t.Helper()
	place, ready := p.placeOf(t, command)
	if before := p.servers[place]; before != nil {
		before.Stop()
	}
	p.servers[place] = testenv.Start(t, testenv.ProcessConfig{
		Name: "server", Path: "/bin/bash", Args: []string{"-c", "exec " + command}, Dir: p.dir, Env: p.env(),
		Ready: func(ctx context.Context) error { return testenv.WaitHTTP(ctx, ready) },
	})
	t.Logf("line %d: %s (runs on)", line, command)
}

// configFlag is a configuration's file, and elsewhere what it says of its admin listener.
var (
	configFlag = regexp.MustCompile(`--config[ =](\S+)`)
	elsewhere  = regexp.MustCompile(`(?m)^admin: *{listen: *"?([^"}]+)`)
)

// here is the place that a server takes unless its configuration says another.
const here = "127.0.0.1:9090"

// placeOf is the place that a server takes, and the URL at which it is asked whether it is
// ready. A registry and the entrepot that succeeds it have the same place.
func (p *page) placeOf(t *testing.T, command string) (place, ready string) {
	t.Helper()
	switch program, _, _ := strings.Cut(command, " "); program {
	case "minio":
		return program, "http://127.0.0.1:9000/minio/health/live"
	case "registry":
		return here, "http://127.0.0.1:5000/v2/"
	}
	place = here
	if file := configFlag.FindStringSubmatch(command); file != nil {
		text, err := os.ReadFile(p.path(file[1]))
		if err != nil {
			t.Fatal(err)
		}
		if m := elsewhere.FindSubmatch(text); m != nil {
			place = string(m[1])
		}
	}
	return place, "http://" + place + "/readyz"
}

// fillTheWorld starts the registries and file servers of the examples.
func fillTheWorld(t *testing.T) {
	t.Helper()
	registry := testenv.StartRegistry(t)
	for _, name := range []string{
		"library/alpine:3", "library/nginx:1.29", "pause:3.10", "kube-proxy:v1.36.0", "coredns/coredns:v1.11.1", "coredns/coredns:v1.13.1", "org/app:v1", "org/tool:v1",
		// What client-config --check asks for.
		"library/hello-world:latest", "hello-world:latest", "distroless/static:latest", "containerd/busybox:latest", "prometheus/busybox:latest",
		"docker/library/busybox:latest",
		// What "helm create" writes.
		"library/nginx:1.16.0", "library/busybox:latest",
	} {
		repository, tag, _ := strings.Cut(name, ":")
		testenv.PushIndex(t, registry.Host(), repository, tag)
	}
	testenv.PushChart(t, registry.Host(), "org/chart", "1.0.0")
	listen(t, "127.0.0.1:5999", reverse(registry.URL()))
	serveFiles(t, "127.0.0.1:5998", map[string]string{
		"/release/stable.txt":                      "v1.36.0\n",
		"/release/v1.36.0/bin/linux/amd64/kubectl": "#!/bin/sh\necho kubectl\n",
		"/release/v1.0.0/bin/tool":                 "#!/bin/sh\necho tool\n",
	})
}

func serveFiles(t *testing.T, address string, files map[string]string) {
	t.Helper()
	listen(t, address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, r.URL.Path, time.Unix(1e9, 0), strings.NewReader(content))
	}))
}

func listen(t *testing.T, address string, handler http.Handler) {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
}
