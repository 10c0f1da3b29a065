package registry

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const immutable = "max-age=31536000, immutable"

func TestBaseAnswersThatThisIsARegistry(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{Backend: &fakeBackend{}})
	for _, target := range []string{"/v2", "/v2/", "/v2/?ns=docker.io"} {
		resp := ask(t, h, http.MethodGet, target, nil)
		if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != "{}" {
			t.Errorf("%s: %d %q", target, resp.StatusCode, got)
		}
		wantHeader(t, resp, map[string]string{
			"Docker-Distribution-Api-Version": "registry/2.0", "Content-Type": "application/json",
			"Content-Length": "2", "X-Request-Id": "",
		})
	}
	if got := bodyOf(t, ask(t, h, http.MethodHead, "/v2/", nil)); got != "" {
		t.Errorf("HEAD has the body %q", got)
	}
}

func TestManifestIsServedByteForByteAsTheBackendSays(t *testing.T) {
	t.Parallel()
	const mediaType, content = "application/vnd.docker.distribution.manifest.v1+prettyjws", "{ \"odd\":\n 1}\n"
	m := manifestOf(mediaType, content)
	h := NewHandler(Config{Backend: &fakeBackend{manifest: m}})
	for target, cacheControl := range map[string]string{
		"/v2/a/manifests/latest":                           "no-cache",
		"/v2/a/manifests/" + string(m.Digest):              immutable,
		"/v2/a/manifests/" + string(m.Digest) + "?ns=b.io": immutable,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			resp := ask(t, h, method, target, http.Header{"Range": {"bytes=0-1"}})
			want := content
			if method == http.MethodHead {
				want = ""
			}
			if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != want {
				t.Errorf("%s %s: %d %q", method, target, resp.StatusCode, got)
			}
			ns := ""
			if strings.Contains(target, "ns=") {
				ns = "b.io"
			}
			wantHeader(t, resp, map[string]string{
				"Content-Type": mediaType, "Content-Length": strconv.Itoa(len(content)),
				"Docker-Content-Digest": string(m.Digest), "ETag": `"` + string(m.Digest) + `"`,
				"Cache-Control": cacheControl, "X-Content-Type-Options": "nosniff",
				"OCI-Namespace": ns, "Content-Encoding": "", "Cache-Status": "", "Age": "",
			})
		}
	}
}

func TestConditionsOnAManifest(t *testing.T) {
	t.Parallel()
	m := manifestOf(ocispec.MediaTypeImageIndex, "{}")
	etag := `"` + string(m.Digest) + `"`
	h := NewHandler(Config{Backend: &fakeBackend{manifest: m}})
	for _, tc := range []struct {
		header string
		values []string
		status int
	}{
		{"If-None-Match", []string{etag}, 304},
		{"If-None-Match", []string{"W/" + etag}, 304},
		{"If-None-Match", []string{"*"}, 304},
		{"If-None-Match", []string{`"x", ` + etag}, 304},
		{"If-None-Match", []string{`"x"`, `"y",` + etag}, 304},
		{"If-None-Match", []string{string(m.Digest)}, 304},
		{"If-None-Match", []string{`"x"`}, 200},
		{"If-None-Match", []string{""}, 200},
		{"If-None-Match", []string{strings.ToUpper(etag)}, 200},
		{"If-Match", []string{etag}, 200},
		{"If-Match", []string{"*"}, 200},
		{"If-Match", []string{"W/" + etag}, 412},
		{"If-Match", []string{`"x"`}, 412},
		{"If-Modified-Since", []string{"Mon, 23 Nov 2026 00:00:00 GMT"}, 200}, // it has no date
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			resp := ask(t, h, method, "/v2/a/manifests/x", http.Header{tc.header: tc.values})
			if resp.StatusCode != tc.status {
				t.Errorf("%s with %s %q: %d, want %d", method, tc.header, tc.values, resp.StatusCode, tc.status)
			}
			wantHeader(t, resp, map[string]string{"ETag": etag, "Docker-Content-Digest": string(m.Digest)})
			if got := bodyOf(t, resp); tc.status == 304 && got != "" {
				t.Errorf("304 with the body %q", got)
			}
			if tc.status == 304 {
				wantHeader(t, resp, map[string]string{"Content-Length": "", "Content-Type": "", "Cache-Control": "no-cache"})
			}
		}
	}
}

func TestABackendsMistakeIsNotPassedOn(t *testing.T) {
	t.Parallel()
	short := &Manifest{ManifestHead: NewManifestHead("x/y", digest.FromString("abc"), 3), Body: []byte("ab")}
	for name, tc := range map[string]struct {
		backend *fakeBackend
		target  string
	}{
		"no manifest":      {&fakeBackend{}, "/v2/a/manifests/x"},
		"another manifest": {&fakeBackend{manifest: manifestOf("x/y", "{}")}, "/v2/a/manifests/" + string(sha256)},
		"a short manifest": {&fakeBackend{manifest: short}, "/v2/a/manifests/x"},
		"no content":       {&fakeBackend{blob: blobOf(3, nil)}, "/v2/a/blobs/" + string(sha256)},
		"another blob":     {&fakeBackend{blob: func(*Request) Blob { return Blob{Digest: sha512} }}, "/v2/a/blobs/" + string(sha256)},
	} {
		resp := ask(t, NewHandler(Config{Backend: tc.backend}), http.MethodGet, tc.target, nil)
		if code, _ := told(t, resp); resp.StatusCode != http.StatusInternalServerError || code != "UNKNOWN" {
			t.Errorf("%s: %d %s", name, resp.StatusCode, code)
		}
		wantHeader(t, resp, map[string]string{"ETag": "", "Docker-Content-Digest": ""})
	}
}

func TestTagsAreListedInPages(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		query      string
		tags       []string
		more       bool
		body, link string
	}{
		{"", []string{"a", "b"}, false, `{"name":"x/y","tags":["a","b"]}`, ""},
		{"", nil, false, `{"name":"x/y","tags":[]}`, ""},
		{"?n=2", []string{"a", "b"}, true, `{"name":"x/y","tags":["a","b"]}`, `</v2/x/y/tags/list?n=2&last=b>; rel="next"`},
		{"?n=2&last=a", []string{"b"}, false, `{"name":"x/y","tags":["b"]}`, ""},
		{"?n=5&ns=localhost:5000", []string{"a"}, true, `{"name":"x/y","tags":["a"]}`, `</v2/x/y/tags/list?n=5&last=a&ns=localhost%3A5000>; rel="next"`},
		{"", []string{"a", "b"}, true, `{"name":"x/y","tags":["a","b"]}`, `</v2/x/y/tags/list?n=2&last=b>; rel="next"`},
		{"?n=0", []string{}, true, `{"name":"x/y","tags":[]}`, ""},
		{"?n=0", []string{"a"}, true, `{"name":"x/y","tags":[]}`, ""},
	} {
		h := NewHandler(Config{Backend: &fakeBackend{tags: tc.tags, more: tc.more}})
		resp := ask(t, h, http.MethodGet, "/v2/x/y/tags/list"+tc.query, nil)
		if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != tc.body {
			t.Errorf("%s: %d %s, want %s", tc.query, resp.StatusCode, got, tc.body)
		}
		wantHeader(t, resp, map[string]string{"Link": tc.link, "Content-Type": "application/json", "Cache-Control": "no-cache"})
		head := ask(t, h, http.MethodHead, "/v2/x/y/tags/list"+tc.query, nil)
		wantHeader(t, head, map[string]string{"Content-Length": strconv.Itoa(len(tc.body))})
	}
}

func TestReferrersAreAnImageIndex(t *testing.T) {
	t.Parallel()
	backend := &fakeBackend{}
	h := NewHandler(Config{Backend: backend})
	target := "/v2/a/referrers/" + string(sha256)
	resp := ask(t, h, http.MethodGet, target, nil)
	const empty = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != empty {
		t.Errorf("%d %s, want %s", resp.StatusCode, got, empty)
	}
	wantHeader(t, resp, map[string]string{"Content-Type": ocispec.MediaTypeImageIndex, "OCI-Filters-Applied": ""})

	backend.referrers = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: sha512, Size: 7, ArtifactType: "a/b"}}
	resp = ask(t, h, http.MethodGet, target+"?artifactType=a/b", nil)
	if got := bodyOf(t, resp); !strings.Contains(got, string(sha512)) || !strings.Contains(got, `"artifactType":"a/b"`) {
		t.Errorf("%s", got)
	}
	wantHeader(t, resp, map[string]string{"OCI-Filters-Applied": "artifactType"})
}

func TestCacheStatusTellsWhereAnAnswerCameFrom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		cs          CacheStatus
		status, age string
	}{
		{CacheStatus{}, "", ""},
		{CacheStatus{Outcome: OutcomeHit}, "entrepot; hit", ""},
		{CacheStatus{Outcome: OutcomeHit, HasTTL: true, TTL: 287900 * time.Millisecond, Age: 12999 * time.Millisecond}, "entrepot; hit; ttl=287", "12"},
		{CacheStatus{Outcome: OutcomeHit, HasTTL: true, TTL: 24 * time.Hour, Age: time.Hour}, "entrepot; hit; ttl=86400", "3600"},
		{CacheStatus{Outcome: OutcomeHit, HasTTL: true, TTL: -500 * time.Millisecond, Age: -time.Second}, "entrepot; hit; ttl=-1", "0"},
		{CacheStatus{Outcome: OutcomeHit, Detail: "from-manifest"}, "entrepot; hit; detail=from-manifest", ""},
		{CacheStatus{Outcome: OutcomeStale, HasTTL: true, TTL: -412 * time.Second, Age: 712 * time.Second, Detail: "upstream-down"}, "entrepot; hit; ttl=-412; detail=upstream-down", "712"},
		{CacheStatus{Outcome: OutcomeMiss, FwdStatus: 200, Stored: true, Collapsed: true}, "entrepot; fwd=uri-miss; fwd-status=200; stored; collapsed", ""},
		{CacheStatus{Outcome: OutcomeMiss, FwdStatus: 200, HasTTL: true, TTL: 5 * time.Minute}, "entrepot; fwd=uri-miss; fwd-status=200; ttl=300", "0"},
		{CacheStatus{Outcome: OutcomeError, FwdStatus: 503}, "entrepot; fwd=uri-miss; fwd-status=503", ""},
		{CacheStatus{Outcome: OutcomeError, Detail: `a "b" ` + "\n"}, `entrepot; detail="a \"b\" ?"`, ""},
	} {
		resp := ask(t, NewHandler(Config{Backend: &fakeBackend{manifest: manifestOf("a/b", "{}"), cs: tc.cs}}), http.MethodGet, "/v2/a/manifests/x", nil)
		wantHeader(t, resp, map[string]string{"Cache-Status": tc.status, "Age": tc.age})
	}
	named := NewHandler(Config{Backend: &fakeBackend{manifest: manifestOf("a/b", "{}"), cs: CacheStatus{Outcome: OutcomeHit}}, Name: "node 1"})
	wantHeader(t, ask(t, named, http.MethodGet, "/v2/a/manifests/x", nil), map[string]string{"Cache-Status": `"node 1"; hit`})
}

func TestCacheStatusIsToldWithErrorsToo(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{Backend: &fakeBackend{
		err: Errorf(errcode.ErrorCodeManifestUnknown, "no such tag"),
		cs:  CacheStatus{Outcome: OutcomeHit, HasTTL: true, TTL: 9 * time.Second},
	}})
	resp := ask(t, h, http.MethodGet, "/v2/a/manifests/x", nil)
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", resp.StatusCode)
	}
	wantHeader(t, resp, map[string]string{"Cache-Status": "entrepot; hit; ttl=9", "Cache-Control": "no-store"})
}
