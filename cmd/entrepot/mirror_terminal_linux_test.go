package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// published is an origin with files and their ledger.
type published struct {
	*httptest.Server

	key ledger.Key
}

func publish(t *testing.T, files map[string]string) *published {
	t.Helper()
	p := &published{}
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := ledger.GenerateKey("origin.test/ledger", file); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.key, err = ledger.LoadKey(file); err != nil {
		t.Fatal(err)
	}
	storage := ledger.NewDir(filepath.Join(dir, "ledger"))
	mux := http.NewServeMux()
	mux.Handle("/ledger/", ledger.NewHandler(storage, "/ledger/", p.key.Public()+"\n", nil))
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	log, err := ledger.New(t.Context(), storage, ledger.Config{Key: p.key})
	if err != nil {
		t.Fatal(err)
	}
	_, err = log.Append(t.Context(), func(*ledger.State) (entries []ledger.Entry, err error) {
		for name, content := range files {
			mux.HandleFunc("/"+name, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(content)) })
			entries = append(entries, ledger.Entry{
				Kind: ledger.File, Action: ledger.Set, Name: name, Destinations: []string{p.URL}, Digest: digest.FromString(content), Size: int64(len(content)),
			})
		}
		return entries, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// init is the command that writes a configuration into a folder.
func (p *published) init(t *testing.T, more ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"mirror", "init", "--from", p.URL, "--files", "dl.test=" + p.URL, "--dir", "store", "--admin", "127.0.0.1:0"}, more...)
	return command(t, args...)
}

// atTerminal runs a command at a terminal, whose screen is what came, and types an answer
// to a question.
func atTerminal(t *testing.T, cmd *exec.Cmd, question, answer string) (screen string, status int) {
	t.Helper()
	terminal := testenv.OpenTerminal(t)
	terminal.Start(cmd)
	if question != "" {
		terminal.Await(question)
		terminal.Type(answer)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return terminal.Close(), cmd.ProcessState.ExitCode()
}

func TestMirrorInitAsksWhetherTheKeyIsRightAndTakesAYesOnly(t *testing.T) {
	p := publish(t, map[string]string{"release/tool": "a tool"})
	for answer, confirmed := range map[string]bool{"y\n": true, "Yes\n": true, "n\n": false, "\n": false, "yy\n": false, "\x04": false} {
		t.Run(fmt.Sprintf("%q", answer), func(t *testing.T) {
			cmd := p.init(t)
			screen, status := atTerminal(t, cmd, "[y/N] ", answer)
			shown := strings.Index(screen, p.key.Fingerprint())
			if asked := strings.Index(screen, "Is this the fingerprint that its operator publishes?"); shown < 0 || asked < shown {
				t.Errorf("the question does not follow the fingerprint %s:\n%s", p.key.Fingerprint(), screen)
			}
			entries, err := os.ReadDir(cmd.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if confirmed {
				if status != 0 || len(entries) != 2 || !strings.Contains(screen, "For the operator of the router") {
					t.Errorf("status %d, files %v:\n%s", status, entries, screen)
				}
				return
			}
			if status != exitFailed || len(entries) != 0 || !strings.Contains(screen, "the key was not confirmed; nothing was written") {
				t.Errorf("status %d, files %v:\n%s", status, entries, screen)
			}
		})
	}
}

func TestMirrorInitAsksNobodyWhereNobodyIs(t *testing.T) {
	p := publish(t, map[string]string{"release/tool": "a tool"})
	cmd := p.init(t)
	cmd.Stdin = strings.NewReader("y\n") // which a script could have for something else
	if _, stderr, status := finish(t, cmd); status != exitFailed || strings.Contains(stderr, "[y/N]") || !strings.Contains(stderr, "nobody is here to confirm") {
		t.Errorf("status %d\n%s", status, stderr)
	}
}

// clear takes a line of a terminal away (ECMA-48, CR and EL 0).
const clearLine = "\r\x1b[K"

func TestMirrorSyncDrawsOneLineOnATerminalAndALineForEachNameElsewhere(t *testing.T) {
	p := publish(t, map[string]string{"release/one": "one", "release/two": "two"})
	written := p.init(t, "--yes")
	if _, stderr, status := finish(t, written); status != 0 {
		t.Fatalf("status %d\n%s", status, stderr)
	}
	sync := func(more ...string) *exec.Cmd {
		cmd := command(t, append([]string{"mirror", "sync"}, more...)...)
		cmd.Dir = written.Dir
		return cmd
	}
	screen, status := atTerminal(t, sync(), "", "")
	if status != 0 {
		t.Fatalf("status %d\n%s", status, screen)
	}
	const result = "2 of 2 names are held; fetched 6 B for 2 images and files, 0 failed, removed 0 blobs (0 B)\r\n"
	drawn, ok := strings.CutSuffix(screen, result)
	if !ok || !strings.HasSuffix(drawn, clearLine) {
		t.Errorf("the screen ends with %q, want a line that is taken away, and %q", screen, result)
	}
	if strings.Contains(drawn, "\n") || !regexp.MustCompile(`\r\x1b\[K\d of 2 fetched, 0 failed, `).MatchString(drawn) {
		t.Errorf("the line that changes is %q", drawn)
	}
	stdout, stderr, status := finish(t, sync("--recheck"))
	if status != 0 || strings.Contains(stdout+stderr, "\x1b") {
		t.Errorf("without a terminal: status %d\n%q\n%q", status, stdout, stderr)
	}
	for _, name := range []string{"one", "two"} {
		if line := fmt.Sprintf("dl.test/release/%s %s\n", name, digest.FromString(name)); !strings.Contains(stderr, line) {
			t.Errorf("%q is not among\n%s", line, stderr)
		}
	}
	screen, status = atTerminal(t, sync("--recheck", "--output", "json"), "", "")
	if status != 0 || strings.Contains(screen, "\x1b") || !strings.HasPrefix(screen, "{") {
		t.Errorf("as JSON at a terminal: status %d\n%q", status, screen)
	}
}

func TestMirrorVerifyTellsOnATerminalWhatIsWrongAboveItsLine(t *testing.T) {
	p := publish(t, map[string]string{"release/one": "one", "release/two": "two"})
	written := p.init(t, "--yes")
	dir := written.Dir
	if _, stderr, status := finish(t, written); status != 0 {
		t.Fatalf("status %d\n%s", status, stderr)
	}
	here := func(args ...string) *exec.Cmd {
		cmd := command(t, args...)
		cmd.Dir = dir
		return cmd
	}
	if _, stderr, status := finish(t, here("mirror", "sync")); status != 0 {
		t.Fatalf("status %d\n%s", status, stderr)
	}
	d := digest.FromString("one")
	blob := filepath.Join(dir, "store", "blobs", "sha256", d.Encoded()[:2], d.Encoded(), "data")
	if err := os.Chmod(blob, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blob, []byte("eno"), 0o600); err != nil {
		t.Fatal(err)
	}
	screen, status := atTerminal(t, here("mirror", "verify"), "", "")
	finding := clearLine + "dl.test/release/one: corrupt " + string(d)
	if status != exitFailed || !strings.Contains(screen, finding) || !strings.HasSuffix(screen, "1 of 2 names are right, 3 B in 1 blobs; 1 things are not as the ledger says\r\n") {
		t.Errorf("status %d, want the finding %q in\n%q", status, finding, screen)
	}
}
