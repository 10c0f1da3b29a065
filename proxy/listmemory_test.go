package proxy

import (
	"fmt"
	"io"
	"net/http"
	rtmetrics "runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// liveHeap watches how much of the heap is in use, by what the garbage collector finds,
// until it is asked for the most.
func liveHeap(t *testing.T) (most func() uint64) {
	t.Helper()
	sample := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var peak uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			rtmetrics.Read(sample)
			peak = max(peak, sample[0].Value.Uint64())
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() uint64 { close(stop); <-stopped; return peak }
}

// endlessLists answers lists of so many items, each the text. It makes them as they are sent.
func endlessLists(up *script, open, item string, items int) {
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if !strings.Contains(r.URL.Path, "/tags/") && !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, open+item)
		chunk := strings.Repeat(","+item, 1000)
		for range items / 1000 {
			if _, err := io.WriteString(w, chunk); err != nil {
				return true
			}
		}
		_, _ = io.WriteString(w, "]}")
		return true
	})
}

func TestHugeListsOfAHostileUpstreamAreBoundedInMemory(t *testing.T) {
	const repositories, clients, bound = 24, 4, 320 * mib
	for name, c := range map[string]struct{ path, open, item string }{
		"tags":      {"tags/list", `{"tags":[`, `"a-tag-10ch"`},
		"referrers": {"referrers/" + string(digest.FromString("subject")), `{"manifests":[`, `{"mediaType":"x","annotations":{"a":"b"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			up := newScript(t)
			items := map[string]int{"tags": 300_000, "referrers": 100_000}[name] // some 4 MiB of JSON
			endlessLists(up, c.open, c.item, items)
			n := startNode(t, t.TempDir(), []string{up.URL}, patient, func(c *Config) { c.ListMemory = 64 * mib })
			n.Server.Config.Handler = n.Handler(registry.NewHandler(registry.Config{Backend: n.Node, ManifestMemory: 64 * mib}))
			most := liveHeap(t)
			var (
				asking  sync.WaitGroup
				mu      sync.Mutex
				answers = map[int]int{}
				holding []*http.Response
			)
			for i := range repositories * clients {
				asking.Go(func() {
					resp := n.open(t, fmt.Sprintf("/v2/r%d/%s", i/clients, c.path)) // and reads nothing of it yet
					mu.Lock()
					defer mu.Unlock()
					answers[resp.StatusCode]++
					holding = append(holding, resp)
					if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
						t.Error("503 without Retry-After")
					}
				})
			}
			asking.Wait()
			got := most()
			t.Logf("%d MiB at most in use; answers: %v", got/mib, answers)
			if got > bound {
				t.Errorf("%d MiB were in use, want at most %d", got/mib, bound/mib)
			}
			if answers[200] == 0 || answers[503] == 0 || answers[200]+answers[503] != repositories*clients {
				t.Errorf("answers: %v, want some 200 and else 503", answers)
			}
			for _, resp := range holding {
				_ = resp.Body.Close()
			}
			// Whoever comes back is served.
			for deadline := time.Now().Add(20 * time.Second); ; {
				got := n.get(t, "/v2/r0/"+c.path)
				if got.status == http.StatusOK && got.err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("when all have left, a list is answered with %v", got)
				}
			}
		})
	}
}

// What is small on the wire can be a hundred times that in memory.
func TestListOfNothingIsNoBombInMemory(t *testing.T) {
	for path, list := range map[string][2]string{
		"/v2/app/referrers/" + string(digest.FromString("subject")): {`{"manifests":[`, `{}`},
		"/v2/app/tags/list": {`{"tags":[`, `""`},
	} {
		up := newScript(t)
		endlessLists(up, list[0], list[1], 9_000_000)
		n := startNode(t, t.TempDir(), []string{up.URL}, patient)
		most := liveHeap(t)
		got := n.get(t, path)
		if peak := most(); got.status < 500 || peak > 320*mib {
			t.Errorf("%s: status %d, and %d MiB were in use", path, got.status, peak/mib)
		}
	}
}

// What was recorded is served when upstream is gone, as much of it at once as there is
// memory for.
func TestHugeListsInRecordsAreBoundedInMemory(t *testing.T) {
	const repositories, clients, bound = 24, 4, 320 * mib
	up := newScript(t)
	n := startNode(t, t.TempDir(), []string{up.URL}, patient, func(c *Config) { c.ListMemory = 64 * mib })
	n.Server.Config.Handler = n.Handler(registry.NewHandler(registry.Config{Backend: n.Node, ManifestMemory: 64 * mib}))
	list := listRecord[string]{Checked: time.Now().Add(-2 * time.Minute)} // not fresh, and good enough
	for i := range 300_000 {
		list.Items = append(list.Items, fmt.Sprintf("tag-%06d", i))
	}
	for i := range repositories {
		n.writeRecord(nameKey{n.upstreams["docker.io"], fmt.Sprintf("r%d", i), "tags"}.recordKey(listRecords), list, false)
	}
	list.Items = nil
	up.Close()
	most := liveHeap(t)
	var (
		asking  sync.WaitGroup
		mu      sync.Mutex
		answers = map[int]int{}
	)
	for i := range repositories * clients {
		asking.Go(func() {
			resp := n.open(t, fmt.Sprintf("/v2/r%d/tags/list", i/clients))
			mu.Lock()
			defer mu.Unlock()
			answers[resp.StatusCode]++
		})
	}
	asking.Wait()
	got := most()
	t.Logf("%d MiB at most in use; answers: %v", got/mib, answers)
	if got > bound {
		t.Errorf("%d MiB were in use, want at most %d", got/mib, bound/mib)
	}
	if answers[200] == 0 || answers[200]+answers[503] != repositories*clients {
		t.Errorf("answers: %v, want some 200 and else 503", answers)
	}
}
