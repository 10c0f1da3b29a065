package events_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
	"entrepot/registry"
	"entrepot/registry/events"
	"entrepot/registry/origin"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The envelope of a pushed manifest has the fields, of the same types, that the
// one has that distribution itself sends.
func TestTheEnvelopeIsDistributions(t *testing.T) {
	theirs := make(chan []byte, 64)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Content-Type"); got != events.MediaTypeV2 {
			t.Errorf("distribution sends %s", got)
		}
		body, err := io.ReadAll(r.Body)
		if err == nil && bytes.Contains(body, []byte(`"tag"`)) {
			theirs <- body
		}
	}))
	defer receiver.Close()
	url := startNotifying(t, receiver.URL)
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` +
		string(digest.FromString("{}")) + `","size":2},"layers":[]}`)
	push(t, url+"/v2/a/b/blobs/uploads/", []byte("{}"))
	put(t, url+"/v2/a/b/manifests/v1", ocispec.MediaTypeImageManifest, manifest)

	ours := make(chan []byte, 1)
	s, err := events.New(events.Config{
		Endpoints: []events.Endpoint{{Name: "hook", URL: "http://hook.example.org"}}, Addr: "origin:5001", RegistryURL: url,
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			ours <- body
			return httptest.NewRecorder().Result(), err
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Registry().Pushed(origin.Event{
		Repository: "a/b", Tag: "v1",
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))},
		Caller:     registry.Caller{Identity: "promoter", Address: "10.0.0.1:1", Host: "origin", Method: "PUT", UserAgent: "crane", RequestID: "1"},
	})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want, got := fields(t, <-theirs), fields(t, <-ours)
	// Distribution takes pushes from anyone here, so that nobody is named.
	want["events.0.actor.name"] = "string"
	// It lists what a manifest names only when configured.
	maps.DeleteFunc(want, func(path, _ string) bool { return strings.Contains(path, ".references") })
	if !maps.Equal(got, want) {
		t.Errorf("our fields  %v\ndistribution's %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	if got := want["events.0.target.url"]; got != "string" {
		t.Errorf("distribution's URL is a %q", got)
	}
}

// startNotifying starts distribution, which sends its events to a URL.
func startNotifying(t *testing.T, to string) string {
	t.Helper()
	dir := t.TempDir()
	host := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	config := filepath.Join(dir, "config.yml")
	err := os.WriteFile(config, fmt.Appendf(nil, `
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q, secret: "any"}
notifications: {endpoints: [{name: hook, url: %q, timeout: 5s, threshold: 3, backoff: 1s}]}
`, filepath.Join(dir, "data"), host, to), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Start(t, testenv.ProcessConfig{
		Name: "registry", Path: testenv.Tool(t, "registry"), Args: []string{"serve", config},
		Env:   append(os.Environ(), "OTEL_TRACES_EXPORTER=none"),
		Ready: func(ctx context.Context) error { return testenv.WaitHTTP(ctx, "http://"+host+"/v2/") },
	})
	return "http://" + host
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// push uploads a blob.
func push(t *testing.T, uploads string, content []byte) {
	t.Helper()
	response := do(t, http.MethodPost, uploads, "", nil)
	location, err := response.Location()
	if err != nil {
		t.Fatal(err)
	}
	query := location.Query()
	query.Set("digest", string(digest.FromBytes(content)))
	location.RawQuery = query.Encode()
	put(t, location.String(), "application/octet-stream", content)
}

func put(t *testing.T, url, contentType string, content []byte) {
	t.Helper()
	do(t, http.MethodPut, url, contentType, content)
}

func do(t *testing.T, method, url, contentType string, content []byte) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		body, _ := io.ReadAll(response.Body)
		t.Fatalf("%s %s: %s: %s", method, url, response.Status, body)
	}
	return response
}

// fields is the types of all values of a document, by their path.
func fields(t *testing.T, document []byte) map[string]string {
	t.Helper()
	var value any
	if err := json.Unmarshal(document, &value); err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	types := map[string]string{}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch value := value.(type) {
		case map[string]any:
			for name, below := range value {
				walk(strings.TrimPrefix(path+"."+name, "."), below)
			}
		case []any:
			for i, below := range value {
				walk(fmt.Sprintf("%s.%d", path, i), below)
			}
		default:
			types[path] = fmt.Sprintf("%T", value)
		}
	}
	walk("", value)
	return types
}
