package access_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/registry"
	"entrepot/registry/access"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is a line of an htpasswd file.
func line(t testing.TB, identity, password string, cost int) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return identity + ":" + string(hash) + "\n"
}

// gate is an Access whose clock and file a test changes.
type gate struct {
	*access.Access
	t    *testing.T
	path string
	log  lockedBuffer

	mu  sync.Mutex
	now time.Time
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// take returns what was logged, and forgets it.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return b.b.String()
}

func newGate(t *testing.T, content string, cfg access.Config) *gate {
	t.Helper()
	g := &gate{t: t, path: filepath.Join(t.TempDir(), "htpasswd"), now: time.Now()}
	g.write(content)
	cfg.File, cfg.Now, cfg.Logger = g.path, g.clock, slog.New(slog.NewTextHandler(&g.log, nil))
	a, err := access.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.Access = a
	return g
}

func (g *gate) write(content string) {
	g.t.Helper()
	if err := os.WriteFile(g.path, []byte(content), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gate) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *gate) forward(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.Add(d)
}

func request(identity, password string) *http.Request {
	r := httptest.NewRequest(http.MethodPut, "/", nil)
	if identity != "" {
		r.SetBasicAuth(identity, password)
	}
	return r
}

// login says what becomes of a password: "", or the code of the error.
func (g *gate) login(identity, password string) string {
	g.t.Helper()
	got, err := g.Repositories().Authorize(request(identity, password), registry.ActionLogin, "")
	if err == nil && got != identity {
		g.t.Errorf("logged in as %q, want %q", got, identity)
	}
	return g.code(err)
}

func (g *gate) code(err error) string {
	g.t.Helper()
	if err == nil {
		return ""
	}
	var told *registry.Error
	if !errors.As(err, &told) {
		g.t.Fatalf("not an error for a client: %v", err)
	}
	return told.Code.Descriptor().Value
}

func TestWhoIsNotKnownIsToldHowToLogIn(t *testing.T) {
	g := newGate(t, line(t, "promoter", "right", bcrypt.MinCost), access.Config{Realm: `the "origin"`})
	for name, r := range map[string]*http.Request{
		"no credentials":   request("", ""),
		"wrong password":   request("promoter", "wrong"),
		"empty password":   request("promoter", ""),
		"unknown identity": request("stranger", "right"),
		"another scheme": func() *http.Request {
			r := request("", "")
			r.Header.Set("Authorization", "Bearer cHJvbW90ZXI6cmlnaHQ=")
			return r
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			identity, err := g.Repositories().Authorize(r, registry.ActionPush, "a/b")
			var told *registry.Error
			if !errors.As(err, &told) || told.Code != errcode.ErrorCodeUnauthorized || identity != "" {
				t.Fatalf("got %q, %v, want UNAUTHORIZED", identity, err)
			}
			if want := `Basic realm="the \"origin\"", charset="UTF-8"`; told.Challenge != want {
				t.Errorf("challenge %s, want %s", told.Challenge, want)
			}
			if strings.Contains(told.Message, "stranger") || strings.Contains(told.Message, "right") {
				t.Errorf("the message repeats what was sent: %s", told.Message)
			}
		})
	}
	if code := g.login("promoter", "right"); code != "" {
		t.Errorf("the right password: %s", code)
	}
}

func TestEachVersionOfBcryptIsTaken(t *testing.T) {
	hash := strings.TrimSpace(strings.TrimPrefix(line(t, "", "right", bcrypt.MinCost), ":$2a"))
	for _, version := range []string{"$2a", "$2b", "$2y", "$2x"} {
		g := newGate(t, "# who may push\r\n\r\nalice:"+version+hash+"\r\n", access.Config{})
		if code := g.login("alice", "right"); code != "" {
			t.Errorf("%s: %s", version, code)
		}
	}
}

func TestAnEmptyFileLetsNobodyWrite(t *testing.T) {
	g := newGate(t, "", access.Config{})
	if code := g.login("anyone", "anything"); code != "UNAUTHORIZED" {
		t.Errorf("got %q", code)
	}
}

func TestWithoutRulesEveryIdentityMayWriteEverything(t *testing.T) {
	g := newGate(t, line(t, "a", "1", bcrypt.MinCost), access.Config{})
	for _, action := range []registry.Action{registry.ActionPush, registry.ActionDelete} {
		if _, err := g.Repositories().Authorize(request("a", "1"), action, "any/where"); err != nil {
			t.Error(err)
		}
		if _, err := g.Files().Authorize(request("a", "1"), action, "any/file"); err != nil {
			t.Error(err)
		}
	}
}

func TestRulesSayWhatAnIdentityMayDo(t *testing.T) {
	push, remove := registry.ActionPush, registry.ActionDelete
	g := newGate(t, line(t, "promoter", "1", bcrypt.MinCost)+line(t, "etcd", "2", bcrypt.MinCost)+line(t, "idle", "3", bcrypt.MinCost), access.Config{
		Rules: []access.Rule{
			{Identity: "promoter", Repositories: []string{"**"}, Files: []string{"release/**"}, Actions: []registry.Action{push, remove}},
			{Identity: "etcd", Repositories: []string{"etcd", "etcd/**"}, Actions: []registry.Action{push}},
			{Identity: "*", Files: []string{"scratch/*"}, Actions: []registry.Action{push}},
		},
	})
	repositories, files := g.Repositories(), g.Files()
	passwords := map[string]string{"promoter": "1", "etcd": "2", "idle": "3"}
	for _, c := range []struct {
		identity string
		of       registry.Authorizer
		action   registry.Action
		name     string
		denied   string // the message; "" when it is allowed
	}{
		{"promoter", repositories, push, "coredns/coredns", ""},
		{"promoter", repositories, remove, "coredns", ""},
		{"promoter", files, push, "release/v1/kubectl", ""},
		{"promoter", files, push, "staging/kubectl", `identity "promoter" may not push file "staging/kubectl": its rules have release/**, scratch/*`},
		{"promoter", files, remove, "scratch/a", `identity "promoter" may not delete file "scratch/a": its rules have release/**`},
		{"etcd", repositories, push, "etcd", ""},
		{"etcd", repositories, push, "etcd/tools/x", ""},
		{"etcd", repositories, push, "etcdx", `identity "etcd" may not push repository "etcdx": its rules have etcd, etcd/**`},
		{"etcd", repositories, remove, "etcd", `identity "etcd" may not delete any repository: no rule lets it`},
		{"idle", files, push, "scratch/a", ""},
		{"idle", files, push, "scratch/a/b", `identity "idle" may not push file "scratch/a/b": its rules have scratch/*`},
		{"idle", repositories, push, "scratch/a", `identity "idle" may not push any repository: no rule lets it`},
	} {
		identity, err := c.of.Authorize(request(c.identity, passwords[c.identity]), c.action, c.name)
		if c.denied == "" {
			if err != nil || identity != c.identity {
				t.Errorf("%s %s %s: got %q, %v", c.identity, c.action, c.name, identity, err)
			}
			continue
		}
		var told *registry.Error
		if !errors.As(err, &told) || told.Code != errcode.ErrorCodeDenied || told.Challenge != "" || told.Message != c.denied {
			t.Errorf("%s %s %s: got %v, want DENIED: %s", c.identity, c.action, c.name, err, c.denied)
		}
	}
	if code := g.login("idle", "3"); code != "" {
		t.Errorf("an identity without a rule cannot log in: %s", code)
	}
}

func TestARuleForNobodyIsSaid(t *testing.T) {
	g := newGate(t, line(t, "a", "1", bcrypt.MinCost), access.Config{Rules: []access.Rule{
		{Identity: "promotor", Repositories: []string{"**"}, Actions: []registry.Action{registry.ActionPush}},
	}})
	if log := g.log.take(); !strings.Contains(log, "identity=promotor") {
		t.Errorf("log: %s", log)
	}
}

func TestEveryProblemOfTheRulesIsNamed(t *testing.T) {
	_, err := access.New(access.Config{File: "not reached", Rules: []access.Rule{
		{Identity: "", Repositories: []string{"**"}, Actions: []registry.Action{registry.ActionPush}},
		{Identity: "a", Actions: []registry.Action{registry.ActionPush}},
		{Identity: "b", Files: []string{"a**b"}},
		{Identity: "c", Repositories: []string{"x[12]"}, Actions: []registry.Action{"pull"}},
	}})
	const want = `reading the rules of who may write: rule 1 (identity ""): it names no identity: "*" means all of the htpasswd file
rule 2 (identity "a"): it names neither repositories nor files
rule 3 (identity "b"): it names no actions: want push, delete or both
rule 3 (identity "b"): pattern "a**b": "**" has to be a whole element
rule 4 (identity "c"): there is no action "pull": want push or delete
rule 4 (identity "c"): pattern "x[12]": '[' means nothing in a pattern: there are only "*" within an element, and "**" for any number of elements`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestAChangedFileIsInForceWithoutARestart(t *testing.T) {
	g := newGate(t, line(t, "a", "old", bcrypt.MinCost), access.Config{})
	if code := g.login("a", "old"); code != "" {
		t.Fatal(code)
	}
	g.write(line(t, "a", "new", bcrypt.MinCost) + line(t, "b", "two", bcrypt.MinCost))
	g.forward(time.Second)
	for _, c := range []struct{ identity, password, want string }{
		{"a", "old", "UNAUTHORIZED"}, // though it was remembered
		{"a", "new", ""},
		{"b", "two", ""},
	} {
		if code := g.login(c.identity, c.password); code != c.want {
			t.Errorf("%s with %s: got %q, want %q", c.identity, c.password, code, c.want)
		}
	}
	if log := g.log.take(); !strings.Contains(log, "read the htpasswd file again") || !strings.Contains(log, "identities=2") {
		t.Errorf("log: %s", log)
	}
	g.write("")
	g.forward(time.Second)
	if code := g.login("b", "two"); code != "UNAUTHORIZED" {
		t.Errorf("an identity that was removed: %q", code)
	}
}

// A password has as long a hash as any other, and file systems do not count
// the time of modification finely.
func TestAChangeIsSeenThoughSizeAndTimeAreTheSame(t *testing.T) {
	g := newGate(t, line(t, "a", "old", bcrypt.MinCost), access.Config{})
	before, err := os.Stat(g.path)
	if err != nil {
		t.Fatal(err)
	}
	g.write(line(t, "a", "new", bcrypt.MinCost))
	if err := os.Chtimes(g.path, time.Time{}, before.ModTime()); err != nil {
		t.Fatal(err)
	}
	g.forward(time.Second)
	if code := g.login("a", "new"); code != "" {
		t.Error(code)
	}
}

// Secrets of Kubernetes are links that are exchanged.
func TestAnExchangedLinkIsSeen(t *testing.T) {
	dir := t.TempDir()
	for name, password := range map[string]string{"one": "old", "two": "new"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(line(t, "a", password, bcrypt.MinCost)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	exchange := func(to string) {
		if err := errors.Join(os.Symlink(to, link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
	}
	exchange("one")
	g := &gate{t: t, now: time.Now().Add(time.Hour)} // the files are settled
	a, err := access.New(access.Config{File: link, Now: g.clock})
	if err != nil {
		t.Fatal(err)
	}
	g.Access = a
	exchange("two")
	g.forward(time.Second)
	if code := g.login("a", "new"); code != "" {
		t.Error(code)
	}
}

func TestABrokenFileKeepsWhoCouldWriteAndSaysSoOnce(t *testing.T) {
	good := line(t, "a", "right", bcrypt.MinCost)
	g := newGate(t, good, access.Config{})
	for name, breakIt := range map[string]func(){
		"a hash of another kind": func() { g.write(good + "bob:{SHA}5siv5c0SHx681xU6GiSx9ZQryqs=\n") },
		"the file is gone": func() {
			if err := os.Remove(g.path); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			breakIt()
			for range 3 {
				g.forward(time.Second)
				if code := g.login("a", "right"); code != "" {
					t.Errorf("the last good state does not hold: %s", code)
				}
			}
			log := g.log.take()
			if n := strings.Count(log, "cannot be used"); n != 1 || strings.Contains(log, "5siv5c") {
				t.Errorf("%d complaints: %s", n, log)
			}
			g.write(good)
			g.forward(time.Second)
			if code := g.login("a", "right"); code != "" {
				t.Error(code)
			}
			if log := g.log.take(); !strings.Contains(log, "read the htpasswd file again") {
				t.Errorf("that it is good again is not said: %s", log)
			}
		})
	}
}

func TestAMissingFileIsAnErrorAtStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	_, err := access.New(access.Config{File: path})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it was made")
	}
}

// cost is one that can be told from none by the clock.
const cost = 8

func TestAVerifiedPasswordIsNotVerifiedAgainForAWhile(t *testing.T) {
	g := newGate(t, line(t, "a", "right", cost), access.Config{RememberFor: time.Minute})
	verifying := elapsed(func() { g.login("a", "right") })
	const requests = 1000
	remembered := elapsed(func() {
		for range requests {
			if code := g.login("a", "right"); code != "" {
				t.Fatal(code)
			}
		}
	})
	// Verifying all would take a thousand times as long as verifying one.
	if remembered > 100*verifying {
		t.Errorf("%d requests took %v, the first took %v", requests, remembered, verifying)
	}
	g.forward(time.Minute)
	if again := elapsed(func() { g.login("a", "right") }); again < verifying/4 {
		t.Errorf("after a minute it was remembered still: %v, the first took %v", again, verifying)
	}
}

func TestNothingIsRememberedWhenToldSo(t *testing.T) {
	g := newGate(t, line(t, "a", "right", cost), access.Config{RememberFor: -1})
	first := elapsed(func() { g.login("a", "right") })
	if second := elapsed(func() { g.login("a", "right") }); second < first/4 {
		t.Errorf("the first took %v, the second %v", first, second)
	}
}

func TestAnUnknownIdentityTakesAsLongAsAWrongPassword(t *testing.T) {
	g := newGate(t, line(t, "a", "right", cost), access.Config{})
	best := func(identity string) time.Duration {
		least := time.Hour
		for range 3 {
			least = min(least, elapsed(func() {
				if code := g.login(identity, "wrong"); code != "UNAUTHORIZED" {
					t.Fatal(code)
				}
			}))
		}
		return least
	}
	known, unknown := best("a"), best("nobody")
	if unknown < known/2 || known < unknown/2 {
		t.Errorf("a known identity takes %v, an unknown one %v", known, unknown)
	}
}

func elapsed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

func TestGuessesWaitForOneAnotherAndCanBeGivenUp(t *testing.T) {
	g := newGate(t, line(t, "a", "right", cost), access.Config{})
	g.login("a", "right") // remembered: it does not wait any more
	ctx, cancel := context.WithCancel(t.Context())
	var guesses sync.WaitGroup
	for i := range 200 {
		guesses.Go(func() {
			r := request("a", fmt.Sprint("guess ", i)).WithContext(ctx)
			_, err := g.Repositories().Authorize(r, registry.ActionLogin, "")
			if err == nil {
				t.Error("a guess was right")
			}
		})
	}
	done := make(chan string)
	go func() { done <- g.login("a", "right") }()
	if code := <-done; code != "" {
		t.Error(code)
	}
	cancel()
	guesses.Wait() // 200 would take many seconds
}

func TestManyAtOnceAndAFileThatChanges(t *testing.T) {
	one, two := line(t, "a", "1", bcrypt.MinCost), line(t, "b", "2", bcrypt.MinCost)
	g := newGate(t, one, access.Config{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if code := g.login("a", "1"); code != "" {
					t.Error(code)
				}
				g.forward(100 * time.Millisecond)
			}
		})
	}
	for i := range 20 {
		content := one
		if i%2 == 0 {
			content += two
		}
		// A new file in the place of the old, as editors and tools write it.
		if err := errors.Join(os.WriteFile(g.path+".new", []byte(content), 0o600), os.Rename(g.path+".new", g.path)); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
}

func BenchmarkARememberedPassword(b *testing.B) {
	path := filepath.Join(b.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte(line(b, "a", "right", cost)), 0o600); err != nil {
		b.Fatal(err)
	}
	a, err := access.New(access.Config{File: path})
	if err != nil {
		b.Fatal(err)
	}
	r := request("a", "right")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Repositories().Authorize(r, registry.ActionPush, "a/b"); err != nil {
			b.Fatal(err)
		}
	}
}
