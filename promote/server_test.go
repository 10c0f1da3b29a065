package promote_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"entrepot/blobstore"
	"entrepot/registry"
	"entrepot/registry/origin"

	"github.com/opencontainers/go-digest"
)

// server is an origin that remembers what it was asked, and can be made to
// misbehave.
type server struct {
	host    string
	dir     string // of its store
	handler http.Handler

	mu sync.Mutex
	// fault answers a request in place of the registry if it returns true.
	fault func(w http.ResponseWriter, r *http.Request) bool
	// after is called when a request was answered, before the next is.
	after    func(request)
	requests []request
}

// request is one that a server answered.
type request struct {
	method, path string
	status       int
	digest       string // of an upload that ends
	mount        bool
}

func newServer(t testing.TB) *server {
	t.Helper()
	dir := t.TempDir()
	store, err := blobstore.OpenDir(filepath.Join(dir, "store"), blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := origin.New(origin.Config{Store: store, Uploads: filepath.Join(dir, "uploads")})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: filepath.Join(dir, "store"), handler: registry.NewHandler(registry.Config{Backend: o, Authorizer: registry.Anyone{}})}
	web := httptest.NewServer(s)
	s.host = strings.TrimPrefix(web.URL, "http://")
	t.Cleanup(func() {
		web.Close()
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	if fault == nil || !fault(seen, r) {
		s.handler.ServeHTTP(seen, r)
	}
	query := r.URL.Query()
	answered := request{r.Method, r.URL.Path, seen.status, query.Get("digest"), query.Has("mount")}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, answered)
	if s.after != nil {
		s.after(answered)
	}
}

type statusWriter struct {
	http.ResponseWriter

	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// misbehave sets the fault, or with nil takes it away.
func (s *server) misbehave(fault func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// watch sets what is called after each request, or with nil nothing.
func (s *server) watch(after func(request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = after
}

// forget empties the list of requests.
func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// asked are the requests since forget, of some methods or of all.
func (s *server) asked(methods ...string) []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.requests), func(r request) bool {
		return len(methods) > 0 && !slices.Contains(methods, r.method)
	})
}

// uploads counts how often each blob was taken to its end, by path of the
// repository and digest.
func (s *server) uploads() map[string]int {
	counts := map[string]int{}
	for _, r := range s.asked(http.MethodPut, http.MethodPost) {
		repository, _, isUpload := strings.Cut(r.path, "/blobs/uploads/")
		if isUpload && r.digest != "" && !r.mount && r.status == http.StatusCreated {
			counts[repository+"@"+r.digest]++
		}
	}
	return counts
}

// writes are the requests that change something.
func (s *server) writes() []request {
	return s.asked(http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete)
}

// get asks the registry beside the faults, and unseen by the list of requests.
func (s *server) get(method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, nil)
	r.Host = s.host
	s.handler.ServeHTTP(w, r)
	return w
}

// has is the digest of a manifest, or "" when there is none.
func (s *server) has(repository, reference string) digest.Digest {
	w := s.get(http.MethodGet, "/v2/"+repository+"/manifests/"+reference)
	if w.Code != http.StatusOK {
		return ""
	}
	return digest.FromBytes(w.Body.Bytes())
}

// lacks names what is missing below a manifest that is there.
func (s *server) lacks(repository, reference string) []string {
	w := s.get(http.MethodGet, "/v2/"+repository+"/manifests/"+reference)
	if w.Code != http.StatusOK {
		return []string{"manifest " + reference}
	}
	type descriptor struct {
		Digest string `json:"digest"`
	}
	var m struct {
		Manifests []descriptor `json:"manifests"`
		Config    *descriptor  `json:"config"`
		Layers    []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		return []string{err.Error()}
	}
	var missing []string
	for _, child := range m.Manifests {
		missing = append(missing, s.lacks(repository, child.Digest)...)
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, blob := range m.Layers {
		if s.get(http.MethodHead, "/v2/"+repository+"/blobs/"+blob.Digest).Code != http.StatusOK {
			missing = append(missing, "blob "+blob.Digest)
		}
	}
	return missing
}

// tags are the tags of a repository.
func (s *server) tags(t testing.TB, repository string) []string { //nolint:unparam // it reads better with its name
	t.Helper()
	w := s.get(http.MethodGet, "/v2/"+repository+"/tags/list")
	var list struct {
		Tags []string `json:"tags"`
	}
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
	}
	return list.Tags
}

// referrers are the digests of what refers to a manifest.
func (s *server) referrers(t testing.TB, repository string, d digest.Digest) []string {
	t.Helper()
	w := s.get(http.MethodGet, "/v2/"+repository+"/referrers/"+string(d))
	var list struct {
		Manifests []struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != http.StatusOK {
		t.Fatalf("referrers: %d %v", w.Code, err)
	}
	var digests []string
	for _, m := range list.Manifests {
		digests = append(digests, m.Digest)
	}
	return digests
}

// lose has the registry delete what is at a path.
func (s *server) lose(t testing.TB, path string) {
	t.Helper()
	if w := s.get(http.MethodDelete, "/v2/"+path); w.Code != http.StatusAccepted {
		t.Fatalf("deleting %s: %d %s", path, w.Code, w.Body)
	}
}

// corrupt flips a byte of a blob in the store.
func (s *server) corrupt(t testing.TB, d digest.Digest) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "blobs", d.Algorithm().String(), "*", d.Encoded(), "data"))
	if err != nil || len(found) != 1 {
		t.Fatalf("looking for %s in the store: %q, %v", d, found, err)
	}
	content, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.Chmod(found[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(found[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// layer is the digest of an image's only layer.
func layer(t testing.TB, s *server, d digest.Digest) digest.Digest {
	t.Helper()
	var m struct {
		Layers []struct {
			Digest digest.Digest `json:"digest"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(s.get(http.MethodGet, "/v2/app/tool/manifests/"+string(d)).Body.Bytes(), &m); err != nil || len(m.Layers) != 1 {
		t.Fatalf("reading %s: %d layers, %v", d, len(m.Layers), err)
	}
	return m.Layers[0].Digest
}
