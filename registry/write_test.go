package registry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// fakeWriter takes what it is given, and remembers what it was asked.
type fakeWriter struct {
	fakeBackend
	calls   []string
	size    int64 // of every upload
	mounted bool
	subject digest.Digest
	fails   error // of every call but StartUpload
	push    *ManifestPush
	caller  Caller
}

func (f *fakeWriter) call(req *Request, format string, args ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	if req.Caller != nil {
		f.caller = *req.Caller
	}
	return f.fails
}

func (f *fakeWriter) StartUpload(_ context.Context, req *Request) (string, error) {
	f.calls = append(f.calls, "start "+req.Repository)
	return "id-1", nil
}

func (f *fakeWriter) UploadSize(_ context.Context, req *Request) (int64, error) {
	return f.size, f.call(req, "size %s", req.Upload)
}

func (f *fakeWriter) AppendUpload(_ context.Context, req *Request, chunk Chunk) (int64, error) {
	err := f.call(req, "append %s %d %d", req.Upload, chunk.Offset, chunk.Length)
	if err != nil {
		return f.size, err
	}
	n, err := io.Copy(io.Discard, chunk.Body)
	f.size += n
	return f.size, err
}

func (f *fakeWriter) FinishUpload(_ context.Context, req *Request, d digest.Digest) error {
	return f.call(req, "finish %s %s", req.Upload, d.Algorithm())
}

func (f *fakeWriter) CancelUpload(_ context.Context, req *Request) error {
	return f.call(req, "cancel %s", req.Upload)
}

func (f *fakeWriter) Mount(_ context.Context, req *Request, d digest.Digest, from string) (bool, error) {
	return f.mounted, f.call(req, "mount %s from %q", d.Algorithm(), from)
}

func (f *fakeWriter) PutManifest(_ context.Context, req *Request, push *ManifestPush) (digest.Digest, error) {
	f.push = push
	return f.subject, f.call(req, "put %q %s %q", push.Tags, push.Digest.Algorithm(), push.MediaType)
}

func (f *fakeWriter) Delete(_ context.Context, req *Request) error {
	return f.call(req, "delete %s", req.Path())
}

// guard lets one password in, and it may do everything in repositories below own/.
type guard struct{ asked []string }

const challenge = `Basic realm="test"`

func (g *guard) Authorize(r *http.Request, action Action, repository string) (string, error) {
	g.asked = append(g.asked, string(action)+" "+repository)
	user, password, _ := r.BasicAuth()
	if password != "right" {
		e := Errorf(errcode.ErrorCodeUnauthorized, "log in first")
		e.Challenge = challenge
		return "", e
	}
	if repository != "" && !strings.HasPrefix(repository, "own/") {
		return "", Errorf(errcode.ErrorCodeDenied, "%s may not %s %s", user, action, repository)
	}
	return user, nil
}

func asUser(password string) http.Header {
	r := newRequest("GET", "/")
	r.SetBasicAuth("ann", password)
	return r.Header
}

var writes = []struct{ method, path, action string }{
	{"POST", "/blobs/uploads/", "push"},
	{"GET", "/blobs/uploads/x", "push"},
	{"PATCH", "/blobs/uploads/x", "push"},
	{"PUT", "/blobs/uploads/x?digest=" + string(sha256), "push"},
	{"DELETE", "/blobs/uploads/x", "push"},
	{"PUT", "/manifests/x", "push"},
	{"DELETE", "/manifests/x", "delete"},
	{"DELETE", "/manifests/" + string(sha256), "delete"},
	{"DELETE", "/blobs/" + string(sha256), "delete"},
}

func TestEachWriteIsForWhomTheAuthorizerLets(t *testing.T) {
	t.Parallel()
	for _, write := range writes {
		w, g := &fakeWriter{}, &guard{}
		h := NewHandler(Config{Backend: w, Authorizer: g})
		resp := ask(t, h, write.method, "/v2/own/a"+write.path, nil)
		if code, _ := told(t, resp); resp.StatusCode != http.StatusUnauthorized || code != "UNAUTHORIZED" {
			t.Errorf("%s %s without a name: %d %s", write.method, write.path, resp.StatusCode, code)
		}
		wantHeader(t, resp, map[string]string{"WWW-Authenticate": challenge})
		resp = ask(t, h, write.method, "/v2/others/a"+write.path, asUser("right"))
		if code, _ := told(t, resp); resp.StatusCode != http.StatusForbidden || code != "DENIED" {
			t.Errorf("%s %s elsewhere: %d %s", write.method, write.path, resp.StatusCode, code)
		}
		wantHeader(t, resp, map[string]string{"WWW-Authenticate": ""})
		if len(w.calls) != 0 {
			t.Errorf("%s %s: the backend was asked %q before", write.method, write.path, w.calls)
		}
		resp = ask(t, h, write.method, "/v2/own/a"+write.path, asUser("right"))
		if resp.StatusCode >= 300 || len(w.calls) == 0 {
			t.Errorf("%s %s by who may: %d, backend asked %q", write.method, write.path, resp.StatusCode, w.calls)
		}
		if want := []string{write.action + " own/a", write.action + " others/a", write.action + " own/a"}; !slices.Equal(g.asked, want) {
			t.Errorf("%s %s: asked %q, want %q", write.method, write.path, g.asked, want)
		}
	}
}

func TestWithoutAnAuthorizerNobodyWrites(t *testing.T) {
	t.Parallel()
	w := &fakeWriter{}
	h := NewHandler(Config{Backend: w})
	for _, write := range writes {
		resp := ask(t, h, write.method, "/v2/own/a"+write.path, asUser("right"))
		if code, _ := told(t, resp); resp.StatusCode != http.StatusForbidden || code != "DENIED" {
			t.Errorf("%s %s: %d %s", write.method, write.path, resp.StatusCode, code)
		}
	}
	if len(w.calls) != 0 {
		t.Errorf("the backend was asked %q", w.calls)
	}
}

func TestCallerIsWhoTheAuthorizerSays(t *testing.T) {
	t.Parallel()
	w := &fakeWriter{}
	var seen Observation
	h := NewHandler(Config{Backend: w, Authorizer: &guard{}, Done: func(o *Observation) { seen = *o }})
	header := asUser("right")
	header.Set("User-Agent", "pusher/1")
	resp := ask(t, h, "DELETE", "/v2/own/a/manifests/x", header)
	want := Caller{Identity: "ann", Address: "192.0.2.1:1234", Host: "example.com", Method: "DELETE", UserAgent: "pusher/1", RequestID: resp.Header.Get("X-Request-Id")}
	if w.caller != want || want.RequestID == "" {
		t.Errorf("caller %+v, want %+v", w.caller, want)
	}
	if seen.Identity != "ann" || seen.Status != http.StatusAccepted {
		t.Errorf("observed %+v", seen)
	}
}

func TestPingTellsHowToLogInAndWhetherOneIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		header     http.Header
		authorizer Authorizer
		status     int
		challenge  string
	}{
		{"no password", nil, &guard{}, 200, challenge},
		{"the right one", asUser("right"), &guard{}, 200, ""},
		{"a wrong one", asUser("wrong"), &guard{}, 401, challenge},
		{"nobody writes", asUser("wrong"), nil, 200, ""},
		{"everybody writes", nil, Anyone{}, 200, ""},
	} {
		h := NewHandler(Config{Backend: &fakeWriter{}, Authorizer: c.authorizer})
		resp := ask(t, h, "GET", "/v2/", c.header)
		if resp.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.name, resp.StatusCode, c.status)
		}
		wantHeader(t, resp, map[string]string{"WWW-Authenticate": c.challenge, "Docker-Distribution-API-Version": "registry/2.0"})
	}
	// Reading asks nobody.
	h := NewHandler(Config{Backend: &fakeBackend{manifest: manifestOf("a/b", "x")}, Authorizer: &guard{}})
	if resp := ask(t, h, "GET", "/v2/a/manifests/x", asUser("wrong")); resp.StatusCode != http.StatusOK {
		t.Errorf("reading with a wrong password: %d", resp.StatusCode)
	}
}

func TestMethodsThatAreNotThereAreNamed(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{Backend: &fakeWriter{}, Authorizer: Anyone{}})
	for target, allow := range map[string]string{
		"/v2/":                           "GET, HEAD",
		"/v2/a/tags/list":                "GET, HEAD",
		"/v2/a/referrers/" + hexDigest(): "GET, HEAD",
		"/v2/a/manifests/x":              "GET, HEAD, PUT, DELETE",
		"/v2/a/blobs/" + hexDigest():     "GET, HEAD, DELETE",
		"/v2/a/blobs/uploads/":           "POST",
		"/v2/a/blobs/uploads/x":          "GET, PATCH, PUT, DELETE",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			if slices.Contains(strings.Split(allow, ", "), method) || method == "HEAD" {
				continue
			}
			resp := ask(t, h, method, target, nil)
			if code, _ := told(t, resp); resp.StatusCode != http.StatusMethodNotAllowed || code != "UNSUPPORTED" {
				t.Errorf("%s %s: %d %s", method, target, resp.StatusCode, code)
			}
			wantHeader(t, resp, map[string]string{"Allow": allow})
		}
	}
}

func hexDigest() string { return string(sha256) }

func TestUploadOfAReadOnlyRegistryIsNoEndpoint(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{Backend: &fakeBackend{}})
	for _, target := range []string{"/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/x"} {
		resp := ask(t, h, "GET", target, nil)
		if code, _ := told(t, resp); resp.StatusCode != http.StatusNotFound || code != "UNSUPPORTED" {
			t.Errorf("%s: %d %s", target, resp.StatusCode, code)
		}
	}
}

// send sends a body to a handler that lets everybody write.
func send(t *testing.T, w *fakeWriter, method, target, body string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	maps.Copy(r.Header, header)
	return serve(NewHandler(Config{Backend: w, Authorizer: Anyone{}}), r)
}

func TestUploadRequestsBecomeCalls(t *testing.T) {
	t.Parallel()
	d := "digest=" + string(sha256)
	for _, c := range []struct {
		method, target, body, contentRange string
		mounted                            bool
		status                             int
		calls                              []string
	}{
		{"POST", "/v2/a/blobs/uploads/", "", "", false, 202, []string{"start a"}},
		{"POST", "/v2/a/blobs/uploads/?" + d, "abc", "", false, 201, []string{"start a", "append id-1 -1 3", "finish id-1 sha256"}},
		{"POST", "/v2/a/blobs/uploads/?" + d, "", "", false, 201, []string{"start a", "finish id-1 sha256"}},
		{"POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", "", "", false, 202, []string{"start a"}},
		{"POST", "/v2/a/blobs/uploads/?mount=" + string(sha512) + "&from=b", "", "", true, 201, []string{`mount sha512 from "b"`}},
		{"POST", "/v2/a/blobs/uploads/?mount=" + string(sha512), "", "", true, 201, []string{`mount sha512 from ""`}},
		{"POST", "/v2/a/blobs/uploads/?mount=" + string(sha512) + "&from=b", "", "", false, 202, []string{`mount sha512 from "b"`, "start a"}},
		{"PATCH", "/v2/a/blobs/uploads/x", "abc", "", false, 202, []string{"append x -1 3"}},
		{"PATCH", "/v2/a/blobs/uploads/x", "abc", "7-9", false, 202, []string{"append x 7 3"}},
		{"PATCH", "/v2/a/blobs/uploads/x", "abc", "7-8", false, 400, nil},
		{"PATCH", "/v2/a/blobs/uploads/x", "abc", "9-7", false, 400, nil},
		{"PUT", "/v2/a/blobs/uploads/x?" + d, "abc", "bytes 7-9/10", false, 201, []string{"append x 7 3", "finish x sha256"}},
		{"PUT", "/v2/a/blobs/uploads/x?" + d, "", "", false, 201, []string{"finish x sha256"}},
		{"PUT", "/v2/a/blobs/uploads/x?" + d, "", "0-2", false, 400, nil},
		{"PUT", "/v2/a/blobs/uploads/x", "abc", "", false, 400, nil},
		{"PUT", "/v2/a/blobs/uploads/x?digest=sha256:abc", "abc", "", false, 400, nil},
		{"GET", "/v2/a/blobs/uploads/x", "", "", false, 204, []string{"size x"}},
		{"DELETE", "/v2/a/blobs/uploads/x", "", "", false, 204, []string{"cancel x"}},
	} {
		w := &fakeWriter{mounted: c.mounted}
		header := http.Header{}
		if c.contentRange != "" {
			header.Set("Content-Range", c.contentRange)
		}
		resp := send(t, w, c.method, c.target, c.body, header)
		if resp.StatusCode != c.status || !slices.Equal(w.calls, c.calls) {
			t.Errorf("%s %s %q: %d, calls %q; want %d, %q", c.method, c.target, c.contentRange, resp.StatusCode, w.calls, c.status, c.calls)
		}
		if c.status == 202 || c.status == 204 && c.method == "GET" {
			id := "x"
			if c.method == "POST" {
				id = "id-1"
			}
			want := map[string]string{"Location": "/v2/a/blobs/uploads/" + id, "Docker-Upload-UUID": id, "Range": fmt.Sprintf("0-%d", max(w.size-1, 0))}
			wantHeader(t, resp, want)
		}
		if c.status == 201 {
			want := string(sha256)
			if c.mounted {
				want = string(sha512)
			}
			wantHeader(t, resp, map[string]string{"Location": "/v2/a/blobs/" + want, "Docker-Content-Digest": want, "Content-Length": "0"})
		}
	}
}

func TestFailedWholeUploadIsCancelled(t *testing.T) {
	t.Parallel()
	w := &fakeWriter{fails: Errorf(errcode.ErrorCodeDigestInvalid, "wrong")}
	resp := send(t, w, "POST", "/v2/a/blobs/uploads/?digest="+string(sha256), "abc", nil)
	if want := []string{"start a", "append id-1 -1 3", "cancel id-1"}; resp.StatusCode != http.StatusBadRequest || !slices.Equal(w.calls, want) {
		t.Errorf("%d, calls %q; want %q", resp.StatusCode, w.calls, want)
	}
}

func TestChunkOutOfOrderTellsWhereToGoOn(t *testing.T) {
	t.Parallel()
	w := &fakeWriter{size: 5, fails: fmt.Errorf("writing: %w", ErrUploadOffset)}
	resp := send(t, w, "PATCH", "/v2/a/blobs/uploads/x", "abc", http.Header{"Content-Range": {"7-9"}})
	wantHeader(t, resp, map[string]string{"Range": "0-4", "Location": "/v2/a/blobs/uploads/x"})
	if code, message := told(t, resp); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable || code != "RANGE_INVALID" || !strings.Contains(message, "5 bytes") {
		t.Errorf("%d %s %q", resp.StatusCode, code, message)
	}
}

func TestManifestPushIsVerifiedBeforeTheBackendSeesIt(t *testing.T) {
	t.Parallel()
	body := "the manifest"
	d256, d512 := string(digest.SHA256.FromString(body)), string(digest.SHA512.FromString(body))
	for _, c := range []struct {
		reference, contentType string
		status                 int
		call                   string
		ociTag                 string
	}{
		{"x", "a/b", 201, `put ["x"] sha256 "a/b"`, ""},
		{"x?digest=" + d512, "a/b; charset=utf-8", 201, `put ["x"] sha512 "a/b"`, ""},
		{d256, "", 201, `put [] sha256 ""`, ""},
		{d512 + "?tag=x&tag=y&tag=x", "a/b", 201, `put ["x" "y"] sha512 "a/b"`, "x, y"},
		{"x?digest=" + string(sha256), "a/b", 400, "", ""},
		{string(sha256), "a/b", 400, "", ""},
		{d256 + "?digest=" + d512, "a/b", 400, "", ""},
		{d256 + "?tag=%zz", "a/b", 400, "", ""},
	} {
		w := &fakeWriter{subject: sha512}
		resp := send(t, w, "PUT", "/v2/a/manifests/"+c.reference, body, http.Header{"Content-Type": {c.contentType}})
		if got := strings.Join(w.calls, "; "); resp.StatusCode != c.status || got != c.call {
			t.Errorf("%s: %d, calls %s; want %d, %s", c.reference, resp.StatusCode, got, c.status, c.call)
			continue
		}
		if c.status == 201 {
			if string(w.push.Body) != body {
				t.Errorf("%s: pushed %q", c.reference, w.push.Body)
			}
			d := string(w.push.Digest)
			wantHeader(t, resp, map[string]string{"Location": "/v2/a/manifests/" + d, "Docker-Content-Digest": d, "OCI-Subject": string(sha512), "OCI-Tag": c.ociTag})
		}
	}
}

func TestManifestOfUnknownLengthIsBoundedToo(t *testing.T) {
	t.Parallel()
	for size, status := range map[int]int{0: 201, 1: 201, 1000: 201, MaxManifestSize: 201, MaxManifestSize + 1: 413} {
		w := &fakeWriter{}
		r := httptest.NewRequest(http.MethodPut, "/v2/a/manifests/x", io.MultiReader(bytes.NewReader(make([]byte, size))))
		r.ContentLength = -1
		resp := serve(NewHandler(Config{Backend: w, Authorizer: Anyone{}}), r)
		if resp.StatusCode != status || status == 201 && len(w.push.Body) != size {
			t.Errorf("%d bytes: %d, want %d", size, resp.StatusCode, status)
		}
	}
}

func TestBodyThatComesTooSlowlyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(NewHandler(Config{Backend: &fakeWriter{}, Authorizer: Anyone{}, WriteTimeout: 50 * time.Millisecond}))
	defer server.Close()
	for _, request := range []string{"PATCH /v2/a/blobs/uploads/x", "PUT /v2/a/manifests/x"} {
		connection, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(connection, "%s HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc", request)
		resp, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil {
			t.Fatal(err)
		}
		if code, _ := told(t, resp); resp.StatusCode != http.StatusRequestTimeout || code != "BLOB_UPLOAD_INVALID" {
			t.Errorf("%s: %d %s", request, resp.StatusCode, code)
		}
		connection.Close()
	}
}

// The deadline is for the body: what the backend makes of it may take longer.
func TestDeadlineOfTheBodyEndsWithIt(t *testing.T) {
	t.Parallel()
	var finished error
	slow := &slowWriter{finished: &finished}
	server := httptest.NewServer(NewHandler(Config{Backend: slow, Authorizer: Anyone{}, WriteTimeout: 50 * time.Millisecond}))
	defer server.Close()
	resp, err := http.Post(server.URL+"/v2/a/blobs/uploads/?digest="+string(sha256), "application/octet-stream", strings.NewReader("abc"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated || finished != nil {
		t.Errorf("%d, and the request ended meanwhile with %v", resp.StatusCode, finished)
	}
}

// slowWriter takes longer to finish an upload than its body may.
type slowWriter struct {
	fakeWriter
	finished *error
}

func (s *slowWriter) FinishUpload(ctx context.Context, _ *Request, _ digest.Digest) error {
	select {
	case <-ctx.Done():
		*s.finished = context.Cause(ctx)
	case <-time.After(200 * time.Millisecond):
	}
	return nil
}

func TestBodyThatBreaksIsNoErrorOfTheRegistry(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"PATCH /v2/a/blobs/uploads/x", "PUT /v2/a/manifests/x"} {
		method, path, _ := strings.Cut(target, " ")
		r := httptest.NewRequest(method, path, io.MultiReader(strings.NewReader("abc"), brokenReader{}))
		resp := serve(NewHandler(Config{Backend: &fakeWriter{}, Authorizer: Anyone{}}), r)
		if code, _ := told(t, resp); resp.StatusCode != http.StatusBadRequest || code != "BLOB_UPLOAD_INVALID" {
			t.Errorf("%s: %d %s", target, resp.StatusCode, code)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }
