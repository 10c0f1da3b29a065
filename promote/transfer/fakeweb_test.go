package transfer_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// fakeWebStore is an origin's file store in memory, which "release" with the
// password "secret" may write.
type fakeWebStore struct {
	*httptest.Server

	fault func(w http.ResponseWriter, r *http.Request) bool

	mu    sync.Mutex
	files map[string][]byte
}

func newFakeWebStore(t testing.TB) *fakeWebStore {
	f := &fakeWebStore{files: make(map[string][]byte)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func reprDigest(content []byte) string {
	sum := digest.SHA256.Hash()
	sum.Write(content)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum.Sum(nil)) + ":"
}

func (f *fakeWebStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.fault != nil && f.fault(w, r) {
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/files/")
	if r.Method == http.MethodPut || r.Method == http.MethodDelete {
		if user, password, _ := r.BasicAuth(); user != "release" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="files"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	}
	f.mu.Lock()
	content, found := f.files[name]
	f.mu.Unlock()
	switch {
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		content, found = f.files[name]
		switch {
		case r.Header.Get("Repr-Digest") != reprDigest(body):
			w.WriteHeader(http.StatusBadRequest)
		case found && string(content) != string(body) && r.URL.Query().Get("overwrite") != "1":
			w.WriteHeader(http.StatusConflict)
		default:
			f.files[name] = body
			w.Header().Set("Repr-Digest", reprDigest(body))
			w.WriteHeader(http.StatusCreated)
		}
	case !found:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		f.mu.Lock()
		delete(f.files, name)
		f.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Repr-Digest", reprDigest(content))
		http.ServeContent(w, r, name, time.Unix(1_700_000_000, 0), strings.NewReader(string(content)))
	}
}

// login is a docker configuration for the store's writer.
func (f *fakeWebStore) login(t *testing.T) string {
	t.Helper()
	return writeDockerConfig(t, strings.TrimPrefix(f.URL, "http://"), "secret")
}

func (f *fakeWebStore) put(name, content string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[name] = []byte(content)
}

func (f *fakeWebStore) url() string { return fmt.Sprint(f.URL, "/files") }
