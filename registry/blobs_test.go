package registry

import (
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	blobTarget = "/v2/a/blobs/sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	alphabet   = "abcdefghijklmnopqrstuvwxyz"
)

func alphabetHandler() *Handler {
	return NewHandler(Config{Backend: &fakeBackend{blob: blobOf(int64(len(alphabet)), &memory{bytes: []byte(alphabet)})}})
}

func TestBlobIsServedWhole(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		resp := ask(t, alphabetHandler(), method, blobTarget, http.Header{"Accept-Encoding": {"gzip, zstd"}})
		want := alphabet
		if method == http.MethodHead {
			want = ""
		}
		if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != want {
			t.Errorf("%s: %d %q", method, resp.StatusCode, got)
		}
		wantHeader(t, resp, map[string]string{
			"Content-Type": "application/octet-stream", "Content-Length": "26", "Accept-Ranges": "bytes",
			"Docker-Content-Digest": string(sha256), "ETag": `"` + string(sha256) + `"`, "Cache-Control": immutable,
			"Content-Encoding": "", "Content-Range": "", "Last-Modified": "", "X-Content-Type-Options": "nosniff",
		})
	}
}

func TestBlobSaysWhatTheBackendKnowsOfIt(t *testing.T) {
	t.Parallel()
	modified := time.Date(2026, 11, 23, 1, 2, 3, 400, time.FixedZone("", 3600))
	h := NewHandler(Config{Backend: &fakeBackend{blob: func(req *Request) Blob {
		return Blob{Digest: req.Digest, Size: 26, MediaType: "application/x-tar", Modified: modified}
	}}})
	wantHeader(t, ask(t, h, http.MethodHead, blobTarget, nil), map[string]string{
		"Content-Type": "application/x-tar", "Last-Modified": "Mon, 23 Nov 2026 00:02:03 GMT",
	})
}

func TestContentIsClosed(t *testing.T) {
	t.Parallel()
	for _, header := range []http.Header{nil, {"Range": {"bytes=99-"}}, {"If-None-Match": {"*"}}} {
		closed := false
		h := NewHandler(Config{Backend: &fakeBackend{blob: blobOf(26, &memory{bytes: []byte(alphabet), closed: &closed})}})
		ask(t, h, http.MethodGet, blobTarget, header)
		if !closed {
			t.Errorf("with %v the content stays open", header)
		}
	}
}

func TestRangesOfABlob(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		header       string
		status       int
		body         string
		contentRange string
	}{
		{"bytes=0-4", 206, "abcde", "bytes 0-4/26"},
		{"bytes=23-", 206, "xyz", "bytes 23-25/26"},
		{"bytes=-3", 206, "xyz", "bytes 23-25/26"},
		{"bytes=-99", 206, alphabet, "bytes 0-25/26"},
		{"bytes=24-26", 206, "yz", "bytes 24-25/26"},
		{"bytes=0-", 206, alphabet, "bytes 0-25/26"},
		{"bytes=1-2,99-", 206, "bc", "bytes 1-2/26"},
		{"bytes=x", 200, alphabet, ""},
		{"lines=1-2", 200, alphabet, ""},
		{"bytes=0-25,0-25", 200, alphabet, ""},
		{"bytes=" + strings.Repeat("0-0,", 1000), 200, alphabet, ""},
	} {
		resp := ask(t, alphabetHandler(), http.MethodGet, blobTarget, http.Header{"Range": {tc.header}})
		if got := bodyOf(t, resp); resp.StatusCode != tc.status || got != tc.body {
			t.Errorf("%.30s: %d %q, want %d %q", tc.header, resp.StatusCode, got, tc.status, tc.body)
		}
		wantHeader(t, resp, map[string]string{
			"Content-Range": tc.contentRange, "Content-Length": strconv.Itoa(len(tc.body)),
			"Accept-Ranges": "bytes", "ETag": `"` + string(sha256) + `"`,
		})
	}
	twice := ask(t, alphabetHandler(), http.MethodGet, blobTarget, http.Header{"Range": {"bytes=0-1", "bytes=2-3"}})
	if twice.StatusCode != http.StatusOK {
		t.Errorf("two Range headers: %d", twice.StatusCode)
	}
	head := ask(t, alphabetHandler(), http.MethodHead, blobTarget, http.Header{"Range": {"bytes=0-1"}})
	if head.StatusCode != http.StatusOK {
		t.Errorf("HEAD with a range: %d", head.StatusCode)
	}
	wantHeader(t, head, map[string]string{"Content-Length": "26"})
}

func TestRangeOutsideABlobIsRefusedWithItsSize(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"bytes=26-", "bytes=500-600", "bytes=-0", "bytes=5-0", "bytes=99-,100-"} {
		resp := ask(t, alphabetHandler(), http.MethodGet, blobTarget, http.Header{"Range": {header}})
		if code, message := told(t, resp); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable || code != "RANGE_INVALID" || !strings.Contains(message, "26 bytes") {
			t.Errorf("%s: %d %s %s", header, resp.StatusCode, code, message)
		}
		wantHeader(t, resp, map[string]string{"Content-Range": "bytes */26"})
	}
}

func TestSeveralRangesAreAMultipartBodyOfKnownLength(t *testing.T) {
	t.Parallel()
	resp := ask(t, alphabetHandler(), http.MethodGet, blobTarget, http.Header{"Range": {"bytes=0-1,5-6,-1"}})
	content := bodyOf(t, resp)
	if resp.StatusCode != http.StatusPartialContent || resp.Header.Get("Content-Length") != strconv.Itoa(len(content)) {
		t.Fatalf("%d, Content-Length %s, body %d", resp.StatusCode, resp.Header.Get("Content-Length"), len(content))
	}
	wantHeader(t, resp, map[string]string{"Content-Range": ""})
	mediaType, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/byteranges" {
		t.Fatalf("Content-Type %s, %v", mediaType, err)
	}
	parts := multipart.NewReader(strings.NewReader(content), params["boundary"])
	for _, want := range []struct{ contentRange, body string }{
		{"bytes 0-1/26", "ab"}, {"bytes 5-6/26", "fg"}, {"bytes 25-25/26", "z"},
	} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(part)
		if err != nil || string(got) != want.body || part.Header.Get("Content-Range") != want.contentRange ||
			part.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("part %q with %v, %v; want %v", got, part.Header, err, want)
		}
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("after the last part: %v", err)
	}
}

func TestConditionsOnABlob(t *testing.T) {
	t.Parallel()
	const date, later, earlier = "Mon, 23 Nov 2026 10:00:00 GMT", "Mon, 23 Nov 2026 10:00:01 GMT", "Mon, 23 Nov 2026 09:59:59 GMT"
	etag := `"` + string(sha256) + `"`
	modified := time.Date(2026, 11, 23, 10, 0, 0, 999, time.UTC)
	h := NewHandler(Config{Backend: &fakeBackend{blob: func(req *Request) Blob {
		return Blob{Digest: req.Digest, Size: 26, Modified: modified, Content: &memory{bytes: []byte(alphabet)}}
	}}})
	for _, tc := range []struct {
		header http.Header
		status int
	}{
		{http.Header{"If-None-Match": {etag}}, 304},
		{http.Header{"If-None-Match": {etag}, "Range": {"bytes=0-1"}}, 304},
		{http.Header{"If-None-Match": {`"x"`}, "Range": {"bytes=0-1"}}, 206},
		{http.Header{"If-None-Match": {`"x"`}, "If-Modified-Since": {later}}, 200},
		{http.Header{"If-Modified-Since": {date}}, 304},
		{http.Header{"If-Modified-Since": {earlier}}, 200},
		{http.Header{"If-Modified-Since": {"yesterday"}}, 200},
		{http.Header{"If-Unmodified-Since": {date}}, 200},
		{http.Header{"If-Unmodified-Since": {earlier}}, 412},
		{http.Header{"If-Match": {etag}, "If-Unmodified-Since": {earlier}}, 200},
		{http.Header{"If-Match": {`"x"`}}, 412},
		{http.Header{"If-Match": {`"x", ` + etag}, "Range": {"bytes=0-1"}}, 206},
		{http.Header{"If-Range": {etag}, "Range": {"bytes=0-1"}}, 206},
		{http.Header{"If-Range": {"W/" + etag}, "Range": {"bytes=0-1"}}, 200},
		{http.Header{"If-Range": {`"x"`}, "Range": {"bytes=0-1"}}, 200},
		{http.Header{"If-Range": {`"x"`}, "Range": {"bytes=99-"}}, 200},
		{http.Header{"If-Range": {date}, "Range": {"bytes=0-1"}}, 206},
		{http.Header{"If-Range": {later}, "Range": {"bytes=0-1"}}, 200},
		{http.Header{"If-Range": {earlier}, "Range": {"bytes=0-1"}}, 200},
		{http.Header{"If-Range": {string(sha256)}, "Range": {"bytes=0-1"}}, 200},
	} {
		resp := ask(t, h, http.MethodGet, blobTarget, tc.header)
		if resp.StatusCode != tc.status {
			t.Errorf("%v: %d, want %d", tc.header, resp.StatusCode, tc.status)
		}
		wantHeader(t, resp, map[string]string{"ETag": etag, "Last-Modified": date})
	}
}

func TestEmptyBlobIsSentWholeWhateverTheRange(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{Backend: &fakeBackend{blob: blobOf(0, &memory{})}})
	for _, header := range []http.Header{nil, {"Range": {"bytes=0-"}}, {"Range": {"bytes=-1"}}} {
		resp := ask(t, h, http.MethodGet, blobTarget, header)
		if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != "" {
			t.Errorf("%v: %d %q", header, resp.StatusCode, got)
		}
		wantHeader(t, resp, map[string]string{"Content-Length": "0"})
	}
}

func TestRedirectIsNotKept(t *testing.T) {
	t.Parallel()
	const location = "https://bucket.example/data?X-Amz-Signature=1"
	h := NewHandler(Config{Backend: &fakeBackend{blob: func(req *Request) Blob {
		return Blob{Digest: req.Digest, Size: -1, Redirect: location}
	}}})
	resp := ask(t, h, http.MethodGet, blobTarget, http.Header{"Range": {"bytes=0-1"}})
	if got := bodyOf(t, resp); resp.StatusCode != http.StatusTemporaryRedirect || got != "" {
		t.Errorf("%d %q", resp.StatusCode, got)
	}
	wantHeader(t, resp, map[string]string{"Location": location, "Cache-Control": "no-store", "Docker-Content-Digest": string(sha256)})
}

func TestBlobOfUnknownSizeIsServedWholeAndOnlyWhereItsEndCanBeTold(t *testing.T) {
	t.Parallel()
	h := NewHandler(Config{Backend: &fakeBackend{blob: blobOf(-1, &memory{bytes: []byte(alphabet)})}})
	resp := ask(t, h, http.MethodGet, blobTarget, http.Header{"Range": {"bytes=0-1"}})
	if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != alphabet {
		t.Errorf("%d %q", resp.StatusCode, got)
	}
	wantHeader(t, resp, map[string]string{"Content-Length": "", "Accept-Ranges": ""})

	old := newRequest(http.MethodGet, blobTarget)
	old.Proto, old.ProtoMinor = "HTTP/1.0", 0
	resp = serve(h, old)
	if code, _ := told(t, resp); resp.StatusCode != http.StatusHTTPVersionNotSupported || code != "UNSUPPORTED" {
		t.Errorf("HTTP/1.0: %d %s", resp.StatusCode, code)
	}
}
