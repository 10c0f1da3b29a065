package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

func TestErrorsAreToldAsTheSpecificationSays(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err        error
		status     int
		code, says string
		retryAfter string
	}{
		"the code's own status": {Errorf(errcode.ErrorCodeManifestUnknown, "no tag %q in a", "x"), 404, "MANIFEST_UNKNOWN", `no tag "x" in a`, ""},
		"a status of its own":   {&Error{Code: errcode.ErrorCodeUnavailable, Status: 504, Message: "late"}, 504, "UNAVAILABLE", "late", ""},
		"seconds are rounded up": {
			&Error{Code: errcode.ErrorCodeTooManyRequests, Message: "slow down", RetryAfter: 1001 * time.Millisecond},
			429, "TOOMANYREQUESTS", "slow down", "2",
		},
		"wrapped":             {fmt.Errorf("asking: %w", Errorf(errcode.ErrorCodeNameUnknown, "no a")), 404, "NAME_UNKNOWN", "no a", ""},
		"without a message":   {&Error{Code: errcode.ErrorCodeDenied}, 403, "DENIED", "denied", ""},
		"not a status at all": {&Error{Code: errcode.ErrorCodeDenied, Status: 200}, 403, "DENIED", "denied", ""},
		"HTML in the message": {Errorf(errcode.ErrorCodeNameUnknown, "<script>"), 404, "NAME_UNKNOWN", "<script>", ""},
	} {
		h := NewHandler(Config{Backend: &fakeBackend{err: tc.err}})
		for _, target := range []string{"/v2/a/manifests/x", blobTarget, "/v2/a/tags/list", "/v2/a/referrers/" + string(sha256)} {
			resp := ask(t, h, http.MethodGet, target+"?ns=b.io", nil)
			size := resp.Header.Get("Content-Length")
			wantHeader(t, resp, map[string]string{
				"Retry-After": tc.retryAfter, "OCI-Namespace": "b.io", "Cache-Control": "no-store",
				"X-Content-Type-Options": "nosniff", "ETag": "", "Accept-Ranges": "",
			})
			if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(resp.Header.Get("X-Request-Id")) {
				t.Errorf("%s: X-Request-Id %q", name, resp.Header.Get("X-Request-Id"))
			}
			if code, message := told(t, resp); resp.StatusCode != tc.status || code != tc.code || !strings.Contains(message, tc.says) {
				t.Errorf("%s, %s: %d %s %q", name, target, resp.StatusCode, code, message)
			}
			head := ask(t, h, http.MethodHead, target, nil)
			if got := bodyOf(t, head); head.StatusCode != tc.status || got != "" {
				t.Errorf("%s, HEAD %s: %d %q", name, target, head.StatusCode, got)
			}
			wantHeader(t, head, map[string]string{"Content-Length": size, "Content-Type": "application/json", "Retry-After": tc.retryAfter})
		}
	}
}

func TestUnexpectedErrorIsLoggedAndNotTold(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := NewHandler(Config{
		Backend: &fakeBackend{err: errors.New("password=hunter2")},
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
	})
	resp := ask(t, h, http.MethodGet, "/v2/a/manifests/x", http.Header{"X-Request-Id": {"mine"}})
	id := resp.Header.Get("X-Request-Id")
	code, message := told(t, resp)
	if resp.StatusCode != http.StatusInternalServerError || code != "UNKNOWN" || strings.Contains(message, "hunter2") || !strings.Contains(message, id) {
		t.Errorf("%d %s %q, id %s", resp.StatusCode, code, message, id)
	}
	if id == "mine" {
		t.Error("the client chose the request id")
	}
	if !strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), "id="+id) {
		t.Errorf("log: %s", log.String())
	}
}

func TestOnlyReadingIsAllowed(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{Backend: &fakeBackend{}})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
		for _, target := range []string{"/v2/a/blobs/uploads/?ns=b.io", "/v2/a/manifests/x", "/v2/"} {
			resp := ask(t, h, method, target, nil)
			if code, message := told(t, resp); resp.StatusCode != http.StatusMethodNotAllowed || code != "UNSUPPORTED" || !strings.Contains(message, "read-only") {
				t.Errorf("%s %s: %d %s %q", method, target, resp.StatusCode, code, message)
			}
			wantHeader(t, resp, map[string]string{"Allow": "GET, HEAD"})
		}
	}
}

func TestMalformedRequestsNeverReachTheBackend(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{Backend: &fakeBackend{asked: func(_ context.Context, req *Request) {
		t.Errorf("the backend was asked for %+v", req)
	}}})
	for target, status := range map[string]int{
		"/v2/A/manifests/x": 400, "/v2/a/manifests/x?ns=..": 400, "/v2/a%2F..%2Fb/blobs/" + string(sha256): 400,
		"/v2/_catalog": 404, "/": 404, "/v2/a/tags/list?n=x": 400,
	} {
		if resp := ask(t, h, http.MethodGet, target, nil); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", target, resp.StatusCode, status)
		}
	}
}

func TestClientThatLeftIsCutWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	var seen []Observation
	ctx, cancel := context.WithCancel(t.Context())
	h := NewHandler(Config{
		Backend: &fakeBackend{err: Errorf(errcode.ErrorCodeUnavailable, "canceled"), asked: func(context.Context, *Request) { cancel() }},
		Done:    func(o *Observation) { seen = append(seen, *o) },
	})
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
				t.Error("the connection is not cut")
			}
		}()
		h.ServeHTTP(w, newRequest(http.MethodGet, "/v2/a/manifests/x").WithContext(ctx))
	}()
	if len(seen) != 1 || seen[0].Status != 499 || w.Body.Len() != 0 {
		t.Errorf("seen %+v, body %q", seen, w.Body)
	}
}

func TestEveryRequestIsObservedOnce(t *testing.T) {
	t.Parallel()
	var (
		seen []Observation
		reqs []Request
	)
	h := NewHandler(Config{
		Backend: &fakeBackend{
			manifest: manifestOf("a/b", "{}"), blob: blobOf(26, &memory{bytes: []byte(alphabet)}),
			cs: CacheStatus{Outcome: OutcomeHit, Upstream: "docker.io"},
		},
		Done: func(o *Observation) { seen, reqs = append(seen, *o), append(reqs, *o.Request) },
	})
	for i, tc := range []struct {
		method, target string
		status         int
		bytes          int64
		failed         bool
	}{
		{"GET", "/v2/", 200, 2, false},
		{"GET", "/v2/a/manifests/x", 200, 2, false},
		{"HEAD", "/v2/a/manifests/x", 200, 0, false},
		{"GET", blobTarget, 200, 26, false},
		{"GET", "/v2/A/manifests/x", 400, 0, true},
		{"PUT", "/v2/a/manifests/x", 405, 0, true},
	} {
		resp := ask(t, h, tc.method, tc.target, nil)
		if len(seen) != i+1 {
			t.Fatalf("%d observations of %d requests", len(seen), i+1)
		}
		o := seen[i]
		if tc.failed {
			tc.bytes, _ = strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64)
		}
		if o.Method != tc.method || o.Path != tc.target || o.Status != tc.status || o.Bytes != tc.bytes ||
			(o.Err != nil) != tc.failed || o.Client == "" || o.Start.IsZero() || o.Duration < 0 {
			t.Errorf("%s %s: %+v", tc.method, tc.target, o)
		}
		if !strings.Contains(tc.target, "/manifests/") || tc.failed { // see identify
			wantHeader(t, resp, map[string]string{"X-Request-Id": o.ID})
		}
		if o.ID == "" || i > 0 && o.ID == seen[i-1].ID {
			t.Errorf("id %q", o.ID)
		}
	}
	if reqs[3].Kind != KindBlob || reqs[3].Digest != sha256 || seen[3].Cache.Upstream != "docker.io" {
		t.Errorf("blob: %+v, %+v", reqs[3], seen[3])
	}
}

func TestBackendThatPanicsIsObserved(t *testing.T) {
	t.Parallel()
	var status int
	h := NewHandler(Config{
		Backend: &fakeBackend{asked: func(context.Context, *Request) { panic("bug") }},
		Done:    func(o *Observation) { status = o.Status },
	})
	func() {
		defer func() {
			if p := recover(); p != "bug" {
				t.Errorf("recovered %v", p)
			}
		}()
		h.ServeHTTP(httptest.NewRecorder(), newRequest(http.MethodGet, "/v2/a/manifests/x"))
	}()
	if status != 500 {
		t.Errorf("status %d", status)
	}
}
