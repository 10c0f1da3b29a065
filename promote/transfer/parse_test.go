package transfer

import (
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-3": 0, "soon": 0, "1.5": 0,
		"Mon, 23 Nov 2026 12:01:30 GMT": 90 * time.Second,
		"Mon, 23 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := parseRetryAfter(text, now); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
	if got := parseRetryAfter("9223372036854775807", now); got < time.Hour {
		t.Errorf("a very long pause is %v", got)
	}
}

func TestNextLink(t *testing.T) {
	for _, test := range []struct {
		headers []string
		want    string
	}{
		{nil, ""},
		{[]string{`</v2/app/tags/list?last=b&n=2>; rel="next"`}, "/v2/app/tags/list?last=b&n=2"},
		{[]string{`<a>; rel=prev, <b>; title="x"; rel=NEXT`}, "b"},
		{[]string{`<a>; rel="prev"`, `<b>;rel="next"`}, "b"},
		{[]string{`<a>`}, ""},
		{[]string{`a; rel="next"`}, ""},
		{[]string{`<a; rel="next"`}, ""},
	} {
		if got := nextLink(test.headers); got != test.want {
			t.Errorf("%q: %q, want %q", test.headers, got, test.want)
		}
	}
}

func TestParseUploadRange(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "0-0": 0, "0-99": 100, "bytes=0-99": 100, "1-2": -1, "0-": -1, "0--5": -1, "0-9223372036854775807": -1} {
		got, ok := parseUploadRange(text)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

func TestParseRefWantsTheHostSpeltOut(t *testing.T) {
	d := digest.FromString("x")
	for text, want := range map[string]Ref{
		"registry.k8s.io/pause:3.10":                 {Repository: Repository{"registry.k8s.io", "pause"}, Tag: "3.10"},
		"127.0.0.1:5000/a/b":                         {Repository: Repository{"127.0.0.1:5000", "a/b"}},
		"localhost/a@" + d.String():                  {Repository: Repository{"localhost", "a"}, Digest: d},
		"gcr.io/a/b:v1@" + d.String():                {Repository: Repository{"gcr.io", "a/b"}, Tag: "v1", Digest: d},
		"europe-west1-docker.pkg.dev/k8s/images/x:y": {Repository: Repository{"europe-west1-docker.pkg.dev", "k8s/images/x"}, Tag: "y"},
	} {
		if got, err := ParseRef(text); err != nil || got != want || got.String() != text {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "pause", "library/pause", "gcr.io", "gcr.io/", "gcr.io/UPPER", "gcr.io/a:", "gcr.io/a@sha256:12", "https://gcr.io/a", "gcr.io/../a"} {
		if got, err := ParseRef(text); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	for _, text := range []string{`</v2/a?n=1>; rel="next"`, "bytes 0-1/2", "0-99", "sha-256=:AA==:", "Mon, 23 Nov 2026 12:01:30 GMT", "17"} {
		f.Add(text)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		_ = nextLink([]string{text, text})
		if start, total, ok := parseContentRange(text); ok && (start < 0 || total >= 0 && start >= total) {
			t.Errorf("%q: byte %d of %d", text, start, total)
		}
		if n, ok := parseUploadRange(text); ok && n < 0 {
			t.Errorf("%q: %d bytes", text, n)
		}
		if d, ok := parseReprDigest([]string{text}); ok {
			if again, _ := parseReprDigest([]string{formatReprDigest(d)}); d.Validate() != nil || again != d {
				t.Errorf("%q: %q, then %q", text, d, again)
			}
		}
		if parseRetryAfter(text, now) < 0 {
			t.Errorf("%q: a pause that is over", text)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	d := digest.FromString("x")
	f.Add("application/vnd.oci.image.index.v1+json", []byte(`{"manifests":[{"digest":"`+d.String()+`","size":1}]}`))
	f.Add("application/vnd.oci.image.manifest.v1+json", []byte(`{"config":{"digest":"`+d.String()+`","size":1},"layers":[{"urls":["x"]}],"subject":{}}`))
	f.Add("", []byte(`{"config":{},"manifests":[]}`))
	f.Add("text/plain", []byte(`[]`))
	f.Fuzz(func(t *testing.T, contentType string, content []byte) {
		m, err := parseManifest(digest.FromBytes(content), contentType, content)
		if err != nil {
			if !errors.Is(err, ErrUnsupported) {
				t.Errorf("error without a kind: %v", err)
			}
			return
		}
		if m.MediaType == "" || m.Size != int64(len(content)) {
			t.Errorf("manifest %+v", m.Descriptor)
		}
		for _, below := range append(m.children, m.blobs...) {
			if below.Digest.Validate() != nil || below.Size < 0 {
				t.Errorf("names %+v", below)
			}
		}
		if isIndexType(m.MediaType) && len(m.blobs) > 0 || !isIndexType(m.MediaType) && len(m.children) > 0 {
			t.Errorf("%s has %d manifests and %d blobs", m.MediaType, len(m.children), len(m.blobs))
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, text := range []string{"registry.k8s.io/pause:3.10", "a/../b", "v1/tool", "localhost:1/x@sha256:12"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if ref, err := ParseRef(text); err == nil {
			if again, err := ParseRef(ref.String()); err != nil || again != ref {
				t.Errorf("%q: %+v, then %+v, %v", text, ref, again, err)
			}
		}
		_ = checkFileName(text)
	})
}
