package blobstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
	"entrepot/blobstore/storetest"
	"entrepot/e2e/testenv"
)

// s3Config is the configuration of a store in a bucket of the server.
func s3Config(server *testenv.S3Server, bucket string) blobstore.S3Config {
	return blobstore.S3Config{
		Endpoint: server.Endpoint, Bucket: bucket, Region: server.Region,
		AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	}
}

func openS3(t *testing.T, cfg blobstore.S3Config) *blobstore.S3 {
	t.Helper()
	s, err := blobstore.OpenS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// randomBytes is n bytes that are the same each time.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // documented to return no error
	return b
}

// onS3Servers runs a test against each S3 server.
func onS3Servers(t *testing.T, test func(t *testing.T, server *testenv.S3Server)) {
	t.Helper()
	for _, server := range testenv.S3Servers() {
		t.Run(server.Name, func(t *testing.T) { test(t, server.Start(t)) })
	}
}

func TestS3PassesTheSuite(t *testing.T) {
	onS3Servers(t, func(t *testing.T, server *testenv.S3Server) {
		storetest.Run(t, func(t *testing.T) storetest.Store {
			cfg := s3Config(server, server.NewBucket(t))
			cfg.Prefix = "/mirrors/one/"
			return openS3(t, cfg)
		})
	})
}

// counter counts requests on their way to the server.
type counter struct {
	mu       sync.Mutex
	requests []string // method, path and Range
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.requests = append(c.requests, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Range")))
	c.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

// take returns what was counted, and counts anew.
func (c *counter) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.requests
	c.requests = nil
	return taken
}

func TestS3ReadsWithOneRequest(t *testing.T) {
	onS3Servers(t, func(t *testing.T, server *testenv.S3Server) {
		var requests counter
		cfg := s3Config(server, server.NewBucket(t))
		cfg.Transport = &requests
		s := openS3(t, cfg)
		b := randomBytes(1000)
		d := digest.FromBytes(b)
		empty := digest.FromString("")
		key := func(d digest.Digest) string {
			return "/" + cfg.Bucket + "/blobs/sha256/" + d.Encoded()[:2] + "/" + d.Encoded() + "/data"
		}
		for d, b := range map[digest.Digest][]byte{d: b, empty: nil} {
			if err := s.Put(t.Context(), d, int64(len(b)), bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
			if got, want := requests.take(), []string{"HEAD " + key(d), "PUT " + key(d)}; !slices.Equal(got, want) {
				t.Errorf("Put asked %q, want %q: nothing for the bucket's location", got, want)
			}
		}
		for _, c := range []struct {
			d              digest.Digest
			offset, length int64
			want           []byte
			asked          []string
		}{
			{d, 0, -1, b, []string{"GET " + key(d)}},
			{d, 0, 10, b[:10], []string{"GET " + key(d) + " bytes=0-9"}},
			{d, 10, 20, b[10:30], []string{"GET " + key(d) + " bytes=10-29"}},
			{d, 10, -1, b[10:], []string{"GET " + key(d) + " bytes=10-"}},
			{d, 10, 1<<63 - 1, b[10:], []string{"GET " + key(d) + " bytes=10-"}},
			{d, 990, 20, b[990:], []string{"GET " + key(d) + " bytes=990-1009"}},
			{d, 5, 0, nil, []string{"HEAD " + key(d)}},
			{empty, 0, -1, nil, []string{"GET " + key(empty)}},
			// Only these two take a second request: the answer to the first
			// does not say how large the blob is.
			{d, 1000, -1, nil, []string{"GET " + key(d) + " bytes=1000-", "HEAD " + key(d)}},
			{empty, 0, 1, nil, []string{"GET " + key(empty) + " bytes=0-0", "HEAD " + key(empty)}},
		} {
			r, info, err := s.Open(t.Context(), c.d, c.offset, c.length)
			if err != nil {
				t.Errorf("Open(%d, %d): %v", c.offset, c.length, err)
				continue
			}
			got, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("Open(%d, %d) gives %d bytes, %v; want %d", c.offset, c.length, len(got), err, len(c.want))
			}
			whole := int64(len(b))
			if c.d == empty {
				whole = 0
			}
			if info.Size != whole || info.ModTime.IsZero() {
				t.Errorf("Open(%d, %d) says %+v, want the whole size %d and a time", c.offset, c.length, info, whole)
			}
			if asked := requests.take(); !slices.Equal(asked, c.asked) {
				t.Errorf("Open(%d, %d) asked %q, want %q", c.offset, c.length, asked, c.asked)
			}
		}
	})
}

func TestS3PresignedURLIsReadWithoutCredentials(t *testing.T) {
	onS3Servers(t, func(t *testing.T, server *testenv.S3Server) {
		s := openS3(t, s3Config(server, server.NewBucket(t)))
		b := randomBytes(1000)
		d := digest.FromBytes(b)
		if err := s.Put(t.Context(), d, -1, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		signed, err := s.Presign(t.Context(), d, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if got := httpGet(t, signed, http.StatusOK); !bytes.Equal(got, b) {
			t.Errorf("%s gives %d other bytes", signed, len(got))
		}
		httpGet(t, strings.Replace(signed, "X-Amz-Signature=", "X-Amz-Signature=0", 1), http.StatusForbidden)

		for _, expiry := range []time.Duration{0, -time.Hour, time.Millisecond, 8 * 24 * time.Hour} {
			if _, err := s.Presign(t.Context(), d, expiry); err == nil {
				t.Errorf("a URL is signed for %v", expiry)
			}
		}
		if _, err := s.Presign(t.Context(), "sha256:x", time.Minute); !errors.Is(err, blobstore.ErrInvalidDigest) {
			t.Errorf("Presign = %v, want ErrInvalidDigest", err)
		}
	})
}

func TestS3WithoutKeysSignsWithThoseOfTheSurroundings(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s := openS3(t, blobstore.S3Config{Endpoint: "http://127.0.0.1:1", Bucket: "mirror"})
	signed, err := s.Presign(t.Context(), digest.FromString("x"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(signed, "X-Amz-Credential=from-the-environment%2F") || !strings.Contains(signed, "us-east-1") {
		t.Errorf("signed %s, want the environment's key and the default region", signed)
	}
}

func httpGet(t *testing.T, url string, status int) []byte {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != status {
		t.Fatalf("GET %s: %s, want %d\n%s", url, response.Status, status, body)
	}
	return body
}

func TestS3CheckSaysWhatIsWrong(t *testing.T) {
	onS3Servers(t, func(t *testing.T, server *testenv.S3Server) {
		cfg := s3Config(server, server.NewBucket(t))
		if err := openS3(t, cfg).Check(t.Context()); err != nil {
			t.Errorf("Check of a good bucket: %v", err)
		}
		for object := range server.Client(t).ListObjectsIter(t.Context(), cfg.Bucket, everything()) {
			t.Errorf("Check leaves %s %v", object.Key, object.Err)
		}
		absent, forbidden := cfg, cfg
		absent.Bucket = "no-such-bucket"
		forbidden.SecretKey = "not the secret key"
		for want, cfg := range map[string]blobstore.S3Config{"no such bucket": absent, "403": forbidden} {
			s := openS3(t, cfg)
			err := s.Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), cfg.Bucket) {
				t.Errorf("Check = %v, want it to name the bucket and %q", err, want)
			}
			if err != nil && strings.Contains(err.Error(), cfg.SecretKey) {
				t.Errorf("Check tells the secret: %v", err)
			}
			if err := s.Put(t.Context(), digest.FromString("x"), 1, strings.NewReader("x")); err == nil {
				t.Error("Put succeeds")
			}
		}
	})
}

func TestS3StoppedIsAQuickErrorAndWorksAfterARestart(t *testing.T) {
	onS3Servers(t, func(t *testing.T, server *testenv.S3Server) {
		s := openS3(t, s3Config(server, server.NewBucket(t)))
		d, other := digest.FromString("stored"), digest.FromString("other")
		if err := s.Put(t.Context(), d, 6, strings.NewReader("stored")); err != nil {
			t.Fatal(err)
		}
		if err := s.PutRecord(t.Context(), "a", []byte("record")); err != nil {
			t.Fatal(err)
		}
		server.Stop()
		for name, call := range map[string]func(context.Context) error{
			"Stat":      func(ctx context.Context) error { _, err := s.Stat(ctx, d); return err },
			"Open":      func(ctx context.Context) error { _, _, err := s.Open(ctx, d, 1, 2); return err },
			"Put":       func(ctx context.Context) error { return s.Put(ctx, other, 5, strings.NewReader("other")) },
			"Delete":    func(ctx context.Context) error { return s.Delete(ctx, d) },
			"Record":    func(ctx context.Context) error { _, err := s.Record(ctx, "a"); return err },
			"PutRecord": func(ctx context.Context) error { return s.PutRecord(ctx, "b", nil) },
			"Check":     s.Check,
			"Blobs": func(ctx context.Context) (last error) {
				for _, last = range s.Blobs(ctx) {
				}
				return last
			},
		} {
			start := time.Now()
			err := call(t.Context())
			if err == nil || errors.Is(err, blobstore.ErrNotExist) || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("%s with S3 stopped: %v, want connection refused", name, err)
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("%s with S3 stopped took %v", name, took)
			}
		}
		server.Start()
		if err := s.Put(t.Context(), other, 5, strings.NewReader("other")); err != nil {
			t.Errorf("Put with S3 back: %v", err)
		}
		if value, err := s.Record(t.Context(), "a"); err != nil || string(value) != "record" {
			t.Errorf("Record with S3 back: %q, %v", value, err)
		}
		if _, err := s.Stat(t.Context(), d); err != nil {
			t.Errorf("Stat with S3 back: %v", err)
		}
	})
}

func TestOpenS3NamesWhatIsWrongAndAsksNobody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("asked: %s %s", r.Method, r.URL)
	}))
	defer server.Close()
	good := blobstore.S3Config{Endpoint: server.URL, Bucket: "mirror", AccessKey: "key", SecretKey: "hidden"}
	openS3(t, good)
	for _, c := range []struct {
		name, want string
		change     func(*blobstore.S3Config)
	}{
		{"no endpoint", "https://s3.example.org", func(c *blobstore.S3Config) { c.Endpoint = "" }},
		{"no scheme", "https://s3.example.org", func(c *blobstore.S3Config) { c.Endpoint = "127.0.0.1:9000" }},
		{"other scheme", "https://s3.example.org", func(c *blobstore.S3Config) { c.Endpoint = "s3://bucket" }},
		{"control byte", "https://s3.example.org", func(c *blobstore.S3Config) { c.Endpoint = "http://u:hidden@\x7f" }},
		{"password in endpoint", "user name", func(c *blobstore.S3Config) { c.Endpoint = "http://u:hidden@127.0.0.1:9000" }},
		{"path in endpoint", "bucket and prefix are given apart", func(c *blobstore.S3Config) { c.Endpoint += "/mirror" }},
		{"no bucket", "bucket", func(c *blobstore.S3Config) { c.Bucket = "" }},
		{"bad bucket", `"Mirror_1"`, func(c *blobstore.S3Config) { c.Bucket = "Mirror_1" }},
		{"prefix with ..", `"a/../b"`, func(c *blobstore.S3Config) { c.Prefix = "a/../b" }},
		{"prefix with //", `"a//b"`, func(c *blobstore.S3Config) { c.Prefix = "a//b" }},
		{"long prefix", "300 bytes", func(c *blobstore.S3Config) { c.Prefix = strings.Repeat("p", 300) }},
		{"no secret key", "access key and secret key", func(c *blobstore.S3Config) { c.SecretKey = "" }},
		{"no access key", "access key and secret key", func(c *blobstore.S3Config) { c.AccessKey = "" }},
		{"small parts", "5 MiB", func(c *blobstore.S3Config) { c.PartSize = 1 << 20 }},
		{"large parts", "5 GiB", func(c *blobstore.S3Config) { c.PartSize = 6 << 30 }},
		{"negative timeout", "-1s", func(c *blobstore.S3Config) { c.Timeout = -time.Second }},
	} {
		cfg := good
		c.change(&cfg)
		_, err := blobstore.OpenS3(cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the error tells a secret: %v", c.name, err)
		}
	}
}
