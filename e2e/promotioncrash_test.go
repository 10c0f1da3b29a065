package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// crashPoints is how many applies are killed, each at a point of its own.
const crashPoints = 50

// crashWorld is what all applies that are killed have in common: staging, the
// origin, and the bucket that the ledgers are in.
type crashWorld struct {
	staging *testenv.Registry
	origin  *testenv.Origin
	s3      *testenv.S3Server
	bucket  string
	binary  string
	key     string
	images  []listed
	names   []string // "multi:v1", below a destination
}

func newCrashWorld(t *testing.T) *crashWorld {
	t.Helper()
	w := &crashWorld{
		staging: testenv.StartRegistry(t), origin: testenv.StartOrigin(t, testenv.OriginConfig{}), s3: testenv.StartMinIO(t),
		binary: testenv.BuildEntrepot(t), key: filepath.Join(t.TempDir(), "ledger.key"),
	}
	w.bucket = w.s3.NewBucket(t)
	if made := testenv.Entrepot(t, t.TempDir(), "ledger", "keygen", "--name", "production.test/ledger", "--out", w.key); made.Status != 0 {
		t.Fatal("no key")
	}
	multi := testenv.PushIndex(t, w.staging.Host(), "staging/multi", "rc1")
	testenv.PushReferrers(t, w.staging.Host(), multi)
	testenv.PushCosignSignature(t, w.staging.Host(), multi)
	tool := testenv.PushFile(t, w.staging.Host(), "staging/tool", "rc1", 1<<20)
	bare := testenv.PushFile(t, w.staging.Host(), "staging/bare", "rc1", 1<<10)
	w.images = []listed{
		{"bare", map[digest.Digest][]string{bare.Root.Digest: nil}},
		{"multi", map[digest.Digest][]string{multi.Root.Digest: {"v1", "v1.0"}}},
		{"tool", map[digest.Digest][]string{tool.Root.Digest: {"v1"}}},
	}
	w.names = []string{"bare@" + bare.Root.Digest.String(), "multi:v1", "multi:v1.0", "tool:v1"}
	return w
}

// passage is the only way from an apply to the origin and to the bucket of its
// ledger. It counts the requests of both, and at one of them kills the apply.
type passage struct {
	t              *testing.T
	origin, bucket *httptest.Server

	mu     sync.Mutex
	passed int
	killAt int // at this request; 0 lets the apply live
	// before says that the request at which the apply is killed is not passed
	// on; otherwise it is, and the apply never hears of the answer.
	before bool
	apply  *exec.Cmd
	pushed map[string]int // path and digest of blobs and manifests that the origin took
	writes int            // requests to the origin that are not GET or HEAD
}

func newPassage(t *testing.T, w *crashWorld) *passage {
	t.Helper()
	p := &passage{t: t, pushed: map[string]int{}}
	p.origin = p.to(w.origin.URL(), true)
	p.bucket = p.to(w.s3.Endpoint, false)
	return p
}

func (p *passage) to(target string, origin bool) *httptest.Server {
	p.t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		p.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host // S3 signs it
		},
		ErrorLog: log.New(io.Discard, "", 0), // of what was killed
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last, before := p.count()
		if last && before {
			p.kill()
			panic(http.ErrAbortHandler)
		}
		if !last {
			seen := &statusRecorder{ResponseWriter: w}
			proxy.ServeHTTP(seen, r)
			p.note(r, origin, seen.status)
			return
		}
		unheard := httptest.NewRecorder()
		proxy.ServeHTTP(unheard, r)
		p.note(r, origin, unheard.Code)
		p.kill()
		panic(http.ErrAbortHandler)
	}))
	p.t.Cleanup(server.Close)
	return server
}

// count counts a request, and says whether it is the last of the apply.
func (p *passage) count() (last, before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed++
	return p.passed == p.killAt, p.before
}

func (p *passage) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.apply.Process.Kill(); err != nil {
		p.t.Errorf("killing the apply: %v", err)
	}
}

// note takes in what the origin answered.
func (p *passage) note(r *http.Request, origin bool, status int) {
	if !origin || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes++
	if d := r.URL.Query().Get("digest"); d != "" && status == http.StatusCreated {
		repository, _, _ := strings.Cut(r.URL.Path, "/blobs/uploads/")
		p.pushed[repository+" "+d]++
	}
}

type statusRecorder struct {
	http.ResponseWriter

	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// attempt is a release through a passage of its own, to a destination and a
// ledger of its own.
type attempt struct {
	*crashWorld
	*passage

	t      *testing.T
	prefix string
	ledger string
	docker string
	file   string
}

func (w *crashWorld) attempt(t *testing.T, prefix string) *attempt {
	t.Helper()
	dir := t.TempDir()
	a := &attempt{
		crashWorld: w, passage: newPassage(t, w), t: t, prefix: prefix,
		ledger: "s3://" + w.bucket + "/" + prefix, docker: dir, file: filepath.Join(dir, "app.yaml"),
	}
	host := strings.TrimPrefix(a.passage.origin.URL, "http://")
	auth := base64.StdEncoding.EncodeToString([]byte(testenv.Promoter + ":" + testenv.PromoterPassword))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": auth}}})
	if err != nil {
		t.Fatal(err)
	}
	text := (&production{staging: w.staging}).text(host+"/"+prefix, w.images)
	for name, content := range map[string]string{"config.json": string(config), "app.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// entrepot is the command, with the passage's bucket for its ledger.
func (a *attempt) entrepot(args ...string) *exec.Cmd {
	cmd := testenv.EntrepotCommand(a.t, a.binary, a.docker, args...)
	cmd.Env = append(cmd.Env, "AWS_ENDPOINT_URL_S3="+a.bucket(), "AWS_REGION="+a.s3.Region,
		"AWS_ACCESS_KEY_ID="+a.s3.AccessKey, "AWS_SECRET_ACCESS_KEY="+a.s3.SecretKey)
	return cmd
}

func (a *attempt) bucket() string { return a.passage.bucket.URL }

// run applies, killed at a request or to the end. It returns the status.
func (a *attempt) run(killAt int, before bool) int {
	a.t.Helper()
	a.mu.Lock()
	a.passed, a.killAt, a.before = 0, killAt, before
	a.apply = a.entrepot("promote", "apply", "--ledger", a.ledger, "--ledger-key", a.key, "--concurrency", "4", a.file)
	cmd := a.apply
	a.mu.Unlock()
	return testenv.Run(a.t, cmd).Status
}

// whole checks that no name that is there is of something incomplete, and with
// all that every name is there.
func (a *attempt) whole(all bool) {
	a.t.Helper()
	for _, name := range a.names {
		repository, reference, _ := strings.Cut(strings.Replace(name, "@", ":", 1), ":")
		repository = a.prefix + "/" + repository
		if missing, there := a.lacks(repository, reference); there && len(missing) > 0 || all && !there {
			a.t.Errorf("%s is there: %t, without %q", name, there, missing)
		}
	}
}

// lacks names what is missing below a manifest, if that is there.
func (a *attempt) lacks(repository, reference string) (missing []string, there bool) {
	a.t.Helper()
	response, err := http.Get(a.crashWorld.origin.URL() + "/v2/" + repository + "/manifests/" + reference)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, false
	}
	var m struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
	}
	if err := json.NewDecoder(response.Body).Decode(&m); err != nil {
		a.t.Fatal(err)
	}
	for _, child := range m.Manifests {
		below, there := a.lacks(repository, child.Digest.String())
		if missing = append(missing, below...); !there {
			missing = append(missing, child.Digest.String())
		}
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, blob := range m.Layers {
		response, err := http.Head(a.crashWorld.origin.URL() + "/v2/" + repository + "/blobs/" + blob.Digest.String())
		if err != nil {
			a.t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			missing = append(missing, blob.Digest.String())
		}
	}
	return missing, true
}

// recorded are the names in the ledger, which has to be sound.
func (a *attempt) recorded() []string {
	a.t.Helper()
	if got := testenv.Run(a.t, a.entrepot("ledger", "verify", "--ledger", a.ledger, "--key", a.key+".pub")); got.Status != 0 {
		a.t.Errorf("the ledger is not sound: %s", got.Stderr)
	}
	got := testenv.Run(a.t, a.entrepot("ledger", "show", "--ledger", a.ledger, "--key", a.key+".pub", "--output", "json"))
	var entries []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal([]byte(got.Stdout), &entries); err != nil {
		a.t.Fatalf("reading the ledger: %v", err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name)
	}
	slices.Sort(names)
	return names
}

func TestAnApplyThatIsKilledAnywhereIsFinishedByTheNext(t *testing.T) {
	w := newCrashWorld(t)
	whole := w.attempt(t, "unharmed")
	if status := whole.run(0, false); status != 0 {
		t.Fatalf("an apply that is left alone ends with status %d", status)
	}
	total := whole.passed
	whole.whole(true)
	want := whole.recorded()
	if total < crashPoints {
		t.Fatalf("an apply takes %d requests, too few to be killed at %d points", total, crashPoints)
	}
	killed := 0
	for point := range crashPoints {
		// From the first request to the last one.
		at, before := 1+point*(total-1)/(crashPoints-1), point%2 == 0
		t.Run(fmt.Sprintf("request %d of about %d", at, total), func(t *testing.T) {
			a := w.attempt(t, fmt.Sprintf("point%02d", point))
			switch status := a.run(at, before); status {
			case -1:
				killed++
			case 0: // it needed fewer requests this time
			default:
				t.Errorf("the apply that is killed ends with status %d", status)
			}
			a.whole(false)
			if status := a.run(0, false); status != 0 {
				t.Errorf("the next ends with status %d", status)
			}
			a.whole(true)
			if got := a.recorded(); !slices.Equal(got, want) {
				t.Errorf("the ledger has %q, want each once: %q", got, want)
			}
			for blob, times := range a.pushed {
				if times > 1 {
					t.Errorf("%s was sent %d times", blob, times)
				}
			}
			a.writes = 0
			if status := a.run(0, false); status != 0 || a.writes != 0 {
				t.Errorf("a third ends with status %d, and writes %d times", status, a.writes)
			}
		})
	}
	if killed < crashPoints*9/10 {
		t.Errorf("only %d of %d applies were killed", killed, crashPoints)
	}
}
