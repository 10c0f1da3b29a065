package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a scripted registry that remembers what it was asked.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
}

func newServer(t *testing.T, h http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(s.record(h))
	t.Cleanup(s.Close)
	return s
}

func (s *server) record(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Clone(context.Background()))
		s.mu.Unlock()
		h(w, r)
	})
}

func (s *server) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

func (s *server) asked(t *testing.T, want int) {
	t.Helper()
	if got := len(s.requests()); got != want {
		t.Errorf("%s was asked %d times, want %d", s.URL, got, want)
	}
}

func (s *server) host() string { return strings.TrimPrefix(s.URL, "http://") }

func newUpstream(t *testing.T, cfg Config) *Upstream {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "example"
	}
	if cfg.ResponseTimeout == 0 {
		cfg.ConnectTimeout, cfg.ResponseTimeout, cfg.StallTimeout = 2*time.Second, 5*time.Second, 5*time.Second
	}
	u, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

func blob() *Request {
	return &Request{Method: http.MethodGet, Repository: "app", Path: "app/blobs/sha256:abc"}
}

func manifest() *Request {
	return &Request{Method: http.MethodGet, Repository: "app", Path: "app/manifests/latest"}
}

func get(t *testing.T, u *Upstream, req *Request) (*Response, string) {
	t.Helper()
	resp, err := u.Do(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func wantBody(t *testing.T, u *Upstream, req *Request, want string) *Response {
	t.Helper()
	resp, got := get(t, u, req)
	if got != want {
		t.Fatalf("got body %.100q (%d bytes), want %.100q (%d bytes)", got, len(got), want, len(want))
	}
	return resp
}

func wantError(t *testing.T, u *Upstream, req *Request, kind Kind) *Error {
	t.Helper()
	resp, err := u.Do(t.Context(), req)
	if err == nil {
		resp.Body.Close()
		t.Fatalf("got status %d, want an error of kind %v", resp.StatusCode, kind)
	}
	var ue *Error
	if !errors.As(err, &ue) || ue.Kind != kind {
		t.Fatalf("got error %v (%T), want kind %v", err, err, kind)
	}
	return ue
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// refused is the address of a port that nobody listens on.
func refused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestConfigurationMistakesAreNamed(t *testing.T) {
	notPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(notPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	ok := []string{"https://r.example.org"}
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no URL":              {Config{}, "no URL"},
		"no scheme":           {Config{URLs: []string{"r.example.org"}}, "want https://host"},
		"other scheme":        {Config{URLs: []string{"ftp://r.example.org"}}, "want https://host"},
		"no host":             {Config{URLs: []string{"https:///x"}}, "want https://host"},
		"not a URL":           {Config{URLs: []string{"https://r example.org\x7f"}}, "URL"},
		"user in URL":         {Config{URLs: []string{"https://u:hunter2@r.example.org"}}, "username and password"},
		"query in URL":        {Config{URLs: []string{"https://r.example.org?x=1"}}, "no query"},
		"password alone":      {Config{URLs: ok, Password: "hunter2"}, "user name"},
		"user alone":          {Config{URLs: ok, Username: "u"}, "needs a password"},
		"two sources":         {Config{URLs: ok, Username: "u", Password: "hunter2", DockerConfig: "x"}, "not both"},
		"no docker config":    {Config{URLs: ok, DockerConfig: "/does/not/exist"}, "docker configuration"},
		"bad docker config":   {Config{URLs: ok, DockerConfig: notPEM}, "docker configuration " + notPEM},
		"no CA":               {Config{URLs: ok, CAFile: "/does/not/exist"}, "CA certificates"},
		"bad CA":              {Config{URLs: ok, CAFile: notPEM}, "no certificate in PEM form"},
		"cert without key":    {Config{URLs: ok, CertFile: notPEM}, "key file"},
		"bad cert":            {Config{URLs: ok, CertFile: notPEM, KeyFile: notPEM}, "client certificate"},
		"token host with URL": {Config{URLs: ok, TokenHosts: []string{"https://auth.example.org"}}, "want host or host:port"},
		"empty token host":    {Config{URLs: ok, TokenHosts: []string{""}}, "want host or host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one about %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error tells the password: %v", err)
			}
		})
	}
}

func TestPrefixOfURLStandsBeforeTheRepository(t *testing.T) {
	s := newServer(t, say("x"))
	u := newUpstream(t, Config{URLs: []string{s.URL + "/mirror/hub/"}})
	wantBody(t, u, blob(), "x")
	wantBody(t, u, &Request{Method: http.MethodGet, Path: ""}, "x")
	for i, want := range []string{"/v2/mirror/hub/app/blobs/sha256:abc", "/v2/"} {
		if got := s.requests()[i].URL.Path; got != want {
			t.Errorf("asked for %q, want %q", got, want)
		}
	}
	if got := u.Endpoints()[0].String(); got != s.URL+"/mirror/hub" {
		t.Errorf("endpoint is called %q", got)
	}
}

func TestRequestsSayWhatTheyAcceptAndWhoAsks(t *testing.T) {
	s := newServer(t, say("x"))
	u := newUpstream(t, Config{URLs: []string{s.URL}, UserAgent: "entrepot/1"})
	wantBody(t, u, manifest(), "x")
	own := manifest()
	own.Header = http.Header{"Accept": {"text/plain"}, "Authorization": {"Basic c2VjcmV0"}, "Accept-Encoding": {"gzip"}}
	own.Query = "n=1"
	wantBody(t, u, own, "x")
	first, second := s.requests()[0], s.requests()[1]
	if got := first.Header.Get("Accept"); got != ManifestAccept {
		t.Errorf("a manifest was asked for with Accept %q", got)
	}
	if got := second.Header.Get("Accept"); got != "text/plain" || second.URL.RawQuery != "n=1" {
		t.Errorf("the caller's Accept and query became %q and %q", got, second.URL.RawQuery)
	}
	for _, r := range s.requests() {
		if ua, enc := r.Header["User-Agent"], r.Header["Accept-Encoding"]; len(ua) != 1 || ua[0] != "entrepot/1" || len(enc) != 1 || enc[0] != "identity" {
			t.Errorf("sent User-Agent %q and Accept-Encoding %q", ua, enc)
		}
		if r.Header.Get("Authorization") != "" {
			t.Error("a client's Authorization was passed on")
		}
	}
}

func TestOnlyReadingMethodsAreSent(t *testing.T) {
	s := newServer(t, say("x"))
	u := newUpstream(t, Config{URLs: []string{s.URL}})
	wantError(t, u, &Request{Method: http.MethodDelete, Path: "app/manifests/x"}, Invalid)
	s.asked(t, 0)
}

func TestConditionalRequestMayBeAnsweredNotModified(t *testing.T) {
	s := newServer(t, status(http.StatusNotModified))
	u := newUpstream(t, Config{URLs: []string{s.URL}})
	req := manifest()
	req.Header = http.Header{"If-None-Match": {`"x"`}}
	resp := wantBody(t, u, req, "")
	if resp.StatusCode != http.StatusNotModified || resp.TotalSize != -1 {
		t.Errorf("got status %d, size %d", resp.StatusCode, resp.TotalSize)
	}
	wantError(t, u, manifest(), Invalid)
}

func TestHeadTellsTheSize(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "12345") })
	u := newUpstream(t, Config{URLs: []string{s.URL}})
	req := blob()
	req.Method = http.MethodHead
	if resp := wantBody(t, u, req, ""); resp.TotalSize != 12345 {
		t.Errorf("size %d", resp.TotalSize)
	}
}

func TestNextURLAnswersWhenTheFirstCannot(t *testing.T) {
	for name, first := range map[string]http.HandlerFunc{
		"404": status(404), "401": status(401), "403": status(403), "429": status(429), "500": status(500), "503": status(503), "400": status(400),
		"gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "zip")
		},
		"cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newServer(t, first), newServer(t, say("second"))
			u := newUpstream(t, Config{URLs: []string{a.URL, b.URL}})
			if resp := wantBody(t, u, blob(), "second"); resp.Endpoint != u.Endpoints()[1] {
				t.Errorf("answered by %s", resp.Endpoint)
			}
			a.asked(t, 1)
		})
	}
	t.Run("refused connection", func(t *testing.T) {
		b := newServer(t, say("second"))
		u := newUpstream(t, Config{URLs: []string{refused(t), b.URL}})
		wantBody(t, u, blob(), "second")
	})
}

func TestSkippedEndpointIsNotAsked(t *testing.T) {
	a, b := newServer(t, say("first")), newServer(t, say("second"))
	u := newUpstream(t, Config{URLs: []string{a.URL, b.URL}})
	req := blob()
	req.Skip = func(e *Endpoint) bool { return e == u.Endpoints()[0] }
	wantBody(t, u, req, "second")
	req.Skip = func(*Endpoint) bool { return true }
	wantError(t, u, req, Invalid)
	a.asked(t, 0)
}

func TestKindOfErrorIsTheOneThatSaysLeastAboutTheContent(t *testing.T) {
	for _, c := range []struct {
		a, b int
		want Kind
	}{
		{404, 404, NotFound},
		{410, 404, NotFound},
		{404, 403, Denied},
		{401, 404, Denied},
		{403, 400, Invalid},
		{429, 416, RateLimited},
		{500, 429, Unavailable},
		{404, 503, Unavailable},
	} {
		a, b := newServer(t, status(c.a)), newServer(t, status(c.b))
		u := newUpstream(t, Config{URLs: []string{a.URL, b.URL}})
		err := wantError(t, u, blob(), c.want)
		for _, url := range []string{a.URL, b.URL} {
			if !strings.Contains(err.Error(), url) {
				t.Errorf("%d and %d: error does not tell of %s: %v", c.a, c.b, url, err)
			}
		}
	}
}

func TestObservationTellsOfEachAttempt(t *testing.T) {
	a, b := newServer(t, status(500)), newServer(t, say("x"))
	down := refused(t)
	var seen []Observation
	u := newUpstream(t, Config{URLs: []string{down, a.URL, b.URL}, Observe: func(o Observation) { seen = append(seen, o) }})
	wantBody(t, u, blob(), "x")
	want := []Observation{
		{Host: strings.TrimPrefix(down, "http://"), Method: "GET"},
		{Host: a.host(), Method: "GET", Status: 500},
		{Host: b.host(), Method: "GET", Status: 200},
	}
	if len(seen) != len(want) {
		t.Fatalf("observed %v, want %v", seen, want)
	}
	for i := range want {
		if seen[i].Latency <= 0 {
			t.Errorf("attempt %d took %v", i, seen[i].Latency)
		}
		if seen[i].Latency = 0; seen[i] != want[i] {
			t.Errorf("observed %v, want %v", seen[i], want[i])
		}
	}
}
