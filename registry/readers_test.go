package registry

import (
	"context"
	"net/http"
	"testing"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// doorkeeper lets in who says so, and everybody to what is open.
type doorkeeper struct{ open bool }

func (d doorkeeper) judge(r *http.Request) (Leave, error) {
	if name := r.Header.Get("Name"); name != "" || d.open {
		return Leave{Identity: name, Open: d.open}, nil
	}
	e := Errorf(errcode.ErrorCodeUnauthorized, "who are you?")
	e.Challenge = "Basic"
	return Leave{}, e
}

func (d doorkeeper) ReadImage(r *http.Request, _ *Request) (Leave, error) { return d.judge(r) }

func (d doorkeeper) ReadFile(r *http.Request, _ *FileRequest) (Leave, error) { return d.judge(r) }

func TestWhatNeedsLeaveIsNotAskedOfTheBackendWithout(t *testing.T) {
	asked := 0
	images := &fakeBackend{asked: func(context.Context, *Request) { asked++ }}
	h := NewHandler(Config{Backend: images, Readers: doorkeeper{}})
	backend := &fakeFiles{file: alphabetFile()}
	files := NewFileHandler(backend, Config{Readers: doorkeeper{}})
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, target := range []string{
			"/v2/", "/v2/a/manifests/1", "/v2/a/manifests/" + string(benchManifest.Digest), blobTarget, "/v2/a/tags/list",
			"/v2/a/referrers/" + string(benchManifest.Digest),
		} {
			resp := ask(t, h, method, target, nil)
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s %s: %s", method, target, resp.Status)
			}
			wantHeader(t, resp, map[string]string{"Www-Authenticate": "Basic", "Cache-Control": "no-store", "Docker-Content-Digest": "", "Etag": ""})
			if method == http.MethodGet {
				if code, _ := told(t, resp); code != "UNAUTHORIZED" {
					t.Errorf("%s %s: %s", method, target, code)
				}
			}
		}
		if resp := ask(t, files, method, "/a/file", nil); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s of a file: %s", method, resp.Status)
		}
	}
	if asked != 0 || backend.asked.Path != "" {
		t.Errorf("the backends were asked %d times, and for %q", asked, backend.asked.Path)
	}
}

// RFC 9111, section 3: without an Authorization header, as of who has a certificate, a
// shared cache would keep the answer for all.
func TestSharedCachesDoNotKeepWhatNotEverybodyMayRead(t *testing.T) {
	images := &fakeBackend{
		manifest: benchManifest, tags: []string{"a"}, blob: blobOf(4, &memory{bytes: []byte("blob")}),
	}
	file := File{Size: 4, ETag: `"x"`, Content: &memory{bytes: []byte("file")}, Header: http.Header{
		"Etag": {`"x"`}, "Cache-Control": {"public, max-age=60", "s-maxage=600, must-revalidate"}, "Vary": {"Accept"},
	}}
	files := &fakeFiles{file: file}
	digests := "/v2/a/manifests/" + string(benchManifest.Digest)
	for _, c := range []struct{ target, etag, open, confined string }{
		{"/v2/a/manifests/1", "", "no-cache", "private, no-cache"},
		{digests, "", "max-age=31536000, immutable", "private, max-age=31536000, immutable"},
		{digests, `"` + string(benchManifest.Digest) + `"`, "max-age=31536000, immutable", "private, max-age=31536000, immutable"},
		{blobTarget, "", "max-age=31536000, immutable", "private, max-age=31536000, immutable"},
		{blobTarget, `"` + blobTarget[len("/v2/a/blobs/"):] + `"`, "max-age=31536000, immutable", "private, max-age=31536000, immutable"},
		{"/v2/a/tags/list", "", "no-cache", "private, no-cache"},
		{"/v2/a/referrers/" + string(benchManifest.Digest), "", "no-cache", "private, no-cache"},
	} {
		for open, want := range map[bool]string{true: c.open, false: c.confined} {
			header := http.Header{"Name": {"me"}}
			if c.etag != "" {
				header.Set("If-None-Match", c.etag)
			}
			resp := ask(t, NewHandler(Config{Backend: images, Readers: doorkeeper{open}}), http.MethodGet, c.target, header)
			vary := map[bool]string{true: "", false: "Authorization"}[open]
			wantHeader(t, resp, map[string]string{"Cache-Control": want, "Vary": vary})
		}
	}
	for _, etag := range []string{"", `"x"`} {
		header := http.Header{"Name": {"me"}, "If-None-Match": {etag}}
		resp := ask(t, NewFileHandler(files, Config{Readers: doorkeeper{}}), http.MethodGet, "/f", header)
		if got := resp.Header.Values("Cache-Control"); len(got) != 1 || got[0] != "private, max-age=60" {
			t.Errorf("a file with If-None-Match %s has Cache-Control %q", etag, got)
		}
		if got := resp.Header.Values("Vary"); len(got) != 2 || got[0] != "Accept" || got[1] != "Authorization" {
			t.Errorf("a file with If-None-Match %s has Vary %q", etag, got)
		}
	}
	if len(file.Header["Cache-Control"]) != 2 || len(file.Header["Vary"]) != 1 {
		t.Errorf("the header of the backend was written to: %v", file.Header)
	}
	resp := ask(t, NewFileHandler(files, Config{Readers: doorkeeper{open: true}}), http.MethodGet, "/f", nil)
	if got := resp.Header.Values("Cache-Control"); len(got) != 2 {
		t.Errorf("an open file has Cache-Control %q, not what its upstream said", got)
	}
}

func TestWhoReadsIsObserved(t *testing.T) {
	var seen string
	h := NewHandler(Config{
		Backend: &fakeBackend{manifest: benchManifest}, Readers: doorkeeper{},
		Done: func(o *Observation) { seen = o.Identity },
	})
	ask(t, h, http.MethodGet, "/v2/a/manifests/1", http.Header{"Name": {"alice"}})
	if seen != "alice" {
		t.Errorf("observed %q", seen)
	}
}
