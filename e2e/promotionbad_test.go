package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// shelf holds ledgers, of which the origin serves one at a time. The origin's
// ledger directory is a link to it, so that it is another at once.
type shelf struct {
	dir, link string
}

// newShelf puts the production's ledger, which has no entries yet, on a shelf
// as "good".
func newShelf(t *testing.T, p *production) *shelf {
	t.Helper()
	u, err := url.Parse(p.ledger)
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{t.TempDir(), u.Path}
	if err := os.Mkdir(filepath.Join(s.dir, "good"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.serve(t, "good")
	return s
}

// serve has the origin serve one of the ledgers.
func (s *shelf) serve(t *testing.T, name string) {
	t.Helper()
	fresh := filepath.Join(s.dir, "link")
	if err := os.Symlink(filepath.Join(s.dir, name), fresh); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, s.link); err != nil {
		t.Fatal(err)
	}
}

// copy puts a copy of the good ledger, as it is now, on the shelf, and returns
// its URL.
func (s *shelf) copy(t *testing.T, to string) string {
	t.Helper()
	if err := os.CopyFS(filepath.Join(s.dir, to), os.DirFS(filepath.Join(s.dir, "good"))); err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: filepath.Join(s.dir, to)}).String()
}

// change rewrites an object of a ledger.
func (s *shelf) change(t *testing.T, name, object string, change func([]byte) []byte) {
	t.Helper()
	file := filepath.Join(s.dir, name, filepath.FromSlash(object))
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// metric is the value of a node's metric, the only one of its name.
func metric(t *testing.T, node *testenv.Node, name string) float64 {
	t.Helper()
	for line := range strings.Lines(node.Metrics()) {
		if !strings.HasPrefix(line, name+"{") {
			continue
		}
		fields := strings.Fields(line)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	t.Fatalf("the node has no metric %s", name)
	return 0
}

// waitFor tries until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	again, enough := time.NewTicker(20*time.Millisecond), time.After(15*time.Second)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-enough:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestANodeRefusesABadLedgerLoudlyAndGoesOnServing(t *testing.T) {
	p := startProduction(t, nil)
	s := newShelf(t, p)
	first := testenv.PushFile(t, p.staging.Host(), "staging/tool", "rc1", 1<<10).Root.Digest
	second := testenv.PushFile(t, p.staging.Host(), "staging/tool", "rc2", 1<<10).Root.Digest
	tool := func(digests map[digest.Digest][]string) []listed { return []listed{{"tool", digests}} }

	p.configure(t, tool(map[digest.Digest][]string{first: {"v1", "stable"}}))
	p.promote(t, 0, "apply", p.file)
	s.copy(t, "older")
	forked := s.copy(t, "forked")
	p.configure(t, tool(map[digest.Digest][]string{first: {"v1"}, second: {"v2", "stable"}}))
	p.promote(t, 0, "apply", p.file)
	p.seen(t, "tool", "stable", http.StatusOK, second)
	const entries = 4 // v1, stable; v2, stable again
	waitFor(t, "the node follows all entries", func() bool { return metric(t, p.node, "entrepot_ledger_entries") == entries })

	// Whoever has the bucket or the key writes other ledgers. What all of them
	// would have clients see is that stable is the first again.
	back := func(ledger string, tags ...string) {
		t.Helper()
		p.configure(t, tool(map[digest.Digest][]string{first: append(tags, "v1", "stable"), second: {"v2"}}))
		p.promote(t, 0, "apply", p.file, "--ledger", ledger) // the last of two flags counts
	}
	back(s.copy(t, "signature"))
	back(s.copy(t, "truncated"))
	back(forked, "f1", "f2", "f3")
	if err := os.Mkdir(filepath.Join(s.dir, "gone"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.change(t, "signature", "checkpoint", func(checkpoint []byte) []byte {
		at := len(checkpoint) - 8 // of the signature, in base64
		checkpoint[at] = map[bool]byte{true: 'B', false: 'A'}[checkpoint[at] == 'A']
		return checkpoint
	})
	s.change(t, "truncated", fmt.Sprintf("tile/entries/000.p/%d", entries+1), func(tile []byte) []byte { return tile[:len(tile)/2] })

	for _, bad := range []struct{ name, why string }{
		{"signature", "the checkpoint is not signed by the ledger's key"},
		{"truncated", "the ledger is corrupt"},
		{"older", "the ledger was rolled back"},
		{"forked", "the ledger was forked"},
		{"gone", "the ledger was rolled back"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			unchanged := func() {
				t.Helper()
				p.seen(t, "tool", "stable", http.StatusOK, second)
				p.seen(t, "tool", "v1", http.StatusOK, first)
				if n := metric(t, p.node, "entrepot_ledger_entries"); n != entries {
					t.Errorf("%v entries are followed, want %v", n, entries)
				}
			}
			said, failures := len(p.node.Process().Log()), metric(t, p.node, "entrepot_ledger_poll_failures_total")
			s.serve(t, bad.name)
			waitFor(t, "failed polls were counted", func() bool {
				return metric(t, p.node, "entrepot_ledger_poll_failures_total") > failures+1
			})
			waitFor(t, "the refusal was logged", func() bool { return refusedLoudly(p.node.Process().Log()[said:], bad.why) })
			unchanged()

			// A node that starts anew takes it no more than one that runs.
			said = len(p.node.Process().Log())
			p.node.Stop()
			p.node.Start()
			waitFor(t, "the refusal was logged after a start", func() bool { return refusedLoudly(p.node.Process().Log()[said:], bad.why) })
			unchanged()

			said = len(p.node.Process().Log())
			s.serve(t, "good")
			waitFor(t, "the ledger was followed again", func() bool {
				return strings.Contains(p.node.Process().Log()[said:], "the ledger is followed again")
			})
			unchanged()
		})
	}
	t.Run("and follows the good one on", func(t *testing.T) {
		back(p.ledger)
		p.seen(t, "tool", "stable", http.StatusOK, first)
	})
}

// refusedLoudly says whether a log has an error that the ledger is refused, and
// why.
func refusedLoudly(log, why string) bool {
	for line := range strings.Lines(log) {
		var told struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Error string `json:"error"`
		}
		if json.Unmarshal([]byte(line), &told) == nil && told.Level == "ERROR" &&
			strings.HasPrefix(told.Msg, "THE LEDGER IS REFUSED") && strings.Contains(told.Error, why) {
			return true
		}
	}
	return false
}

func TestPromotionSaysWhatStandsInItsWayAndWritesNothingThere(t *testing.T) {
	p := startProduction(t, nil)
	mine := testenv.PushFile(t, p.staging.Host(), "staging/tool", "rc1", 1<<10).Root.Digest
	list := []listed{{"tool", map[digest.Digest][]string{mine: {"v1"}}}}
	p.configure(t, list)

	t.Run("a wrong password", func(t *testing.T) {
		const wrong = "hunter2"
		got := testenv.Entrepot(t, p.origin.DockerWith(t, wrong), "promote", "apply", "--ledger", p.ledger, "--ledger-key", p.key, p.file)
		if got.Status != 1 || !strings.Contains(got.Stdout, p.origin.Host()) || !strings.Contains(got.Stdout, "the name or the password is wrong") {
			t.Errorf("status %d, and it is not told what is wrong", got.Status)
		}
		if strings.Contains(got.Stdout+got.Stderr, wrong) {
			t.Error("the password is told")
		}
	})
	t.Run("staging that is down", func(t *testing.T) {
		p.staging.Stop()
		got := p.promote(t, 1, "apply", p.file)
		if !strings.Contains(got.Stdout, p.staging.Host()) || !strings.Contains(got.Stdout, "connection refused") {
			t.Error("it is not told what is down")
		}
		p.staging.Start()
	})
	t.Run("nothing was written", func(t *testing.T) {
		p.seen(t, "tool", "v1", http.StatusNotFound, "")
		p.seen(t, "tool", mine.String(), http.StatusNotFound, "")
		if got := testenv.Entrepot(t, t.TempDir(), "ledger", "show", "--ledger", p.ledger); got.Status != 1 || !strings.Contains(got.Stderr, "there is no ledger at ") {
			t.Errorf("status %d, and there is a ledger", got.Status)
		}
	})
	t.Run("the right password, and staging that is back", func(t *testing.T) {
		p.promote(t, 0, "apply", p.file)
		p.seen(t, "tool", "v1", http.StatusOK, mine)
	})
}

func TestAnIdentityWritesWithinItsPatternsOnly(t *testing.T) {
	staging := testenv.StartRegistry(t)
	origin := testenv.StartOrigin(t, testenv.OriginConfig{Race: true, Extra: map[string]any{
		"rules": []map[string]any{{"identity": testenv.Promoter, "repositories": []string{"app/mine/*"}, "actions": []string{"push"}}},
	}})
	own := testenv.PushFile(t, staging.Host(), "staging/mine/tool", "rc1", 1<<10).Root.Digest
	foreign := testenv.PushFile(t, staging.Host(), "staging/others/tool", "rc1", 1<<10).Root.Digest
	p := &production{staging: staging, origin: origin, file: filepath.Join(t.TempDir(), "app.yaml")}
	p.configure(t, []listed{
		{"mine/tool", map[digest.Digest][]string{own: {"v1"}}},
		{"others/tool", map[digest.Digest][]string{foreign: {"v1"}}},
	})
	got := testenv.Entrepot(t, origin.Docker, "promote", "apply", p.file)
	if got.Status != 1 {
		t.Errorf("status %d, want 1", got.Status)
	}
	for _, want := range []string{"failed: create others/tool:v1", "403", testenv.Promoter, "app/others/tool"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("%q is not told", want)
		}
	}
	for reference, want := range map[string]int{
		"mine/tool/manifests/v1":                   http.StatusOK,
		"others/tool/manifests/v1":                 http.StatusNotFound,
		"others/tool/manifests/" + string(foreign): http.StatusNotFound,
	} {
		if status, body := ask(t, origin.URL()+"/v2/app/"+reference); status != want {
			t.Errorf("%s: %d, want %d: %s", reference, status, want, body)
		}
	}
	// Without promotion in between, the answer names what is denied, and to whom.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, origin.URL()+"/v2/app/others/tool/blobs/uploads/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(testenv.Promoter, testenv.PromoterPassword)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var told struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.NewDecoder(response.Body).Decode(&told); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusForbidden || len(told.Errors) != 1 || told.Errors[0].Code != "DENIED" ||
		!strings.Contains(told.Errors[0].Message, testenv.Promoter) || !strings.Contains(told.Errors[0].Message, "app/others/tool") {
		t.Errorf("%s: %+v", response.Status, told)
	}
}
