package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asEntrepot has the test binary behave as the program, so that tests can run
// it as a process of its own without building it again.
const asEntrepot = "ENTREPOT_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asEntrepot) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for a process before it gives up.
const patience = 30 * time.Second

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asEntrepot+"=1")
	cmd.Dir = t.TempDir()
	return cmd
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitStatusTellsFailureFromWrongUsage(t *testing.T) {
	dir := t.TempDir()
	good := writeFile(t, dir, "good.yaml", "node:\n  store: {dir: d, max_size: 10GiB}\n  upstreams: {docker.io: {}}\n")
	bad := writeFile(t, dir, "bad.yaml", "node:\n  stor: {dir: d}\n  memory: lots\n  upstreams: {docker.io: {}}\n")
	broken := writeFile(t, dir, "broken.yaml", "node: [")
	for name, c := range map[string]struct {
		args           string
		status         int
		stdout, stderr string // what they contain; empty means nothing at all
	}{
		"version":            {"version", 0, "entrepot ", ""},
		"version as JSON":    {"version --output json", 0, `"version":`, ""},
		"help":               {"--help", 0, "Available Commands", ""},
		"unknown command":    {"sevre", 2, "", `entrepot: unknown command "sevre" for "entrepot"`},
		"unknown flag":       {"serve --confg x", 2, "", "entrepot: unknown flag: --confg; see entrepot --help"},
		"arguments to serve": {"serve " + good, 2, "", "entrepot: unknown command"},
		"bad flag value":     {"version --output xml", 2, "", `entrepot: invalid argument "xml" for "--output" flag: write text or json`},
		"no subcommand":      {"config", 2, "", "entrepot: config needs a subcommand: check"},
		"no file":            {"config check", 2, "", "entrepot: accepts 1 arg(s), received 0"},
		"right file":         {"config check " + good, 0, good + " is right: a node on :5000 for 1 upstreams, store d (up to 10GiB)", ""},
		"missing file":       {"config check " + dir + "/none", 1, "", "entrepot: reading the configuration: open " + dir + "/none: no such file or directory\n"},
		"file that is a dir": {"config check " + dir, 1, "", "is a directory"},
		"broken file":        {"config check " + broken, 1, "", "entrepot: " + broken + ":1: not valid YAML: did not find expected node content\n"},
		"bad file":           {"config check " + bad, 1, "", bad + ":3: node.memory: \"lots\" is not a size"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := finish(t, command(t, strings.Fields(c.args)...))
			if status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			for _, s := range []struct{ what, got, want string }{{"stdout", stdout, c.stdout}, {"stderr", stderr, c.stderr}} {
				if !strings.Contains(s.got, s.want) || s.want == "" && s.got != "" {
					t.Errorf("%s is\n%s\nwant\n%s", s.what, s.got, s.want)
				}
			}
			if strings.Contains(stderr, "Usage:") {
				t.Errorf("usage is dumped: %s", stderr)
			}
		})
	}
}

func TestServeRefusesToStartWithAClearErrorAndStatus1(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := writeFile(t, dir, "file", "")
	const upstreams = "  upstreams: {docker.io: {}}\n"
	const admin = "admin: {listen: \"127.0.0.1:0\"}\n"
	for name, c := range map[string]struct{ config, want string }{
		"misspelt key":              {admin + "node:\n  store: {dir: d}\n  memroy: 1GiB\n" + upstreams, `config.yaml:4: unknown key "memroy" in node; did you mean "memory"?`},
		"bad size":                  {admin + "node:\n  store: {dir: d, max_size: 10GBB}\n" + upstreams, `config.yaml:3: node.store.max_size: "10GBB" is not a size; write bytes`},
		"missing file":              {admin + "node:\n  store: {dir: d}\n  upstreams: {a.example: {ca: /none/ca.pem}}\n", `config.yaml:4: node.upstreams.a.example.ca: cannot read /none/ca.pem: no such file or directory`},
		"two upstreams of one name": {admin + "node:\n  store: {dir: d}\n  upstreams:\n    a.example: {}\n    a.example: {}\n", `config.yaml:6: node.upstreams.a.example is given twice, first on line 5`},
		"node's port in use":        {admin + "node:\n  listen: " + taken.Addr().String() + "\n  store: {dir: d}\n" + upstreams, "node.listen: " + taken.Addr().String() + " is in use by another process; stop it, or configure another address"},
		"admin's port in use":       {"admin: {listen: \"" + taken.Addr().String() + "\"}\nnode:\n  listen: 127.0.0.1:0\n  store: {dir: d}\n" + upstreams, "admin.listen: " + taken.Addr().String() + " is in use"},
		"store not writable":        {admin + "node:\n  listen: 127.0.0.1:0\n  store: {dir: " + file + "/store}\n" + upstreams, "node.store.dir"},
		"router without mirrors":    {admin + "router: {listen: \":8080\", upstreams: {docker.io: {}}}\n", `config.yaml:2: router.mirrors is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(t, "serve", "--config", writeFile(t, t.TempDir(), "config.yaml", c.config))
			stdout, stderr, status := finish(t, cmd)
			if status != 1 || stdout != "" {
				t.Errorf("exit status %d, stdout %q", status, stdout)
			}
			if !strings.Contains(stderr, c.want) || !strings.HasPrefix(stderr, "entrepot: ") || strings.Count(stderr, "\n") != 1 {
				t.Errorf("stderr is\n%s\nwant one line with\n%s", stderr, c.want)
			}
		})
	}
}

// served is a running entrepot.
type served struct {
	cmd         *exec.Cmd
	node, admin string // host:port
	config      string // the configuration file

	mu    sync.Mutex
	lines []map[string]any
	news  chan struct{} // closed and replaced with each line
	ended chan struct{} // closed when the log ended
}

// start runs serve with a configuration whose listeners take free ports, and
// waits until it serves.
func start(t *testing.T, config string) *served {
	t.Helper()
	cmd := command(t, "serve")
	file := writeFile(t, cmd.Dir, "config.yaml", config)
	cmd.Env = append(cmd.Env, "ENTREPOT_CONFIG="+file)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &served{cmd: cmd, config: file, news: make(chan struct{}), ended: make(chan struct{})}
	go p.read(log)
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended already, when the test went well
		<-p.ended
		if cmd.ProcessState == nil { // nobody wanted to know how it ended
			_ = cmd.Wait()
		}
	})
	line := p.waitFor(t, "serving")
	p.node, p.admin = fmt.Sprint(line["node"]), fmt.Sprint(line["admin"])
	return p
}

func (p *served) read(log io.Reader) {
	defer close(p.ended)
	for s := bufio.NewScanner(log); s.Scan(); {
		line := map[string]any{}
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			line["msg"] = "not JSON: " + s.Text()
		}
		p.mu.Lock()
		p.lines = append(p.lines, line)
		close(p.news)
		p.news = make(chan struct{})
		p.mu.Unlock()
	}
}

// waitFor returns the first log line with a message.
func (p *served) waitFor(t *testing.T, msg string) map[string]any {
	t.Helper()
	timeout := time.After(patience)
	for {
		p.mu.Lock()
		lines, news := p.lines, p.news
		p.mu.Unlock()
		for _, line := range lines {
			if line["msg"] == msg {
				return line
			}
		}
		select {
		case <-news:
			continue
		case <-p.ended:
		case <-timeout:
		}
		t.Fatalf("no log line %q in %v", msg, lines)
	}
}

// exit waits for the process to end and returns its status.
func (p *served) exit(t *testing.T) int {
	t.Helper()
	<-p.ended
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *served) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// get asks for a URL and returns status and body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
