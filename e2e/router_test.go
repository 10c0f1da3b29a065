package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"
	"entrepot/geo"
)

// regions are a router in front of a node that is authoritative for names, in
// America, and of one in Germany, where the clients of the test are said to be.
func regions(t *testing.T, upstream string) (router *testenv.Router, origin, near *testenv.Node) {
	t.Helper()
	origin = startNode(t, upstream, testenv.NodeConfig{})
	near = startNode(t, upstream, testenv.NodeConfig{})
	mirror := func(name, tier, country string, lat, lon float64, url string) map[string]any {
		return map[string]any{"name": name, "urls": []string{url}, "tier": tier, "country": country, "lat": fmt.Sprint(lat), "lon": fmt.Sprint(lon)}
	}
	router = testenv.StartRouter(t, map[string]any{
		"default_upstream": upstreamName, "upstreams": map[string]any{upstreamName: map[string]any{}},
		"geo":    map[string]any{"prefixes": []map[string]any{{"prefix": "127.0.0.0/8", "country": "DE"}}},
		"probes": map[string]any{"interval": "1s"},
		"mirrors": []map[string]any{
			mirror("origin", "origin", "US", 41.3, -95.9, origin.URL()),
			mirror("eu", "trusted", "DE", 50.1, 8.7, near.URL()),
		},
	})
	awaitMirror(t, router, "eu")
	return router, origin, near
}

// awaitMirror waits until a router sends this machine to a mirror.
func awaitMirror(t *testing.T, router *testenv.Router, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	request := router.URL() + "/where?request=/v2/app/manifests/sha256:" + strings.Repeat("a", 64)
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, request, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("asking where: %v", err)
		}
		var where geo.Explanation
		err = json.NewDecoder(response.Body).Decode(&where)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if first := where.Mirrors[0]; first.Name == name && first.Rank == 1 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the router never sent this machine to %s: %+v", name, where)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestRealClientsFollowTheRouter(t *testing.T) {
	registry := testenv.StartRegistry(t)
	router, origin, near := regions(t, registry.URL())
	for _, client := range pullers(publish(t, registry.Host(), false)) {
		t.Run(client.name, func(t *testing.T) { client.pull(t, router.Source(upstreamName)) })
	}
	// Content came from the near node; of the other only names were asked.
	if n := blobsServed(t, origin); n != 0 {
		t.Errorf("%d requests for blobs went to the node that is far away", n)
	}
	if blobsServed(t, near) == 0 {
		t.Error("no blob came from the node that is near")
	}
}

// blobsServed is how many requests for blobs a node had.
func blobsServed(t *testing.T, node *testenv.Node) (n int) {
	t.Helper()
	for line := range strings.Lines(node.Metrics()) {
		if !strings.HasPrefix(line, `entrepot_requests_total{kind="blob"`) {
			continue
		}
		_, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		count, err := strconv.Atoi(value)
		if err != nil {
			t.Fatalf("the metric %s: %v", line, err)
		}
		n += count
	}
	return n
}

func TestARegionThatEndsIsReplacedByTheNext(t *testing.T) {
	registry := testenv.StartRegistry(t)
	p := publish(t, registry.Host(), false)
	router, _, near := regions(t, registry.URL())
	near.Stop()
	awaitMirror(t, router, "origin")
	for _, client := range pullers(p) {
		if client.name == "crane" || client.name == "containerd-2" {
			client.pull(t, router.Source(upstreamName))
		}
	}
}
