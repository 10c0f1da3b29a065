package transfer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fakeRegistry is an OCI registry in memory, which refuses manifests whose
// parts it does not have, and can be made to misbehave.
type fakeRegistry struct {
	*httptest.Server

	// fault answers a request instead of the registry if it returns true.
	fault func(w http.ResponseWriter, r *http.Request) bool
	// referrersAPI, mounts and resumes say what it can do.
	referrersAPI, mounts, resumes bool

	mu       sync.Mutex
	repos    map[string]*fakeRepo
	sessions map[string][]byte
	log      []string // "METHOD path?query", without what is served by fault
	counter  int
}

type fakeRepo struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]fakeManifest
	tags      map[string]digest.Digest
}

type fakeManifest struct {
	mediaType string
	content   []byte
}

func newFakeRegistry(t testing.TB) *fakeRegistry {
	f := &fakeRegistry{
		referrersAPI: true, mounts: true, resumes: true,
		repos: make(map[string]*fakeRepo), sessions: make(map[string][]byte),
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// host is the registry's host:port.
func (f *fakeRegistry) host() string { return strings.TrimPrefix(f.URL, "http://") }

func (f *fakeRegistry) repo(name string) *fakeRepo {
	if f.repos[name] == nil {
		f.repos[name] = &fakeRepo{
			blobs:     make(map[digest.Digest][]byte),
			manifests: make(map[digest.Digest]fakeManifest),
			tags:      make(map[string]digest.Digest),
		}
	}
	return f.repos[name]
}

// requests are those whose method is one of methods, all if there are none.
func (f *fakeRegistry) requests(methods ...string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []string
	for _, line := range f.log {
		method, _, _ := strings.Cut(line, " ")
		if len(methods) == 0 || slices.Contains(methods, method) {
			found = append(found, line)
		}
	}
	return found
}

// forget empties the log.
func (f *fakeRegistry) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = nil
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.log = append(f.log, r.Method+" "+r.URL.RequestURI())
	fault := f.fault
	f.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	switch {
	case path == "_catalog":
		f.page(w, r, "repositories", f.names())
	case strings.HasSuffix(path, "/tags/list"):
		f.tagsList(w, r, strings.TrimSuffix(path, "/tags/list"))
	case strings.Contains(path, "/blobs/uploads/"):
		name, id, _ := strings.Cut(path, "/blobs/uploads/")
		f.upload(w, r, name, id)
	case strings.Contains(path, "/blobs/"):
		name, d, _ := strings.Cut(path, "/blobs/")
		f.blob(w, r, name, digest.Digest(d))
	case strings.Contains(path, "/referrers/"):
		name, d, _ := strings.Cut(path, "/referrers/")
		f.referrers(w, name, digest.Digest(d))
	case strings.Contains(path, "/manifests/"):
		name, reference, _ := strings.Cut(path, "/manifests/")
		f.manifest(w, r, name, reference)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"says the fake"}]}`, code)
}

// redirect sends a client elsewhere.
func redirect(w http.ResponseWriter, location string) {
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

func writeJSON(w io.Writer, value any) {
	content, err := json.Marshal(value)
	if err != nil {
		panic(err) // a mistake in the fake
	}
	_, _ = w.Write(content)
}

func (f *fakeRegistry) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.repos {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (f *fakeRegistry) tagsList(w http.ResponseWriter, r *http.Request, name string) {
	f.mu.Lock()
	var tags []string
	for tag := range f.repo(name).tags {
		tags = append(tags, tag)
	}
	f.mu.Unlock()
	slices.Sort(tags)
	f.page(w, r, "tags", tags)
}

// page sends a list two entries at a time.
func (f *fakeRegistry) page(w http.ResponseWriter, r *http.Request, key string, list []string) {
	start, _ := slices.BinarySearch(list, r.URL.Query().Get("last")+"\x00")
	end := min(start+2, len(list))
	if end < len(list) {
		w.Header().Set("Link", fmt.Sprintf(`<%s?last=%s&n=2>; rel="next"`, r.URL.Path, list[end-1]))
	}
	writeJSON(w, map[string][]string{key: list[start:end]})
}

func (f *fakeRegistry) blob(w http.ResponseWriter, r *http.Request, name string, d digest.Digest) {
	f.mu.Lock()
	content, found := f.repo(name).blobs[d]
	f.mu.Unlock()
	if !found {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	status := http.StatusOK
	total := len(content)
	var start int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err == nil && start < total {
		content, status = content[start:], http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, total-1, total))
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = w.Write(content)
	}
}

func (f *fakeRegistry) upload(w http.ResponseWriter, r *http.Request, name, id string) {
	// What came before a connection broke is kept, as registries do.
	body, readErr := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodPost {
		d, from := digest.Digest(r.URL.Query().Get("mount")), r.URL.Query().Get("from")
		if content, found := f.repo(from).blobs[d]; found && f.mounts {
			f.repo(name).blobs[d] = content
			w.Header().Set("Docker-Content-Digest", d.String())
			w.WriteHeader(http.StatusCreated)
			return
		}
		f.counter++
		id = strconv.Itoa(f.counter)
		f.sessions[id] = nil
		f.sessionAt(w, name, id, http.StatusAccepted)
		return
	}
	content, found := f.sessions[id]
	if !found {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	switch r.Method {
	case http.MethodGet:
		if !f.resumes {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		f.sessionAt(w, name, id, http.StatusNoContent)
	case http.MethodPatch:
		var start int
		if _, err := fmt.Sscanf(r.Header.Get("Content-Range"), "%d-", &start); err != nil || start != len(content) {
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
			return
		}
		f.sessions[id] = append(content, body...)
		f.sessionAt(w, name, id, http.StatusAccepted)
	case http.MethodPut:
		content = append(content, body...)
		f.sessions[id] = content
		d := digest.Digest(r.URL.Query().Get("digest"))
		if readErr != nil {
			return
		}
		delete(f.sessions, id)
		if digest.FromBytes(content) != d {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		f.repo(name).blobs[d] = content
		w.Header().Set("Docker-Content-Digest", d.String())
		w.WriteHeader(http.StatusCreated)
	case http.MethodDelete:
		delete(f.sessions, id)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (f *fakeRegistry) sessionAt(w http.ResponseWriter, name, id string, status int) {
	w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/uploads/%s?state=x%%3D%d", name, id, len(f.sessions[id])))
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(f.sessions[id])-1)))
	w.WriteHeader(status)
}

func (f *fakeRegistry) referrers(w http.ResponseWriter, name string, subject digest.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.referrersAPI {
		refuse(w, http.StatusNotFound, "UNSUPPORTED")
		return
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	for d, m := range f.repo(name).manifests {
		var told ocispec.Manifest
		if bytes.Contains(m.content, []byte(`"subject"`)) && json.Unmarshal(m.content, &told) == nil && told.Subject != nil && told.Subject.Digest == subject {
			index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: m.mediaType, Digest: d, Size: int64(len(m.content))})
		}
	}
	w.Header().Set("Content-Type", index.MediaType)
	writeJSON(w, index)
}

func (f *fakeRegistry) manifest(w http.ResponseWriter, r *http.Request, name, reference string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	repo := f.repo(name)
	d := digest.Digest(reference)
	if d.Validate() != nil {
		d = repo.tags[reference]
	}
	m, found := repo.manifests[d]
	switch {
	case r.Method == http.MethodPut:
		f.putManifest(w, r, repo, reference)
	case !found:
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
	case r.Method == http.MethodDelete && reference != d.String():
		delete(repo.tags, reference)
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodDelete:
		delete(repo.manifests, d)
		w.WriteHeader(http.StatusAccepted)
	default:
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Docker-Content-Digest", d.String())
		w.Header().Set("Content-Length", strconv.Itoa(len(m.content)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(m.content)
		}
	}
}

func (f *fakeRegistry) putManifest(w http.ResponseWriter, r *http.Request, repo *fakeRepo, reference string) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var told struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	_ = json.Unmarshal(content, &told)
	if told.Config != nil {
		told.Layers = append(told.Layers, *told.Config)
	}
	for _, blob := range told.Layers {
		if _, found := repo.blobs[blob.Digest]; !found && len(blob.URLs) == 0 {
			refuse(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
			return
		}
	}
	for _, child := range told.Manifests {
		_, isManifest := repo.manifests[child.Digest]
		_, isBlob := repo.blobs[child.Digest]
		if !isManifest && !isBlob {
			refuse(w, http.StatusBadRequest, "MANIFEST_UNKNOWN")
			return
		}
	}
	d := digest.FromBytes(content)
	repo.manifests[d] = fakeManifest{r.Header.Get("Content-Type"), content}
	if want := digest.Digest(reference); want.Validate() != nil {
		repo.tags[reference] = d
	} else if want != d {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
		return
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}
