package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
)

// regions are a router in front of a node that is authoritative for names, in
// America, and of one in Germany, where the clients of the test are said to be.
func regions(t *testing.T, upstream string) (router *testenv.Router, origin, near *testenv.Tap) {
	t.Helper()
	origin = testenv.StartTap(t, startNode(t, upstream, testenv.NodeConfig{}).URL())
	near = testenv.StartTap(t, startNode(t, upstream, testenv.NodeConfig{}).URL())
	mirror := func(name, tier, country string, lat, lon float64, url string) map[string]any {
		return map[string]any{"name": name, "urls": []string{url}, "tier": tier, "country": country, "lat": fmt.Sprint(lat), "lon": fmt.Sprint(lon)}
	}
	router = testenv.StartRouter(t, testenv.RouterConfig{Section: map[string]any{
		"default_upstream": upstreamName, "upstreams": map[string]any{upstreamName: map[string]any{}},
		"geo":    map[string]any{"prefixes": []map[string]any{{"prefix": "127.0.0.0/8", "country": "DE"}}},
		"probes": map[string]any{"interval": "1s"},
		"mirrors": []map[string]any{
			mirror("origin", "origin", "US", 41.3, -95.9, origin.URL()),
			mirror("eu", "trusted", "DE", 50.1, 8.7, near.URL()),
		},
	}})
	awaitMirror(t, router, "eu")
	return router, origin, near
}

// awaitMirror waits until a router sends this machine to a mirror.
func awaitMirror(t *testing.T, router *testenv.Router, name string) {
	t.Helper()
	becomes(t, router, "", "/v2/app/manifests/sha256:"+strings.Repeat("a", 64), first(name))
}

func TestRealClientsFollowTheRouterAndKeepTheirCredentials(t *testing.T) {
	registry := testenv.StartRegistry(t)
	router, origin, near := regions(t, registry.URL())
	from := router.Source(upstreamName)
	from.Login = true
	for _, client := range pullers(publish(t, registry.Host(), false)) {
		t.Run(client.name, func(t *testing.T) {
			near.Reset()
			client.pull(t, from)
			// Content came from the near node; of the other only names were asked.
			if !slices.ContainsFunc(near.Requests(), testenv.TapRequest.IsBlobGet) {
				t.Error("no blob came from the node that is near")
			}
			for _, r := range append(origin.Requests(), near.Requests()...) {
				if r.Authorization != "" {
					t.Errorf("a node was sent credentials: %s", r)
				}
			}
		})
	}
	if slices.ContainsFunc(origin.Requests(), testenv.TapRequest.IsBlobGet) {
		t.Error("blobs came from the node that is far away")
	}
}

func TestARegionThatEndsIsReplacedByTheNext(t *testing.T) {
	registry := testenv.StartRegistry(t)
	p := publish(t, registry.Host(), false)
	router, _, near := regions(t, registry.URL())
	near.Close()
	awaitMirror(t, router, "origin")
	for _, client := range pullers(p) {
		if client.name == "crane" || client.name == "containerd-2" {
			client.pull(t, router.Source(upstreamName))
		}
	}
}
