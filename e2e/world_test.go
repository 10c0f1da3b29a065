package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/e2e/testenv"
	"entrepot/geo"
)

// The networks of clients in places that have no node: one has a bucket nearby,
// and one a mirror that lies.
const (
	bucketClients = "198.18.0.0/24"
	liarsClients  = "198.18.1.0/24"
)

// liar is a mirror that has everything, and all of it wrong.
type liar struct {
	*httptest.Server

	mu    sync.Mutex
	asked []string
}

func startLiar(t *testing.T) *liar {
	t.Helper()
	l := &liar{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.asked = append(l.asked, r.Method+" "+r.URL.Path)
		l.mu.Unlock()
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Repeat("lie ", 4<<20)))
	}))
	t.Cleanup(l.Close)
	return l
}

// names are the requests for what only who is authoritative may say.
func (l *liar) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.asked), func(r string) bool { return !strings.Contains(r, "/manifests/") && !strings.Contains(r, "/tags/") })
}

// door is where clients come to.
type door interface{ URL() string }

// where is how the router explains a request to a client.
func where(t *testing.T, router door, client, request string) geo.Explanation {
	t.Helper()
	query := url.Values{"request": {request}, "size": {"1048576"}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, router.URL()+"/where?"+query.Encode(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if client != "" {
		req.Header.Set("X-Forwarded-For", client)
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var e geo.Explanation
	if err := json.NewDecoder(response.Body).Decode(&e); err != nil || len(e.Mirrors) == 0 {
		t.Fatalf("/where says %s, %v", response.Status, err)
	}
	return e
}

// becomes waits until what the router explains is as wanted.
func becomes(t *testing.T, router door, client, request string, wanted func(geo.Explanation) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		e := where(t, router, client, request)
		if wanted(e) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the router still says %+v", e)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func first(name string) func(geo.Explanation) bool {
	return func(e geo.Explanation) bool { return e.Mirrors[0].Name == name && e.Mirrors[0].Rank == 1 }
}

// aBlob is a path of a blob that nobody has to have.
const aBlob = "/v2/app/blobs/sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// startWorld starts a world with its origin in a bucket, which is a mirror too, and
// a mirror that lies.
func startWorld(t *testing.T) (*testenv.World, *liar) {
	t.Helper()
	s3 := testenv.StartMinIO(t)
	bucket, lies := s3.NewBucket(t), startLiar(t)
	s3.Publish(t, bucket)
	w := testenv.StartWorld(t, testenv.WorldConfig{
		Race: true,
		Origin: testenv.OriginConfig{Store: map[string]any{"s3": map[string]any{
			"endpoint": s3.Endpoint, "bucket": bucket, "region": s3.Region, "access_key": s3.AccessKey, "secret_key": s3.SecretKey,
		}}},
		Mirrors: func(*testenv.World) []map[string]any {
			return []map[string]any{
				{
					"name": "bucket-za", "kind": "bucket", "tier": "trusted", "country": "ZA", "lat": "-26.2", "lon": "28", "prefixes": []string{bucketClients},
					"urls": []string{s3.Endpoint + "/" + bucket + "/blobs/sha256/{hex2}/{hex}/data"}, "incomplete": true,
				},
				{"name": "liar-br", "tier": "community", "country": "BR", "lat": "-23.5", "lon": "-46.6", "prefixes": []string{liarsClients}, "urls": []string{lies.URL}},
			}
		},
	})
	return w, lies
}

func TestOneNameForTheWorld(t *testing.T) {
	w, lies := startWorld(t)
	for _, r := range w.Regions {
		becomes(t, w.Router, r.Client(), aBlob, first(r.Name))
	}
	becomes(t, w.Router, "198.18.1.10", aBlob, first("liar-br"))

	multi := testenv.PushIndex(t, w.Staging.Host(), "library/multi", "1.0")
	big := testenv.PushBigImage(t, w.Staging.Host(), "library/big", "1.0", 64<<20)
	tool := strings.Repeat("a tool that is large enough to be split\n", 1<<20)
	w.Promote(testenv.Release{
		Images: []testenv.Artifact{multi, big},
		Files:  map[string]string{"v1.0.0/bin/tool": tool, "stable.txt": "v1.0.0\n"},
	})

	t.Run("the mirror that lies is quarantined, and was never asked for names", func(t *testing.T) {
		becomes(t, w.Router, "198.18.1.10", aBlob, func(e geo.Explanation) bool {
			return slices.ContainsFunc(e.Mirrors, func(m geo.MirrorPlace) bool {
				return m.Name == "liar-br" && m.Rank == 0 && strings.Contains(m.Reason, "quarantined")
			})
		})
	})
	crane := puller{"crane", testenv.Crane{}, []testenv.Artifact{multi}}
	for i := range w.Regions {
		r := &w.Regions[i]
		t.Run("clients in "+r.Name+" are served there", func(t *testing.T) {
			door := w.Forwarder(r.Client())
			from := testenv.Source{Address: strings.TrimPrefix(door.URL(), "http://"), Upstream: testenv.WorldImages}
			eventually(t, door.URL()+"/v2/library/multi/manifests/1.0", http.StatusOK, string(multi.Manifests[0]))
			for _, client := range []puller{
				crane, {"containerd-2", testenv.Containerd{Version: 2}, crane.pulls}, {"dockerd", testenv.Dockerd{}, crane.pulls},
			} {
				r.Door.Reset()
				client.pull(t, from)
				if n := len(slices.DeleteFunc(r.Door.Requests(), func(r testenv.TapRequest) bool { return !r.IsBlobGet() })); n < len(multi.Blobs) {
					t.Errorf("%s had %d blobs from there, want %d", client.name, n, len(multi.Blobs))
				}
			}
			dir := t.TempDir()
			r.Door.Reset()
			runClient(t, dir, testenv.Debian(t, "curl", "curl"), "-fsSL", "-u", "me:secret", "-O", door.URL()+"/release/v1.0.0/bin/tool")
			wantFile(t, filepath.Join(dir, "tool"), []byte(tool))
			requests := slices.DeleteFunc(r.Door.Requests(), func(r testenv.TapRequest) bool { // those of probes
				return r.Path != "/"+testenv.WorldFiles+"/release/v1.0.0/bin/tool" || r.Range != ""
			})
			if len(requests) != 1 || requests[0].Authorization != "" {
				t.Errorf("curl's requests there: %+v", requests)
			}
		})
	}
	t.Run("a bucket serves blobs", func(t *testing.T) {
		door := w.Forwarder("198.18.0.10")
		crane.pull(t, testenv.Source{Address: strings.TrimPrefix(door.URL(), "http://"), Upstream: testenv.WorldImages})
		for _, b := range multi.Blobs {
			if b.Size < 128<<10 {
				continue
			}
			request := "/v2/library/multi/blobs/" + string(b.Digest)
			response := askOnly(t, door.URL()+request)
			if location := response.Header.Get("Location"); !strings.HasSuffix(location, b.Digest.Encoded()+"/data") {
				t.Errorf("%s: %s, sent to %s", request, response.Status, location)
			}
		}
	})
	t.Run("aria2 takes a file from two mirrors by its Metalink", func(t *testing.T) {
		door := w.Forwarder(w.Regions[1].Client())
		for _, r := range w.Regions {
			r.Door.Reset()
		}
		dir := t.TempDir()
		aria2 := testenv.Debian(t, "aria2c", "aria2")
		runClient(t, dir, aria2, "--follow-metalink=mem", "--metalink-preferred-protocol=none",
			// All servers here are one host to it.
			"-q", "-s", "4", "-x", "4", "-k", "1M", "--uri-selector=inorder", door.URL()+"/release/v1.0.0/bin/tool.meta4")
		wantFile(t, filepath.Join(dir, "tool"), []byte(tool))
		// As everybody calls it; it says by itself that it takes Metalinks.
		dir = t.TempDir()
		runClient(t, dir, aria2, "-q", door.URL()+"/release/v1.0.0/bin/tool")
		wantFile(t, filepath.Join(dir, "tool"), []byte(tool))
		var from []string
		for _, r := range w.Regions {
			if slices.ContainsFunc(r.Door.Requests(), func(r testenv.TapRequest) bool { return r.Range != "" && r.Bytes > 1<<17 }) {
				from = append(from, r.Name)
			}
		}
		if len(from) < 2 {
			t.Errorf("it came from %q only: %v, %v", from, w.Regions[0].Door.Requests(), w.Regions[1].Door.Requests())
		}
	})
	t.Run("a region ends in the middle of a pull, and the pull goes on elsewhere", func(t *testing.T) {
		eu := &w.Regions[1]
		door := w.Forwarder(eu.Client())
		eu.Door.Reset()
		eu.Door.CloseAfter(20_000_001)
		from := testenv.Source{Address: strings.TrimPrefix(door.URL(), "http://"), Upstream: testenv.WorldImages}
		puller{"containerd-2", testenv.Containerd{Version: 2}, []testenv.Artifact{big}}.pull(t, from)
		if !slices.ContainsFunc(eu.Door.Requests(), func(r testenv.TapRequest) bool { return r.IsBlobGet() && r.Bytes > 10<<20 }) {
			t.Errorf("the region served %v before it ended", eu.Door.Requests())
		}
		becomes(t, w.Router, eu.Client(), aBlob, func(e geo.Explanation) bool { return e.Mirrors[0].Name != "eu" })
		crane.pull(t, from)
		eu.Door.Open()
	})
	if names := lies.names(); len(names) > 0 {
		t.Errorf("the mirror that lies was asked for %q", names)
	}
	for _, r := range w.Regions {
		for _, request := range r.Door.Requests() {
			if request.Authorization != "" {
				t.Errorf("%s was sent credentials: %s", r.Name, request)
			}
		}
	}
}

// askOnly sends a GET without following where it leads.
func askOnly(t *testing.T, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response
}

func TestACutDownloadGoesOnElsewhere(t *testing.T) {
	w := testenv.StartWorld(t, testenv.WorldConfig{})
	content := strings.Repeat("0123456789abcde\n", 3<<20)
	w.Promote(testenv.Release{Files: map[string]string{"v1.0.0/bin/tool": content}})
	eu := &w.Regions[1]
	becomes(t, w.Router, eu.Client(), "/release/v1.0.0/bin/tool", first("eu"))
	door := w.Forwarder(eu.Client())
	eventually(t, w.Regions[0].Node.URL()+"/release/v1.0.0/bin/tool", http.StatusOK, content)
	for name, args := range map[string][]string{"curl": {"-fsSL", "-C", "-", "-O"}, "wget": {"-q", "-c", "-t", "1"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			args = append(args, door.URL()+"/release/v1.0.0/bin/tool")
			cmd := exec.CommandContext(t.Context(), testenv.Debian(t, name, name), args...)
			cmd.Dir = dir
			eu.Door.CloseAfter(20_000_001)
			if err := cmd.Run(); err == nil {
				t.Fatal("the transfer was not cut")
			}
			runClient(t, dir, testenv.Debian(t, name, name), args...)
			wantFile(t, filepath.Join(dir, "tool"), []byte(content))
			eu.Door.Open()
			becomes(t, w.Router, eu.Client(), "/release/v1.0.0/bin/tool", first("eu"))
		})
	}
}
