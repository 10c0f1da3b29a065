package registry

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// stalledWriter takes nothing until it is let.
type stalledWriter struct {
	*httptest.ResponseRecorder
	begun, let chan struct{}
}

func (w stalledWriter) Write(p []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.let
	return w.ResponseRecorder.Write(p)
}

func TestLargeManifestsForSlowClientsAreBoundedInMemory(t *testing.T) {
	t.Parallel()
	large := manifestOf("x/y", strings.Repeat("x", 1<<20))
	backend := &fakeBackend{manifest: large}
	h := NewHandler(Config{Backend: backend, ManifestMemory: 3 << 20})
	w := stalledWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	var slow sync.WaitGroup
	for range 3 {
		slow.Go(func() {
			h.ServeHTTP(stalledWriter{httptest.NewRecorder(), w.begun, w.let}, newRequest(http.MethodGet, "/v2/app/manifests/v1"))
		})
		<-w.begun
	}
	resp := ask(t, h, http.MethodGet, "/v2/app/manifests/v1", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("Docker-Content-Digest") != "" {
		t.Errorf("the fourth of three is answered with %d, %v", resp.StatusCode, resp.Header)
	}
	backend.manifest = manifestOf("x/y", "{}")
	if resp := ask(t, h, http.MethodGet, "/v2/app/manifests/v1", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("a small one is answered with %d", resp.StatusCode)
	}
	backend.manifest = large
	close(w.let)
	slow.Wait()
	if resp := ask(t, h, http.MethodGet, "/v2/app/manifests/v1", nil); resp.StatusCode != http.StatusOK || h.large.Load() != 0 {
		t.Errorf("after all have ended: %d, and %d bytes count", resp.StatusCode, h.large.Load())
	}
}

// Lists are bounded with them; one that is larger than the bound is sent when nothing
// else is.
func TestLargeListsForSlowClientsAreBoundedInMemory(t *testing.T) {
	t.Parallel()
	backend := &fakeBackend{tags: make([]string, 100_000)}
	for i := range backend.tags {
		backend.tags[i] = fmt.Sprintf("tag-%06d", i)
	}
	h := NewHandler(Config{Backend: backend, ManifestMemory: 100 << 10})
	begun, let := make(chan struct{}), make(chan struct{})
	var slow sync.WaitGroup
	slow.Go(func() {
		h.ServeHTTP(stalledWriter{httptest.NewRecorder(), begun, let}, newRequest(http.MethodGet, "/v2/app/tags/list"))
	})
	<-begun
	resp := ask(t, h, http.MethodGet, "/v2/app/tags/list", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("the second is answered with %d, %v", resp.StatusCode, resp.Header)
	}
	close(let)
	slow.Wait()
	if resp := ask(t, h, http.MethodGet, "/v2/app/tags/list", nil); resp.StatusCode != http.StatusOK || h.large.Load() != 0 {
		t.Errorf("after it has ended: %d, and %d bytes count", resp.StatusCode, h.large.Load())
	}
}

func TestSizeOfAListIsNotLessThanItIsInJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "v1.0", "<&>", "\"\\\n\x00\x1f", "\xff\xfe", "ä€😀\u2028", "\x7f"} {
		all := []ocispec.Descriptor{{}, {
			MediaType: text, Digest: digest.Digest(text), Size: math.MaxInt64, URLs: []string{text, text}, Annotations: map[string]string{text: text}, Data: []byte(text),
			Platform: &ocispec.Platform{Architecture: text, OS: text, OSVersion: text, OSFeatures: []string{text}, Variant: text}, ArtifactType: text,
		}}
		tags := []string{text, text}
		for what, got := range map[any]int64{&all: descriptorsSize(all), &tags: tagsSize(tags)} {
			if b, err := json.Marshal(what); err != nil || int64(len(b)) > got+2 {
				t.Errorf("%q: %s has %d bytes, more than the %d that are counted: %v", text, b, len(b), got, err)
			}
		}
	}
}
