package origin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/blobstore"
	"entrepot/e2e/testenv"
	"entrepot/registry"
	"entrepot/registry/origin"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite holds over each store.
func TestOriginOverADirectory(t *testing.T) {
	runSuite(t, func(t *testing.T) *site { return newSite(t, openDir(t)) })
}

func TestOriginOverABucket(t *testing.T) {
	for _, server := range testenv.S3Servers() {
		t.Run(server.Name, func(t *testing.T) {
			server := server.Start(t)
			runSuite(t, func(t *testing.T) *site {
				store, err := blobstore.OpenS3(blobstore.S3Config{
					Endpoint: server.Endpoint, Bucket: server.NewBucket(t), Region: server.Region,
					AccessKey: server.AccessKey, SecretKey: server.SecretKey,
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = store.Close() })
				return newSite(t, store)
			})
		})
	}
}

func runSuite(t *testing.T, open func(t *testing.T) *site) {
	t.Helper()
	for _, suite := range []map[string]func(*testing.T, *site){uploadTests(), manifestTests(), mountTests(), deleteTests(), collectTests()} {
		for name, test := range suite {
			t.Run(name, func(t *testing.T) { test(t, open(t)) })
		}
	}
}

func openDir(t testing.TB) *blobstore.Dir {
	t.Helper()
	store, err := blobstore.OpenDir(filepath.Join(t.TempDir(), "store"), blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// site is an origin that is asked over HTTP, without connections.
type site struct {
	t      *testing.T
	config origin.Config
	origin *origin.Origin
	http.Handler

	clock clock
	heard listener
}

func newSite(t *testing.T, store origin.Store) *site {
	t.Helper()
	s := &site{t: t}
	s.config = origin.Config{Store: store, Uploads: filepath.Join(t.TempDir(), "uploads"), Listener: &s.heard, Now: s.clock.now}
	s.open()
	t.Cleanup(func() { _ = s.origin.Close() })
	return s
}

func (s *site) open() {
	s.t.Helper()
	o, err := origin.New(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.origin = o
	s.Handler = registry.NewHandler(registry.Config{
		Backend: o, Authorizer: registry.Anyone{},
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
	})
}

// restart has another origin on the same store and the same uploads.
func (s *site) restart() {
	s.t.Helper()
	if err := s.origin.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// clock is a clock that is put forward.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// listener remembers events as lines.
type listener struct {
	mu    sync.Mutex
	lines []string
}

func (l *listener) Pushed(e origin.Event)  { l.hear("pushed", e) }
func (l *listener) Deleted(e origin.Event) { l.hear("deleted", e) }

func (l *listener) hear(what string, e origin.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf("%s %s %s@%s", what, e.Descriptor.MediaType, e.Repository, e.Descriptor.Digest)
	if e.Tag != "" {
		line += " as " + e.Tag
	}
	if e.Mounted {
		line += " from " + e.From
	}
	l.lines = append(l.lines, line)
}

func (l *listener) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// answer is a response with its body.
type answer struct {
	*http.Response
	body string
}

// ask sends a request. The headers come as pairs.
func (s *site) ask(method, target string, body []byte, headers ...string) answer {
	s.t.Helper()
	return s.send(method, target, bytes.NewReader(body), headers...)
}

// send is ask with a body that is read on the way.
func (s *site) send(method, target string, body io.Reader, headers ...string) answer {
	r := httptest.NewRequest(method, target, body)
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	resp := w.Result()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Errorf("reading the answer to %s %s: %v", method, target, err)
	}
	return answer{resp, string(b)}
}

// want sends a request and wants a status, and the code of an error.
func (s *site) want(status int, code, method, target string, body []byte, headers ...string) answer {
	s.t.Helper()
	a := s.ask(method, target, body, headers...)
	if method == "HEAD" {
		code = "" // its answer has no body
	}
	if a.StatusCode != status || code != "" && a.code() != code {
		s.t.Fatalf("%s %s: %d %.300s; want %d %s", method, target, a.StatusCode, a.body, status, code)
	}
	return a
}

// code is the code of the error that is told, "" for none.
func (a answer) code() string {
	var e struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal([]byte(a.body), &e) != nil || len(e.Errors) != 1 {
		return ""
	}
	return e.Errors[0].Code
}

func (a answer) wantHeaders(t *testing.T, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for key := range want {
		got[key] = a.Header.Get(key)
	}
	if !maps.Equal(got, want) {
		t.Errorf("headers %v, want %v", got, want)
	}
}

// startUpload begins an upload, and returns its location.
func (s *site) startUpload(repository string) string {
	s.t.Helper()
	return s.want(http.StatusAccepted, "", "POST", "/v2/"+repository+"/blobs/uploads/", nil).Header.Get("Location")
}

// pushBlob uploads a blob to a repository.
func (s *site) pushBlob(repository string, b []byte) ocispec.Descriptor {
	s.t.Helper()
	d := digest.FromBytes(b)
	s.want(http.StatusCreated, "", "POST", "/v2/"+repository+"/blobs/uploads/?digest="+d.String(), b)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: int64(len(b))}
}

// image is an image manifest that names a config and layers; change may alter it.
func image(config ocispec.Descriptor, layers []ocispec.Descriptor, change func(*ocispec.Manifest)) []byte {
	config.MediaType = ocispec.MediaTypeImageConfig
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers}
	m.SchemaVersion = 2
	if change != nil {
		change(&m)
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // it has a JSON form
	}
	return b
}

// pushImage pushes an image of one random layer, and returns what names it.
func (s *site) pushImage(repository, reference string, change func(*ocispec.Manifest)) (ocispec.Descriptor, ocispec.Manifest) {
	s.t.Helper()
	config, layer := s.pushBlob(repository, random(100)), s.pushBlob(repository, random(1000))
	body := image(config, []ocispec.Descriptor{layer}, change)
	descriptor := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(body), Size: int64(len(body))}
	if reference == "" {
		reference = descriptor.Digest.String()
	}
	s.want(http.StatusCreated, "", "PUT", "/v2/"+repository+"/manifests/"+reference, body, "Content-Type", descriptor.MediaType)
	var m ocispec.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		s.t.Fatal(err)
	}
	return descriptor, m
}

// random is bytes that no other call returns.
func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// tagsOf lists the tags of a repository.
func (s *site) tagsOf(repository, query string) ([]string, answer) {
	s.t.Helper()
	a := s.want(http.StatusOK, "", "GET", "/v2/"+repository+"/tags/list"+query, nil)
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil {
		s.t.Fatal(err)
	}
	return list.Tags, a
}

// referrersOf lists the digests of the referrers of a subject, sorted.
func (s *site) referrersOf(repository string, d digest.Digest, query string) []ocispec.Descriptor {
	s.t.Helper()
	a := s.want(http.StatusOK, "", "GET", "/v2/"+repository+"/referrers/"+d.String()+query, nil)
	var index ocispec.Index
	if err := json.Unmarshal([]byte(a.body), &index); err != nil {
		s.t.Fatal(err)
	}
	return index.Manifests
}

// storedBlobs counts the blobs in the store.
func (s *site) storedBlobs() (n int) {
	s.t.Helper()
	for _, err := range s.config.Store.Blobs(s.t.Context()) {
		if err != nil {
			s.t.Fatal(err)
		}
		n++
	}
	return n
}

func blobPath(repository string, d digest.Digest) string {
	return "/v2/" + repository + "/blobs/" + d.String()
}

func manifestPath(repository, reference string) string {
	return "/v2/" + repository + "/manifests/" + reference
}

func withDigest(location string, d digest.Digest) string {
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	return location + separator + "digest=" + d.String()
}
