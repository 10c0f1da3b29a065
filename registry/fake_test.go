package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBackend answers from its fields, whatever the request.
type fakeBackend struct {
	manifest  *Manifest
	blob      func(req *Request) Blob
	tags      []string
	more      bool
	referrers []ocispec.Descriptor
	cs        CacheStatus
	err       error
	asked     func(ctx context.Context, req *Request) // when set, sees each request
}

func (f *fakeBackend) see(ctx context.Context, req *Request) {
	if f.asked != nil {
		f.asked(ctx, req)
	}
}

func (f *fakeBackend) Manifest(ctx context.Context, req *Request) (*Manifest, CacheStatus, error) {
	f.see(ctx, req)
	return f.manifest, f.cs, f.err
}

func (f *fakeBackend) Blob(ctx context.Context, req *Request) (Blob, CacheStatus, error) {
	f.see(ctx, req)
	if f.err != nil {
		return Blob{}, f.cs, f.err
	}
	return f.blob(req), f.cs, nil
}

func (f *fakeBackend) Tags(ctx context.Context, req *Request) ([]string, bool, CacheStatus, error) {
	f.see(ctx, req)
	return f.tags, f.more, f.cs, f.err
}

func (f *fakeBackend) Referrers(ctx context.Context, req *Request) ([]ocispec.Descriptor, CacheStatus, error) {
	f.see(ctx, req)
	return f.referrers, f.cs, f.err
}

// memory is content that is all there, unless told otherwise.
type memory struct {
	bytes    []byte
	notReady bool
	failAt   int64 // offset at which reading fails; 0 means never, negative at once
	gate     chan struct{}
	closed   *bool
}

var errBroken = errors.New("the disk is on fire")

func (m *memory) WriteRange(ctx context.Context, w io.Writer, offset, length int64) (int64, error) {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	if m.failAt < 0 {
		return 0, errBroken
	}
	p := m.bytes[offset:]
	if length >= 0 && length < int64(len(p)) {
		p = p[:length]
	}
	var broken error
	if m.failAt > 0 && offset+int64(len(p)) > m.failAt {
		p, broken = p[:m.failAt-offset], errBroken
	}
	n, err := w.Write(p)
	return int64(n), errors.Join(err, broken)
}

func (m *memory) Ready(int64, int64) bool { return !m.notReady }

func (m *memory) Close() error {
	if m.closed != nil {
		*m.closed = true
	}
	return nil
}

// blobOf answers every blob request with content of the given size; HEAD gets
// none.
func blobOf(size int64, content Content) func(*Request) Blob {
	return func(req *Request) Blob {
		b := Blob{Digest: req.Digest, Size: size}
		if !req.Head {
			b.Content = content
		}
		return b
	}
}

func manifestOf(mediaType, body string) *Manifest {
	return &Manifest{
		ManifestHead: NewManifestHead(mediaType, digest.FromString(body), int64(len(body))),
		Body:         []byte(body),
	}
}

// ask sends a request to a handler, without a connection.
func ask(t *testing.T, h http.Handler, method, target string, header http.Header) *http.Response {
	t.Helper()
	r := newRequest(method, target)
	maps.Copy(r.Header, header)
	return serve(h, r)
}

func newRequest(method, target string) *http.Request { return httptest.NewRequest(method, target, nil) }

func serve(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the body: %v", err)
	}
	return string(b)
}

// told is the error that a response tells.
func told(t *testing.T, resp *http.Response) (code, message string) {
	t.Helper()
	var e struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	b := bodyOf(t, resp)
	if err := json.Unmarshal([]byte(b), &e); err != nil || len(e.Errors) != 1 {
		t.Fatalf("not an OCI error: %q, %v", b, err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type of an error is %q", got)
	}
	return e.Errors[0].Code, e.Errors[0].Message
}

// wantHeader checks headers; a value of "" means that it must not be there.
func wantHeader(t *testing.T, resp *http.Response, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if got := resp.Header.Values(k); v == "" && len(got) != 0 || v != "" && (len(got) != 1 || got[0] != v) {
			t.Errorf("%s is %q, want %q", k, got, v)
		}
	}
}
