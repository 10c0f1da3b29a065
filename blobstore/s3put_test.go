package blobstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
	"entrepot/e2e/testenv"
)

func everything() minio.ListObjectsOptions { return minio.ListObjectsOptions{Recursive: true} }

// wantEmptyBucket checks that a bucket holds neither objects nor the parts of
// unfinished uploads.
func wantEmptyBucket(t *testing.T, server *testenv.S3Server, cfg blobstore.S3Config, key string) {
	t.Helper()
	client := server.Client(t)
	for object := range client.ListObjectsIter(t.Context(), cfg.Bucket, everything()) {
		t.Errorf("left behind: %s, %d bytes %v", object.Key, object.Size, object.Err)
	}
	// MinIO lists the uploads of an exact key only.
	uploads, err := minio.Core{Client: client}.ListMultipartUploads(t.Context(), cfg.Bucket, key, "", "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, upload := range uploads.Uploads {
		t.Errorf("left behind: upload %s of %s", upload.UploadID, upload.Key)
	}
}

func TestS3FailedMultipartUploadLeavesNothing(t *testing.T) {
	const partSize = 5 << 20
	b := randomBytes(2*partSize + 1000)
	d := digest.FromBytes(b)
	wrong := bytes.Clone(b)
	wrong[len(wrong)-1] ^= 1
	broken := errors.New("upstream broke")
	onS3Servers(t, func(t *testing.T, server *testenv.S3Server) {
		cfg := s3Config(server, server.NewBucket(t))
		var uploads startedUploads
		cfg.PartSize, cfg.Transport = partSize, &uploads
		s := openS3(t, cfg)
		key := "blobs/sha256/" + d.Encoded()[:2] + "/" + d.Encoded() + "/data"
		ctx, cancel := context.WithCancel(t.Context())
		cancelling := readFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF })
		for _, c := range []struct {
			name string
			ctx  context.Context
			size int64
			r    io.Reader
			want error
		}{
			{"wrong last byte", t.Context(), int64(len(b)), onlyReader{bytes.NewReader(wrong)}, blobstore.ErrDigestMismatch},
			{"wrong last byte, size unknown", t.Context(), -1, onlyReader{bytes.NewReader(wrong)}, blobstore.ErrDigestMismatch},
			{"a byte less", t.Context(), int64(len(b)), onlyReader{bytes.NewReader(b[:len(b)-1])}, blobstore.ErrSizeMismatch},
			{"a byte more", t.Context(), int64(len(b)) - 1, onlyReader{bytes.NewReader(b)}, blobstore.ErrSizeMismatch},
			{"reader breaks", t.Context(), -1, io.MultiReader(bytes.NewReader(b[:partSize+5]), iotest.ErrReader(broken)), broken},
			{"cut body", t.Context(), -1, io.MultiReader(bytes.NewReader(b[:partSize+5]), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
			{"cancelled", ctx, -1, io.MultiReader(bytes.NewReader(b[:partSize+5]), cancelling, bytes.NewReader(b[partSize+5:])), context.Canceled},
		} {
			before := uploads.Load()
			if err := s.Put(c.ctx, d, c.size, c.r); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
			if uploads.Load() != before+1 {
				t.Errorf("%s: %d uploads were started, want 1: the case tests nothing", c.name, uploads.Load()-before)
			}
			wantEmptyBucket(t, server, cfg, key)
		}

		before := uploads.Load()
		if err := s.Put(t.Context(), d, -1, bytes.NewReader(wrong)); !errors.Is(err, blobstore.ErrDigestMismatch) {
			t.Errorf("Put of wrong bytes that can be read twice: %v, want ErrDigestMismatch", err)
		}
		if uploads.Load() != before {
			t.Error("wrong bytes that can be read twice were sent")
		}
		wantEmptyBucket(t, server, cfg, key)

		for name, r := range map[string]io.Reader{"stream": onlyReader{bytes.NewReader(b)}, "file": fileOf(t, b)} {
			if err := s.Put(t.Context(), d, -1, r); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			rc, _, err := s.Open(t.Context(), d, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(rc)
			if err := errors.Join(err, rc.Close()); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s: %d other bytes, %v", name, len(got), err)
			}
			if err := s.Delete(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// startedUploads counts the multipart uploads that were started.
type startedUploads struct{ atomic.Int64 }

func (u *startedUploads) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost && r.URL.Query().Has("uploads") {
		u.Add(1)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// onlyReader hides that its reader can seek.
type onlyReader struct{ io.Reader }

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// fileOf is a file of content, at a place that is not its start.
func fileOf(t *testing.T, content []byte) *os.File {
	t.Helper()
	const before = "before the content"
	name := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(name, append([]byte(before), content...), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if _, err := file.Seek(int64(len(before)), io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return file
}

// breaking fails the first PUT after it has read some of its body.
type breaking struct {
	puts atomic.Int64
}

func (b *breaking) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPut || b.puts.Add(1) > 1 {
		return http.DefaultTransport.RoundTrip(r)
	}
	_, err := io.CopyN(io.Discard, r.Body, 100)
	return nil, errors.Join(errors.New("connection reset by peer"), err)
}

func TestS3SendsAgainWhatAConnectionLost(t *testing.T) {
	b := randomBytes(6 << 20)
	d := digest.FromBytes(b)
	server := testenv.StartMinIO(t)
	for name, size := range map[string]int{"one request": 1 << 20, "parts": 6 << 20} {
		for kind, reader := range map[string]io.Reader{"file": fileOf(t, b[:size]), "stream": onlyReader{bytes.NewReader(b[:size])}} {
			t.Run(name+" of a "+kind, func(t *testing.T) {
				var transport breaking
				cfg := s3Config(server, server.NewBucket(t))
				cfg.Transport, cfg.PartSize = &transport, 5<<20
				s := openS3(t, cfg)
				d := d
				if size != len(b) {
					d = digest.FromBytes(b[:size])
				}
				if err := s.Put(t.Context(), d, int64(size), reader); err != nil {
					t.Fatal(err)
				}
				if transport.puts.Load() < 2 {
					t.Error("no connection was lost: the case tests nothing")
				}
				if info, err := s.Stat(t.Context(), d); err != nil || info.Size != int64(size) {
					t.Errorf("Stat = %+v, %v", info, err)
				}
			})
		}
	}
}

// refusing answers the first PUT with an error, as versitygw does when a
// folder that it made for the object was removed with the last one in it.
type refusing struct {
	puts atomic.Int64
}

func (f *refusing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPut || f.puts.Add(1) > 1 {
		return http.DefaultTransport.RoundTrip(r)
	}
	const body = "<Error><Code>ExistingObjectIsDirectory</Code><Message>Existing Object is a directory.</Message></Error>"
	_, err := io.Copy(io.Discard, r.Body)
	return &http.Response{
		StatusCode: http.StatusConflict, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/xml"}},
		Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}, err
}

func TestS3WritesAgainWhatCollidedWithTheRemovalOfItsFolder(t *testing.T) {
	server := testenv.StartMinIO(t)
	var transport refusing
	cfg := s3Config(server, server.NewBucket(t))
	cfg.Transport = &transport
	s := openS3(t, cfg)
	if err := s.PutRecord(t.Context(), "tags/a", []byte("value")); err != nil {
		t.Fatal(err)
	}
	if transport.puts.Load() != 2 {
		t.Errorf("the record was put %d times, want twice", transport.puts.Load())
	}
	if value, err := s.Record(t.Context(), "tags/a"); err != nil || string(value) != "value" {
		t.Errorf("the record is %q, %v", value, err)
	}
}

// silent answers no request, or no more of one, until the request is over.
type silent struct{ after http.RoundTripper }

func (s silent) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.after == nil {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	response, err := s.after.RoundTrip(r)
	if err == nil && r.Method == http.MethodGet {
		body, stall := response.Body, readFunc(func([]byte) (int, error) {
			<-r.Context().Done()
			return 0, r.Context().Err()
		})
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(body, 3), stall), body}
	}
	return response, err
}

func TestS3StalledServerIsAnErrorThatIsNoCancelling(t *testing.T) {
	server := testenv.StartVersityGW(t)
	cfg := s3Config(server, server.NewBucket(t))
	d := digest.FromString("content")
	if err := openS3(t, cfg).Put(t.Context(), d, -1, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	want := func(what string, err error) {
		t.Helper()
		if err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "did nothing for") {
			t.Errorf("%s: %v, want that S3 did nothing", what, err)
		}
	}
	cfg.Timeout, cfg.Transport = 100*time.Millisecond, silent{}
	s := openS3(t, cfg)
	_, err := s.Stat(t.Context(), d)
	want("Stat", err)
	_, _, err = s.Open(t.Context(), d, 0, -1)
	want("Open", err)
	want("Put", s.Put(t.Context(), digest.FromString("x"), 1, strings.NewReader("x")))
	want("PutRecord", s.PutRecord(t.Context(), "a", nil))
	for _, err := range s.Blobs(t.Context()) {
		want("Blobs", err)
	}

	cfg.Timeout, cfg.Transport = time.Second, silent{http.DefaultTransport}
	r, _, err := openS3(t, cfg).Open(t.Context(), d, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	want("reading", err)
	if string(got) != "con" {
		t.Errorf("read %q before the stall", got)
	}
}

// A 200 MiB stream is stored within the memory of a few parts.
func TestS3StoresLargeStreamsInBoundedMemory(t *testing.T) {
	const size, allowed = 200 << 20, 32 << 20 // bytes
	server := testenv.StartVersityGW(t)
	s := openS3(t, s3Config(server, server.NewBucket(t)))
	pattern := func() io.Reader { return io.LimitReader(zeroReader{}, size) }
	d, err := digest.FromReader(pattern())
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.Put(t.Context(), d, -1, pattern()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > allowed {
		t.Errorf("Put of %d bytes allocated %d, want at most %d", size, took, allowed)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
