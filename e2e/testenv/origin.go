package testenv

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"
)

// Promoter is the identity that may write to an [Origin].
const (
	Promoter         = "promoter"
	PromoterPassword = "s3cret"
)

// OriginConfig says what an origin under test is.
type OriginConfig struct {
	// Store is the store section of the configuration. Nil means a directory
	// of the test's own.
	Store map[string]any
	// Ledger is the URL of the ledger to serve; empty is none.
	Ledger string
	// Extra is merged into the origin section, replacing what is there.
	Extra map[string]any
	// Race builds the binary with the race detector.
	Race bool
	// Binary is run in place of one that is built.
	Binary string
	// Env is added to the environment of the process.
	Env []string
}

// Origin is an entrepot process with the role of an origin.
type Origin struct {
	Docker  string // directory of a docker configuration with the promoter's password
	address string
	admin   string // host:port
	process *Process
}

// StartOrigin builds entrepot and starts it as an origin that Promoter may
// write to. It ends with the test.
func StartOrigin(t testing.TB, config OriginConfig) *Origin {
	t.Helper()
	dir := t.TempDir()
	o := &Origin{
		Docker:  t.TempDir(),
		address: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), admin: fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(PromoterPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatalf("hashing a password: %v", err)
	}
	store := config.Store
	if store == nil {
		store = map[string]any{"dir": filepath.Join(dir, "store")}
	}
	origin := map[string]any{
		"listen":   o.address,
		"store":    store,
		"uploads":  filepath.Join(dir, "uploads"),
		"htpasswd": writeFile(t, filepath.Join(dir, "htpasswd"), Promoter+":"+string(hash)+"\n"),
	}
	if config.Ledger != "" {
		origin["ledger"] = config.Ledger
	}
	maps.Copy(origin, config.Extra)
	file, err := yaml.Marshal(map[string]any{"admin": map[string]any{"listen": o.admin}, "origin": origin})
	if err != nil {
		t.Fatalf("writing the origin's configuration: %v", err)
	}
	writeLogin(t, o.Docker, o.address, PromoterPassword)
	ready := &Node{admin: o.admin}
	o.process = Start(t, ProcessConfig{
		Name:  "entrepot-origin",
		Path:  binaryOf(t, config.Binary, config.Race),
		Args:  []string{"serve", "--config", writeFile(t, filepath.Join(dir, "entrepot.yaml"), string(file))},
		Env:   append(append(os.Environ(), "GORACE=halt_on_error=1"), config.Env...),
		Ready: ready.ready,
	})
	return o
}

// writeLogin writes a docker configuration with the promoter's name and a password
// for an address.
func writeLogin(t testing.TB, dir, address, password string) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"auths": map[string]any{
		address: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(Promoter + ":" + password))},
	}})
	if err != nil {
		t.Fatalf("writing a docker configuration: %v", err)
	}
	writeFile(t, filepath.Join(dir, "config.json"), string(text))
}

// DockerWith is a docker configuration with another password for the origin.
func (o *Origin) DockerWith(t testing.TB, password string) string {
	t.Helper()
	dir := t.TempDir()
	writeLogin(t, dir, o.address, password)
	return dir
}

// Host is the host:port of the origin.
func (o *Origin) Host() string { return o.address }

// URL is the base URL of the origin.
func (o *Origin) URL() string { return "http://" + o.address }

// AdminURL is the base URL of the origin's admin listener.
func (o *Origin) AdminURL() string { return "http://" + o.admin }

// Process is the origin's process, to kill it.
func (o *Origin) Process() *Process { return o.process }

// Log is what every run of the origin has said so far, with its access log.
func (o *Origin) Log() string { return o.process.Log() }

// Stop ends the origin as an operator would, and waits for its end.
func (o *Origin) Stop() { o.process.Stop() }

// Start starts it again on what it had stored.
func (o *Origin) Start() { o.process.Restart() }

// Command is what a run of the entrepot command said.
type Command struct {
	Stdout, Stderr string
	Status         int
}

// Entrepot runs the entrepot command with a docker configuration.
func Entrepot(t testing.TB, docker string, args ...string) Command {
	t.Helper()
	return Run(t, EntrepotCommand(t, BuildEntrepot(t), docker, args...))
}

// BuildEntrepot builds the binary and returns its path.
func BuildEntrepot(t testing.TB) string {
	t.Helper()
	return buildEntrepot(t, false)
}

// EntrepotCommand is a run of a binary with a docker configuration, not yet
// started. It ends with the test.
func EntrepotCommand(t testing.TB, binary, docker string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+docker)
	return cmd
}

// Run runs a command to its end, however that comes; the status of one that was
// killed is -1.
func Run(t testing.TB, cmd *exec.Cmd) Command {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("running %s: %v", cmd, err)
	}
	t.Logf("%s: status %d\n%s%s", cmd, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String())
	return Command{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
