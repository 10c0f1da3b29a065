package filestore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/blobstore"
	"entrepot/e2e/testenv"
	"entrepot/registry"
	"entrepot/registry/filestore"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite holds over each store.
func TestFilesInADirectory(t *testing.T) {
	runSuite(t, func(t *testing.T) *site { return newSite(t, openDir(t)) })
}

func TestFilesInABucket(t *testing.T) {
	server := testenv.StartMinIO(t)
	runSuite(t, func(t *testing.T) *site {
		store, err := blobstore.OpenS3(blobstore.S3Config{
			Endpoint: server.Endpoint, Bucket: server.NewBucket(t), Prefix: "files", Region: server.Region,
			AccessKey: server.AccessKey, SecretKey: server.SecretKey,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		return newSite(t, store)
	})
}

func runSuite(t *testing.T, open func(t *testing.T) *site) {
	t.Helper()
	for _, suite := range []map[string]func(*testing.T, *site){putTests(), nameTests(), deleteTests(), readTests(), listTests()} {
		for name, test := range suite {
			t.Run(name, func(t *testing.T) { test(t, open(t)) })
		}
	}
}

func openDir(t testing.TB) *blobstore.Dir {
	t.Helper()
	store, err := blobstore.OpenDir(filepath.Join(t.TempDir(), "store"), blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// site is a file store that is asked over HTTP, without connections.
type site struct {
	t      *testing.T
	config filestore.Config
	store  *watched
	heard  listener
	*filestore.Store
}

// start is when every site's clock stands.
func start() time.Time { return time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC) }

func newSite(t *testing.T, store filestore.Backing) *site {
	t.Helper()
	s := &site{t: t, store: &watched{Backing: store}}
	s.config = filestore.Config{
		Store: s.store, Authorizer: registry.Anyone{}, Listener: &s.heard, Now: start,
	}
	if dir, ok := store.(*blobstore.Dir); ok {
		s.config.Store = watchedDir{s.store, dir}
	}
	s.open()
	return s
}

// open has another file store on the same store, as after a restart.
func (s *site) open() {
	s.t.Helper()
	var err error
	if s.Store, err = filestore.New(s.config); err != nil {
		s.t.Fatal(err)
	}
}

// listener writes down what it hears.
type listener struct {
	mu    sync.Mutex
	lines []string
}

func (l *listener) Pushed(e filestore.Event)  { l.note("pushed", e) }
func (l *listener) Deleted(e filestore.Event) { l.note("deleted", e) }

func (l *listener) note(what string, e filestore.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf("%s %s %s %d %s by %q", what, e.Path, short(e.Digest), e.Size, e.ContentType, e.Caller.Identity)
	if e.Previous != "" {
		line += " instead of " + short(e.Previous)
	}
	l.lines = append(l.lines, line)
}

func (l *listener) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// short is enough of a digest to tell it from the others of a test.
func short(d digest.Digest) string { return d.Encoded()[:8] }

// answer is a response that was read whole.
type answer struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   string
}

// ask sends a request with headers "Name: value".
func (s *site) ask(method, path, body string, headers ...string) *answer {
	s.t.Helper()
	r := httptest.NewRequest(method, "http://files.example.org"+path, strings.NewReader(body))
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return &answer{t: s.t, what: method + " " + path, status: w.Code, header: w.Result().Header, body: w.Body.String()}
}

// put puts content with its digest.
func (s *site) put(path, body string, headers ...string) *answer {
	s.t.Helper()
	return s.ask(http.MethodPut, path, body, append(headers, "Repr-Digest: "+field(body))...)
}

// field is the value of Repr-Digest for content.
func field(body string) string {
	raw, _ := hex.DecodeString(digest.FromString(body).Encoded())
	return "sha-256=:" + base64.StdEncoding.EncodeToString(raw) + ":"
}

func (a *answer) want(status int, inBody ...string) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d: %s", a.what, a.status, status, a.body)
	}
	for _, text := range inBody {
		if !strings.Contains(a.body, text) {
			a.t.Errorf("%s: the body lacks %q: %s", a.what, text, a.body)
		}
	}
	return a
}

// wantHeader checks headers "Name: value"; one without a value is absent.
func (a *answer) wantHeader(headers ...string) *answer {
	a.t.Helper()
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ":")
		if got := strings.Join(a.header.Values(name), " | "); got != strings.TrimSpace(value) {
			a.t.Errorf("%s: %s is %q, want %q", a.what, name, got, strings.TrimSpace(value))
		}
	}
	return a
}

// holds checks what a file has.
func (s *site) holds(path, body string) {
	s.t.Helper()
	if a := s.ask(http.MethodGet, path, "").want(http.StatusOK); a.body != body {
		s.t.Errorf("%s holds %.60q, want %.60q", path, a.body, body)
	}
}

// watched counts what a store is asked, and fails when it is told to.
type watched struct {
	filestore.Backing
	mu     sync.Mutex
	calls  []string
	failOn func(call string) error
}

// watchedDir is a watched store whose blobs are files.
type watchedDir struct {
	*watched
	dir *blobstore.Dir
}

func (w watchedDir) OpenFile(d digest.Digest) (*blobstore.File, error) { return w.dir.OpenFile(d) }

func (w *watched) note(format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	call := fmt.Sprintf(format, args...)
	w.calls = append(w.calls, call)
	if w.failOn == nil {
		return nil
	}
	return w.failOn(call)
}

func (w *watched) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

func (w *watched) fail(on func(call string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failOn = on
}

func TestWritingIsForWhomTheAuthorizerLets(t *testing.T) {
	s := newSite(t, openDir(t))
	s.config.Authorizer = doorkeeper{}
	s.open()
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		s.ask(method, "/release/v1/a", "x", "Repr-Digest: "+field("x")).want(http.StatusUnauthorized, "who are you").
			wantHeader(`Www-Authenticate: Basic realm="files"`)
		s.ask(method, "/release/v1/a", "x", "Repr-Digest: "+field("x"), "Authorization: stranger").want(http.StatusForbidden, "stranger may not").
			wantHeader("Www-Authenticate:")
	}
	s.put("/release/v1/a%20b", "x", "Authorization: promoter").want(http.StatusCreated)
	s.holds("/release/v1/a%20b", "x")
	s.ask(http.MethodDelete, "/release/v1/a%20b", "", "Authorization: promoter").want(http.StatusNoContent)
	want := []string{
		`pushed release/v1/a b ` + short(digest.FromString("x")) + ` 1 application/octet-stream by "promoter"`,
		`deleted release/v1/a b ` + short(digest.FromString("x")) + ` 1 application/octet-stream by "promoter"`,
	}
	if got := s.heard.take(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("heard %q, want %q", got, want)
	}
	s.config.Authorizer = nil
	s.open()
	s.put("/a", "x").want(http.StatusForbidden, "lets nobody write")
}

// doorkeeper lets the promoter write below release/v1.
type doorkeeper struct{}

func (doorkeeper) Authorize(r *http.Request, action registry.Action, path string) (string, error) {
	switch who := r.Header.Get("Authorization"); {
	case who == "":
		e := registry.Errorf(errcode.ErrorCodeUnauthorized, "who are you")
		e.Challenge = `Basic realm="files"`
		return "", e
	case who != "promoter" || !strings.HasPrefix(path, "release/v1/"):
		return "", registry.Errorf(errcode.ErrorCodeDenied, "%s may not %s %s", who, action, path)
	default:
		return who, nil
	}
}

func TestAStoreThatEvictsIsRefused(t *testing.T) {
	dir, err := blobstore.OpenDir(filepath.Join(t.TempDir(), "store"), blobstore.DirConfig{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := filestore.New(filestore.Config{Store: dir}); err == nil || !strings.Contains(err.Error(), "set no limit") {
		t.Errorf("got %v", err)
	}
	if _, err := filestore.New(filestore.Config{Store: openDir(t), Prefix: "files"}); err == nil {
		t.Error("a prefix without a slash is taken")
	}
}

func TestFilesBelowAPrefix(t *testing.T) {
	s := newSite(t, openDir(t))
	s.config.Prefix = "/files/"
	s.open()
	s.put("/files/a/b", "x").want(http.StatusCreated).wantHeader("Location: /files/a/b")
	s.holds("/files/a/b", "x")
	s.ask(http.MethodGet, "/files/a", "").want(http.StatusTemporaryRedirect).wantHeader("Location: /files/a/")
	s.ask(http.MethodGet, "/files/", "", "Accept: text/html").want(http.StatusOK, `<title>files.example.org/files/</title>`, `href="./a/"`)
	for _, path := range []string{"/a/b", "/filesa/b", "/"} {
		s.ask(http.MethodGet, path, "").want(http.StatusNotFound, "files lie below /files/")
	}
}

func TestErrorsAreTextOrJSON(t *testing.T) {
	s := newSite(t, openDir(t))
	s.put("/a", "one").want(http.StatusCreated)
	a := s.put("/a", "two", "Accept: application/json").want(http.StatusConflict)
	want := fmt.Sprintf(`{"errors":[{"code":"FILE_EXISTS","message":"file a has digest %[1]s, not %[2]s: `+
		`to replace it, put it with ?overwrite=1 or with If-Match: \"%[1]s\"","detail":{"present":"%[1]s","sent":"%[2]s"}}]}`+"\n",
		digest.FromString("one"), digest.FromString("two"))
	if a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	a.wantHeader("Content-Type: application/json", "Cache-Control: no-store")
	s.put("/a", "two", "Accept: */*").want(http.StatusConflict).wantHeader("Content-Type: text/plain; charset=utf-8")
	a = s.ask(http.MethodHead, "/none", "").want(http.StatusNotFound)
	if a.body != "" || a.header.Get("Content-Length") == "0" {
		t.Errorf("HEAD: body %q of announced %s bytes", a.body, a.header.Get("Content-Length"))
	}
}

func TestWhatGoesWrongInsideIsLoggedAndNotTold(t *testing.T) {
	s := newSite(t, openDir(t))
	var log bytes.Buffer
	s.config.Logger = newLogger(&log)
	s.open()
	s.store.fail(func(call string) error {
		if strings.HasPrefix(call, "keys") {
			return errBroken
		}
		return nil
	})
	a := s.ask(http.MethodGet, "/a", "").want(http.StatusInternalServerError, "request id ")
	id := a.header.Get("X-Request-Id")
	if strings.Contains(a.body, errBroken.Error()) || !strings.Contains(a.body, id) {
		t.Errorf("told %s", a.body)
	}
	if !strings.Contains(log.String(), errBroken.Error()) || !strings.Contains(log.String(), id) {
		t.Errorf("logged %s", &log)
	}
	s.store.fail(nil)
	s.ask(http.MethodGet, "/a", "").want(http.StatusNotFound)
}

func TestEachRequestIsObservedOnce(t *testing.T) {
	s := newSite(t, openDir(t))
	var seen []filestore.Observation
	s.config.Done = func(o *filestore.Observation) { seen = append(seen, *o) }
	s.open()
	s.put("/a%2Bb", "12345").want(http.StatusCreated)
	s.ask(http.MethodGet, "/a+b", "").want(http.StatusOK)
	s.ask(http.MethodGet, "/none", "").want(http.StatusNotFound)
	for i, want := range []filestore.Observation{
		{Method: "PUT", Path: "/a+b", Status: 201},
		{Method: "GET", Path: "/a+b", Status: 200, Bytes: 5},
		{Method: "GET", Path: "/none", Status: 404, Bytes: int64(len("there is no file none\n"))},
	} {
		got := seen[i]
		if got.Method != want.Method || got.Path != want.Path || got.Status != want.Status || got.Bytes != want.Bytes || got.ID == "" || (got.Err != nil) != (want.Status == 404) {
			t.Errorf("observed %+v, want %+v", got, want)
		}
	}
	if len(seen) != 3 {
		t.Errorf("observed %d requests", len(seen))
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	s := newSite(t, openDir(t))
	blob := "/blobs/" + string(digest.FromString("x"))
	for request, allow := range map[string]string{
		"POST /a": "GET, HEAD, PUT, DELETE", "PATCH /a/b": "GET, HEAD, PUT, DELETE", "OPTIONS /": "GET, HEAD",
		"PUT /a/": "GET, HEAD", "DELETE /a/": "GET, HEAD", "PUT " + blob: "GET, HEAD", "DELETE " + blob: "GET, HEAD",
	} {
		method, path, _ := strings.Cut(request, " ")
		s.ask(method, path, "").want(http.StatusMethodNotAllowed).wantHeader("Allow: " + allow)
	}
}

// serve has the site on a connection.
func (s *site) serve() *httptest.Server {
	server := httptest.NewServer(s)
	s.t.Cleanup(server.Close)
	return server
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
