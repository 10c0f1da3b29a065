package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v3"
)

const (
	smallBytes = 64 << 20  // of the blob that is asked for warm, and slowly
	largeBytes = 512 << 20 // of the blob that is asked for cold
)

// acceptManifest is what wrk and the clients accept.
const acceptManifest = ocispec.MediaTypeImageManifest

// world is the upstream, what it holds, and the servers.
type world struct {
	relay        *testenv.Relay
	small, large testenv.Artifact
	files        string // folder of the files that are served by name
	filesURL     string // where servers have them from
	servers      map[string]*server
	peers        []string // programs and their versions
	missing      []string // which peers there are not, and why
}

// newWorld starts everything that the cases need.
func newWorld(t testing.TB, o options) *world {
	t.Helper()
	progress("starting the upstream, and storing 576 MiB in it")
	upstream := testenv.StartRegistry(t)
	w := &world{
		relay:   testenv.StartRelay(t, upstream.Host()),
		small:   testenv.PushBigImage(t, upstream.Host(), "bench/small", "v1", smallBytes),
		large:   testenv.PushBigImage(t, upstream.Host(), "bench/large", "v1", largeBytes),
		servers: map[string]*server{},
	}
	w.startFiles(t)
	w.servers[direct] = &server{name: direct, url: w.relay.URL()}
	w.servers[entrepot] = w.startEntrepot(t, o.entrepot)
	w.startPeers(t)
	return w
}

// some returns those of the servers that there are.
func (w *world) some(names ...string) []*server {
	var some []*server
	for _, name := range names {
		if s := w.servers[name]; s != nil {
			some = append(some, s)
		}
	}
	return some
}

// startEntrepot starts a node with the defaults of its configuration, but for
// the access log, which no other server here has either.
func (w *world) startEntrepot(t testing.TB, binary string) *server {
	t.Helper()
	if binary == "" {
		progress("building entrepot")
		binary = harness.BuildEntrepot(t)
	}
	address, admin := freeAddress(t), freeAddress(t)
	cache := t.TempDir()
	config, err := yaml.Marshal(map[string]any{
		"log":   map[string]any{"access": false},
		"admin": map[string]any{"listen": admin},
		"node": map[string]any{
			"listen":           address,
			"store":            map[string]any{"dir": cache},
			"default_upstream": "upstream.test",
			"upstreams":        map[string]any{"upstream.test": map[string]any{"urls": []string{w.relay.URL()}}},
			"files":            map[string]any{"files": map[string]any{"urls": []string{w.filesURL}}},
		},
	})
	if err != nil {
		t.Fatalf("writing the node's configuration: %v", err)
	}
	file := writeConfig(t, "entrepot.yaml", string(config))
	s := startServer(t, entrepot, "http://"+address, cache, testenv.ProcessConfig{
		Path:  binary,
		Args:  []string{"serve", "--config", file},
		Ready: func(ctx context.Context) error { return awaitOK(ctx, "http://"+admin+"/readyz") },
	})
	s.admin = "http://" + admin
	return s
}

// awaitOK asks url until it answers 200, every millisecond, because the time
// until then is a figure of its own.
func awaitOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("%s from %s", response.Status, url)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func manifestPath(a testenv.Artifact, reference string) string {
	return "/v2/" + a.Repository + "/manifests/" + reference
}

// blob is the layer of an image that has one.
func blob(a testenv.Artifact) ocispec.Descriptor { return a.Blobs[0] }

func blobPath(a testenv.Artifact, d digest.Digest) string {
	return "/v2/" + a.Repository + "/blobs/" + d.String()
}

func freeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
}

// writeConfig writes a configuration file in a directory of its own.
func writeConfig(t testing.TB, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatalf("writing a configuration: %v", err)
	}
	return file
}

// progress says what goes on; the table alone is for standard output.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
