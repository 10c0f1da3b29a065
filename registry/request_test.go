package registry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

var (
	hex64  = strings.Repeat("0123456789abcdef", 4)
	sha256 = digest.Digest("sha256:" + hex64)
	sha512 = digest.Digest("sha512:" + hex64 + hex64)
)

func TestPathIsParsedIntoARequest(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", maxName)
	for target, want := range map[string]Request{
		"/v2":                                {N: -1},
		"/v2/":                               {N: -1},
		"/v2/?ns=docker.io":                  {N: -1, Namespace: "docker.io"},
		"/v2/nginx/manifests/1.29":           {Kind: KindManifest, Repository: "nginx", Tag: "1.29", N: -1},
		"/v2/library/nginx/manifests/_v.1-X": {Kind: KindManifest, Repository: "library/nginx", Tag: "_v.1-X", N: -1},
		"/v2/" + long + "/manifests/" + strings.Repeat("t", maxTag): {Kind: KindManifest, Repository: long, Tag: strings.Repeat("t", maxTag), N: -1},
		"/v2/a/manifests/" + string(sha256):                         {Kind: KindManifest, Repository: "a", Digest: sha256, N: -1},
		"/v2/a/manifests/" + string(sha512):                         {Kind: KindManifest, Repository: "a", Digest: sha512, N: -1},
		"/v2/a/manifests/sha256%3A" + hex64:                         {Kind: KindManifest, Repository: "a", Digest: sha256, N: -1},
		"/v2/a/blobs/sha256%3a" + hex64:                             {Kind: KindBlob, Repository: "a", Digest: sha256, N: -1},
		"/v2/a/b__c/d--e.f_g/blobs/" + string(sha256):               {Kind: KindBlob, Repository: "a/b__c/d--e.f_g", Digest: sha256, N: -1},
		"/v2/docker.io/library/nginx/blobs/" + string(sha256):       {Kind: KindBlob, Repository: "docker.io/library/nginx", Digest: sha256, N: -1},
		"/v2/localhost:5000/repo/manifests/x":                       {Kind: KindManifest, Repository: "localhost:5000/repo", Tag: "x", N: -1},
		"/v2/[::1]:5000/repo/manifests/x":                           {Kind: KindManifest, Repository: "[::1]:5000/repo", Tag: "x", N: -1},
		"/v2/xn--bcher-kva.example/repo/manifests/x":                {Kind: KindManifest, Repository: "xn--bcher-kva.example/repo", Tag: "x", N: -1},
		"/v2/a/tags/list":                                           {Kind: KindTags, Repository: "a", N: -1},
		"/v2/a/tags/list?n=0":                                       {Kind: KindTags, Repository: "a", N: 0},
		"/v2/a/tags/list?n=20&last=v1.0&ns=localhost:5000":          {Kind: KindTags, Repository: "a", N: 20, Last: "v1.0", Namespace: "localhost:5000"},
		"/v2/a/tags/list?x=%zz&ns=localhost%3A5000&ns=b":            {Kind: KindTags, Repository: "a", N: -1, Namespace: "localhost:5000"},
		"/v2/a/tags/list?%6e=7":                                     {Kind: KindTags, Repository: "a", N: 7},
		"/v2/a/manifests/x?n=-1":                                    {Kind: KindManifest, Repository: "a", Tag: "x", N: -1}, // n is not of this kind
		"/v2/a/referrers/" + string(sha256):                         {Kind: KindReferrers, Repository: "a", Digest: sha256, N: -1},
		"/v2/a/referrers/" + string(sha256) + "?artifactType=application%2Fvnd.x%2Bjson": {
			Kind: KindReferrers, Repository: "a", Digest: sha256, N: -1, ArtifactType: "application/vnd.x+json",
		},
		"/v2/a/blobs/uploads":             {Kind: KindUpload, Repository: "a", N: -1},
		"/v2/a/blobs/uploads/":            {Kind: KindUpload, Repository: "a", N: -1},
		"/v2/a/b/blobs/uploads/4f-_A":     {Kind: KindUpload, Repository: "a/b", Upload: "4f-_A", N: -1},
		"/v2/a/blobs/uploads/tags/list":   {Kind: KindTags, Repository: "a/blobs/uploads", N: -1},
		"/v2/blobs/uploads/blobs/uploads": {Kind: KindUpload, Repository: "blobs/uploads", N: -1},
		// Names may hold the API's own words.
		"/v2/tags/list/manifests/list":         {Kind: KindManifest, Repository: "tags/list", Tag: "list", N: -1},
		"/v2/a/manifests/tags/list":            {Kind: KindTags, Repository: "a/manifests", N: -1},
		"/v2/v2/blobs/blobs/" + string(sha256): {Kind: KindBlob, Repository: "v2/blobs", Digest: sha256, N: -1},
	} {
		r := httptest.NewRequest(http.MethodHead, target, nil)
		r.Host = "node.example:5000"
		want.Head, want.Host = true, "node.example:5000"
		got, err := ParseRequest(r)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", target, diff)
		}
	}
}

func TestMalformedRequestIsRefusedSayingWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	d := string(sha256)
	for _, tc := range []struct {
		target string
		code   errcode.ErrorCode
		status int
		says   string
	}{
		{"/v2/Nginx/manifests/1", errcode.ErrorCodeNameInvalid, 400, "upper-case"},
		{"/v2/manifests/1", errcode.ErrorCodeNameInvalid, 400, "no repository name"},
		{"/v2//manifests/1", errcode.ErrorCodeNameInvalid, 400, "no repository name"},
		{"/v2//a/manifests/1", errcode.ErrorCodeNameInvalid, 400, "slash"},
		{"/v2/a//b/manifests/1", errcode.ErrorCodeNameInvalid, 400, "two slashes in a row"},
		{"/v2/a//manifests/1", errcode.ErrorCodeNameInvalid, 400, "slash"},
		{"/v2/a/manifests//1", errcode.ErrorCodeNameInvalid, 400, "two slashes in a row"},
		{"//v2/a/manifests/1", errcode.ErrorCodeNameInvalid, 400, "two slashes in a row"},
		{"/v2/a/../b/manifests/1", errcode.ErrorCodeNameInvalid, 400, `".."`},
		{"/v2/../a/manifests/1", errcode.ErrorCodeNameInvalid, 400, `".."`},
		{"/v2/a/manifests/../../../etc/passwd", errcode.ErrorCodeNameInvalid, 400, `".."`},
		{"/v2/a/manifests/..", errcode.ErrorCodeTagInvalid, 400, "invalid tag"},
		{"/v2/a/./b/manifests/1", errcode.ErrorCodeNameInvalid, 400, `"."`},
		{"/v2/a..b/manifests/1", errcode.ErrorCodeNameInvalid, 400, "two in a row"},
		{"/v2/-a/manifests/1", errcode.ErrorCodeNameInvalid, 400, "separator at an end"},
		{"/v2/a___b/manifests/1", errcode.ErrorCodeNameInvalid, 400, "two in a row"},
		{"/v2/a:b/manifests/1", errcode.ErrorCodeNameInvalid, 400, "colon"},
		{"/v2/localhost:5000/manifests/1", errcode.ErrorCodeNameInvalid, 400, "colon"},
		{"/v2/a/localhost:5000/manifests/1", errcode.ErrorCodeNameInvalid, 400, "not allowed"},
		{"/v2/localhost:0/a/manifests/1", errcode.ErrorCodeNameInvalid, 400, "colon"},
		{"/v2/localhost:65536/a/manifests/1", errcode.ErrorCodeNameInvalid, 400, "colon"},
		{"/v2/a%20b/manifests/1", errcode.ErrorCodeNameInvalid, 400, "not allowed"},
		{"/v2/a%00/manifests/1", errcode.ErrorCodeNameInvalid, 400, "control character"},
		{"/v2/%C3%A4/manifests/1", errcode.ErrorCodeNameInvalid, 400, "not allowed"},
		{"/v2/a%2Fb/manifests/1", errcode.ErrorCodeNameInvalid, 400, "percent-encoded"},
		{"/v2/%2e%2e/manifests/1", errcode.ErrorCodeNameInvalid, 400, "percent-encoded"},
		{"/v2/a%252Fb/manifests/1", errcode.ErrorCodeNameInvalid, 400, "percent sign"},
		{"/v2/a%25252Fb/manifests/1", errcode.ErrorCodeNameInvalid, 400, "percent sign"},
		{"/v2/localhost%3A5000/a/manifests/1", errcode.ErrorCodeNameInvalid, 400, "percent-encoded"},
		{"/v2/a/manifests/%31", errcode.ErrorCodeNameInvalid, 400, "percent-encoded"},
		{"/v2/a/manifests%2F1", errcode.ErrorCodeNameInvalid, 400, "percent-encoded"},
		{"/%762/a/manifests/1", errcode.ErrorCodeNameInvalid, 400, "percent-encoded"},
		{"/v2/" + strings.Repeat("a", maxName+1) + "/manifests/1", errcode.ErrorCodeNameInvalid, 400, "at most 255"},
		{"/v2/a/manifests/.x", errcode.ErrorCodeTagInvalid, 400, "invalid tag"},
		{"/v2/a/manifests/x+y", errcode.ErrorCodeTagInvalid, 400, "invalid tag"},
		{"/v2/a/manifests/" + strings.Repeat("t", maxTag+1), errcode.ErrorCodeTagInvalid, 400, "at most 128"},
		{"/v2/a/manifests/sha256:abc", errcode.ErrorCodeDigestInvalid, 400, "3 characters"},
		{"/v2/a/manifests/sha256%253A" + hex64, errcode.ErrorCodeTagInvalid, 400, "invalid tag"},
		{"/v2/a/blobs/sha256:" + strings.ToUpper(hex64), errcode.ErrorCodeDigestInvalid, 400, "upper-case"},
		{"/v2/a/blobs/sha256:" + strings.Repeat("g", 64), errcode.ErrorCodeDigestInvalid, 400, "not hexadecimal"},
		{"/v2/a/blobs/sha512:" + hex64, errcode.ErrorCodeDigestInvalid, 400, "not 128"},
		{"/v2/a/blobs/md5:" + hex64, errcode.ErrorCodeDigestInvalid, 400, "algorithm"},
		{"/v2/a/blobs/" + hex64, errcode.ErrorCodeDigestInvalid, 400, "no colon"},
		{"/v2/a/blobs/uploads/a.b", errcode.ErrorCodeBlobUploadUnknown, 404, "no upload"},
		{"/v2/a/blobs/uploads/a%20b", errcode.ErrorCodeBlobUploadUnknown, 404, "no upload"},
		{"/v2/blobs/uploads/", errcode.ErrorCodeUnsupported, 404, "no such endpoint"},
		{"/v2/a/referrers/latest", errcode.ErrorCodeDigestInvalid, 400, "no colon"},
		{"/v2/a/blobs/" + d + "?ns=http://docker.io", errcode.ErrorCodeNameInvalid, 400, "invalid ns"},
		{"/v2/a/blobs/" + d + "?ns=", errcode.ErrorCodeNameInvalid, 400, "invalid ns"},
		{"/v2/a/blobs/" + d + "?ns=a%0d%0ab", errcode.ErrorCodeNameInvalid, 400, "invalid ns"},
		{"/v2/a/blobs/" + d + "?ns=%zz", errcode.ErrorCodeUnsupported, 400, "percent-encoded"},
		{"/v2/a/tags/list?n=-1", errcode.ErrorCodePaginationNumberInvalid, 400, "whole number"},
		{"/v2/a/tags/list?n=ten", errcode.ErrorCodePaginationNumberInvalid, 400, "whole number"},
		{"/v2/a/tags/list?n=", errcode.ErrorCodePaginationNumberInvalid, 400, "whole number"},
		{"/v2/a/tags/list?n=99999999999999999999", errcode.ErrorCodePaginationNumberInvalid, 400, "2147483647"},
		{"/v2/a/tags/list?last=%00", errcode.ErrorCodeUnsupported, 400, "invalid last"},
		{"/v2/a/referrers/" + d + "?artifactType=" + strings.Repeat("x", 256), errcode.ErrorCodeUnsupported, 400, "invalid artifactType"},
		{"/v2/_catalog", errcode.ErrorCodeUnsupported, 404, "no catalog"},
		{"/v2/_catalog?n=5", errcode.ErrorCodeUnsupported, 404, "no catalog"},
		{"/", errcode.ErrorCodeUnsupported, 404, "no such endpoint"},
		{"/v1/repositories", errcode.ErrorCodeUnsupported, 404, "no such endpoint"},
		{"/v2x/a/manifests/1", errcode.ErrorCodeUnsupported, 404, "no such endpoint"},
		{"/v2/a", errcode.ErrorCodeUnsupported, 404, "no such endpoint"},
		{"/v2/a/manifest/1", errcode.ErrorCodeUnsupported, 404, "/v2/<name>/manifests/"},
		{"/v2/a/tags/lists", errcode.ErrorCodeUnsupported, 404, "no such endpoint"},
		{"/v2/a/manifests/", errcode.ErrorCodeUnsupported, 404, "ends in a slash"},
		{"/v2/a/manifests/1/", errcode.ErrorCodeUnsupported, 404, "ends in a slash"},
		{"/v2/a/tags/list/", errcode.ErrorCodeUnsupported, 404, "ends in a slash"},
		{"/v2/a/blobs/uploads/x/", errcode.ErrorCodeUnsupported, 404, "ends in a slash"},
	} {
		u, err := url.ParseRequestURI(tc.target)
		if err != nil {
			t.Fatalf("%s cannot be sent: %v", tc.target, err)
		}
		_, err = ParseRequest(&http.Request{Method: http.MethodGet, URL: u})
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: error %v, want an *Error", tc.target, err)
			continue
		}
		if e.Code != tc.code || e.StatusCode() != tc.status || !strings.Contains(e.Message, tc.says) {
			t.Errorf("%s: %v %d %q, want %v %d saying %q", tc.target, e.Code, e.StatusCode(), e.Message, tc.code, tc.status, tc.says)
		}
		if len(e.Message) > 500 {
			t.Errorf("%s: the message has %d bytes", tc.target, len(e.Message))
		}
	}
}

func TestNamespaceIsUnderstoodEvenWhereThePathIsWrong(t *testing.T) {
	t.Parallel()
	req, err := parse("/v2/A/manifests/x", "", "ns=quay.io")
	if err == nil || req.Namespace != "quay.io" {
		t.Errorf("namespace %q, error %v", req.Namespace, err)
	}
}

func TestParsingAllocatesNothing(t *testing.T) {
	for _, target := range []string{
		"/v2/docker.io/library/nginx/manifests/1.29",
		"/v2/localhost:5000/nginx/blobs/" + string(sha256) + "?ns=docker.io",
		"/v2/library/nginx/blobs/sha256%3A" + hex64,
		"/v2/library/nginx/tags/list?n=100&last=1.0",
	} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := ParseRequest(r); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", target, n)
		}
	}
}

// anchored makes a grammar match whole strings.
func anchored(grammar *regexp.Regexp) *regexp.Regexp {
	return regexp.MustCompile("^(?:" + grammar.String() + ")$")
}

// FuzzParse holds the parser to two promises: whatever it takes is written
// back as the same path, and names, tags and digests are what the public
// grammars of the field call so.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"/v2/", "/v2/a/manifests/latest", "/v2/a/b/blobs/" + string(sha256) + "?ns=docker.io",
		"/v2/localhost:5000/a/tags/list?n=1&last=x", "/v2/a/referrers/sha256%3A" + hex64 + "?artifactType=a/b",
		"/v2/a%2fb/manifests/x", "/v2/../manifests/x", "/v2/[::1]/a/manifests/x", "/v2/_catalog",
		"/v2/a/blobs/" + string(sha512), "/v2/a--b.c__d/manifests/A_.-",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		req, err := parse(u.Path, u.RawPath, u.RawQuery)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Message == "" || e.StatusCode() < 400 || e.StatusCode() >= 500 {
				t.Fatalf("%q: error %#v", target, err)
			}
			return
		}
		if got := req.Path(); got != u.Path && u.Path != "/v2" {
			t.Fatalf("%q is written back as %q", u.Path, got)
		}
		again, err := parse(req.Path(), "", u.RawQuery)
		if err != nil || again != req {
			t.Fatalf("%q parses again as %+v, %v; first %+v", target, again, err, req)
		}
		if req.Repository != "" && !anchored(reference.NameRegexp).MatchString(req.Repository) {
			t.Fatalf("repository %q", req.Repository)
		}
		if req.Tag != "" && !anchored(reference.TagRegexp).MatchString(req.Tag) {
			t.Fatalf("tag %q", req.Tag)
		}
		if req.Digest != "" && req.Digest.Validate() != nil {
			t.Fatalf("digest %q", req.Digest)
		}
		if req.Namespace != "" && !anchored(reference.DomainRegexp).MatchString(req.Namespace) {
			t.Fatalf("namespace %q", req.Namespace)
		}
		if (req.Repository == "") != (req.Kind == KindBase) || req.Tag != "" && req.Digest != "" {
			t.Fatalf("%q: %+v", target, req)
		}
	})
}
