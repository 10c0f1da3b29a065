package ledger

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTheHandlerServesALogAsC2SPSays(t *testing.T) {
	m, key := newMemory(), testKey(t)
	l := openLog(t, m, key)
	mustAppend(t, l, namesFrom(0, 300)...)
	server := httptest.NewServer(NewHandler(m, "/ledger/", "", nil))
	defer server.Close()
	get := func(method, path, known string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if known != "" {
			req.Header.Set("If-None-Match", known)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	for path, want := range map[string][2]string{
		"checkpoint":            {"text/plain; charset=utf-8", "no-cache"},
		"tile/0/000":            {"application/octet-stream", "public, max-age=31536000, immutable"},
		"tile/0/001.p/44":       {"application/octet-stream", "public, max-age=31536000, immutable"},
		"tile/1/000.p/1":        {"application/octet-stream", "public, max-age=31536000, immutable"},
		"tile/entries/000":      {"application/octet-stream", "public, max-age=31536000, immutable"},
		"tile/entries/001.p/44": {"application/octet-stream", "public, max-age=31536000, immutable"},
	} {
		resp, body := get(http.MethodGet, "/ledger/"+path, "")
		if resp.StatusCode != http.StatusOK || body != string(m.objects[path]) ||
			resp.Header.Get("Content-Type") != want[0] || resp.Header.Get("Cache-Control") != want[1] {
			t.Errorf("GET %s: %s, %d bytes, %v", path, resp.Status, len(body), resp.Header)
		}
		etag := resp.Header.Get("ETag")
		for _, known := range []string{etag, "W/" + etag, `"other", ` + etag} {
			if resp, _ := get(http.MethodGet, "/ledger/"+path, known); resp.StatusCode != http.StatusNotModified {
				t.Errorf("GET %s of a known version: %s", path, resp.Status)
			}
		}
		if resp, body := get(http.MethodGet, "/ledger/"+path, `"other"`); resp.StatusCode != http.StatusOK || body == "" {
			t.Errorf("GET %s of another version: %s", path, resp.Status)
		}
		if resp, body := get(http.MethodHead, "/ledger/"+path, ""); resp.ContentLength != int64(len(m.objects[path])) || body != "" {
			t.Errorf("HEAD %s: %s, length %d", path, resp.Status, resp.ContentLength)
		}
	}
	for _, path := range []string{
		"/ledger/head", "/ledger/", "/ledger", "/", "/ledger/tile/0/003", "/ledger/tile/0/001", "/ledger/tile/data/000",
		"/ledger/.lock", "/ledger/../head", "/ledger/tile/..%2f..%2fhead", "/ledger//checkpoint", "/checkpoint",
	} {
		if resp, body := get(http.MethodGet, path, ""); resp.StatusCode != http.StatusNotFound || strings.Contains(body, headTitle) {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodDelete} {
		if resp, _ := get(method, "/ledger/checkpoint", ""); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
}

func TestAServedLogIsReadAndAuditedByURL(t *testing.T) {
	dir, key := NewDir(t.TempDir()), testKey(t)
	mustAppend(t, openLog(t, dir, key), namesFrom(0, 300)...)
	server := httptest.NewServer(NewHandler(dir, "/ledger", "", nil))
	defer server.Close()
	l, err := Open(t.Context(), server.URL+"/ledger/", Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	mustVerify(t, l.storage, key)
	if _, err := l.Append(t.Context(), func(*State) ([]Entry, error) { return namesFrom(300, 1), nil }); !errors.Is(err, ErrReadOnly) {
		t.Errorf("appending over HTTP: %v, want ErrReadOnly", err)
	}
}

func TestAStorageThatFailsIsNotA404(t *testing.T) {
	server := httptest.NewServer(NewHandler(&crashing{Storage: newMemory()}, "/ledger/", "", nil))
	defer server.Close()
	resp, err := server.Client().Get(server.URL + "/ledger/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the answer is %s, want 503", resp.Status)
	}
}

func TestHandlerServesThePublicKeyWhereThereIsOne(t *testing.T) {
	for _, key := range []string{"", "origin.example.org/ledger+1234abcd+base64\n"} {
		w := httptest.NewRecorder()
		NewHandler(newMemory(), "/ledger/", key, nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ledger/key", http.NoBody))
		want := http.StatusOK
		if key == "" {
			want = http.StatusNotFound
		}
		if w.Code != want || key != "" && w.Body.String() != key {
			t.Errorf("with the key %q: %d %q", key, w.Code, w.Body)
		}
	}
}
