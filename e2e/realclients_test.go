// Package e2e holds the tests of the whole system: the entrepot binary between
// real clients and real servers. Package testenv starts those.
package e2e

import (
	"slices"
	"testing"

	"entrepot/e2e/testenv"
)

// bigLayer is the size of the layer that shows what happens to what neither
// memory nor a client's patience holds.
const bigLayer = 1 << 30

// published is what the upstream of the tests holds.
type published struct {
	multi     testenv.Artifact // image index, two platforms
	big       testenv.Artifact // image with one layer of bigLayer bytes
	file      testenv.Artifact // OCI artifact
	referrers []testenv.Artifact
	signature testenv.Artifact // cosign's, of multi
	chart     testenv.Artifact
}

// publish fills a registry. The big image is pushed only when it is wanted.
func publish(t *testing.T, host string, withBig bool) published {
	t.Helper()
	p := published{
		multi: testenv.PushIndex(t, host, "library/multi", "1.0"),
		file:  testenv.PushFile(t, host, "library/file", "1.0", 3<<20),
		chart: testenv.PushChart(t, host, "charts/demo", "1.2.3"),
	}
	p.signature = testenv.PushCosignSignature(t, host, p.multi)
	p.referrers = testenv.PushReferrers(t, host, p.file)
	if withBig {
		p.big = testenv.PushBigImage(t, host, "library/big", "1.0", bigLayer)
	}
	return p
}

// puller is a client, and what it can pull of what is published.
type puller struct {
	name   string
	client testenv.Client
	pulls  []testenv.Artifact
}

// pullers lists the clients, each with what it can pull.
func pullers(p published) []puller {
	list := []puller{
		{"containerd-1.6", testenv.Containerd{Version: 1}, []testenv.Artifact{p.multi}},
		{"containerd-2", testenv.Containerd{Version: 2}, []testenv.Artifact{p.multi, p.file}},
		{"containerd-2-parallel", testenv.Containerd{Version: 2, Parallel: true}, []testenv.Artifact{p.multi, p.big}},
		{"dockerd", testenv.Dockerd{}, []testenv.Artifact{p.multi}},
		{"podman", testenv.Podman{}, []testenv.Artifact{p.multi}},
		{"skopeo", testenv.Skopeo{}, []testenv.Artifact{p.multi, p.file, p.signature, p.big}},
		{"crane", testenv.Crane{}, []testenv.Artifact{p.multi, p.file, p.signature, p.chart, p.big}},
		{"oras", testenv.Oras{}, []testenv.Artifact{p.file, p.referrers[0], p.referrers[1]}},
		{"helm", testenv.Helm{}, []testenv.Artifact{p.chart}},
	}
	for i := range list {
		list[i].pulls = slices.DeleteFunc(list[i].pulls, func(a testenv.Artifact) bool { return a.Repository == "" })
	}
	return list
}

// pull pulls everything a client can pull, with fresh client state each time.
func (p puller) pull(t *testing.T, from testenv.Source) {
	t.Helper()
	for _, a := range p.pulls {
		if got := p.client.Pull(t, from, a); !slices.Contains(a.Manifests, got) {
			t.Errorf("%s says it pulled %s as %s, want one of %s", p.name, a.Name(), got, a.Manifests)
		}
	}
}

// upstreamName is the upstream's name on every node here: dockerd has mirrors
// for this one only.
const upstreamName = "docker.io"

// startNode starts a node whose one upstream is the given base URL.
func startNode(t *testing.T, upstream string, config testenv.NodeConfig) *testenv.Node {
	t.Helper()
	config.Upstreams = map[string][]string{upstreamName: {upstream}}
	config.DefaultUpstream = upstreamName
	return testenv.StartNode(t, config)
}

// Each client has a node of its own, which starts empty.
func TestRealClientsPullThroughNode(t *testing.T) {
	registry := testenv.StartRegistry(t)
	for _, client := range pullers(publish(t, registry.Host(), true)) {
		t.Run(client.name, func(t *testing.T) {
			upstream := testenv.StartTap(t, registry.URL())
			node := startNode(t, upstream.URL(), testenv.NodeConfig{})
			from := node.Source(upstreamName)

			t.Run("first pull comes from upstream", func(t *testing.T) {
				client.pull(t, from)
				fetchedOnce(t, upstream.Requests(), client.pulls)
			})
			t.Run("second pull comes from the store", func(t *testing.T) {
				upstream.Reset()
				client.pull(t, from)
				for _, request := range upstream.Requests() {
					if request.IsBlobGet() || request.IsPull() {
						t.Errorf("upstream was asked again: %s", request)
					}
				}
			})
			t.Run("third pull needs no upstream", func(t *testing.T) {
				upstream.Close()
				client.pull(t, from)
			})
			t.Run("nor does a node that starts without it", func(t *testing.T) {
				node.Stop()
				node.Start()
				client.pull(t, from)
			})
		})
	}
}

// fetchedOnce checks that each blob left upstream once, however the clients
// asked for it, and that no blob did that they had not asked for, such as those
// of another platform.
func fetchedOnce(t *testing.T, requests []testenv.TapRequest, asked []testenv.Artifact) {
	t.Helper()
	wanted := map[string]bool{}
	for _, a := range asked {
		for _, blob := range a.Blobs {
			wanted["/v2/"+a.Repository+"/blobs/"+blob.Digest.String()] = true
		}
	}
	fetched := map[string]int{}
	for _, request := range requests {
		if request.IsBlobGet() {
			fetched[request.Path]++
		}
	}
	if len(fetched) == 0 {
		t.Error("no blob was fetched from upstream: the clients were served by something else")
	}
	for path, times := range fetched {
		if times != 1 {
			t.Errorf("upstream was asked %d times for %s, want once", times, path)
		}
		if !wanted[path] {
			t.Errorf("upstream was asked for %s, which no client wanted", path)
		}
	}
}

func TestReferrersAreDiscoveredThroughNode(t *testing.T) {
	registry := testenv.StartRegistry(t)
	subject := testenv.PushFile(t, registry.Host(), "library/file", "1.0", 1<<10)
	var want []string
	for _, referrer := range testenv.PushReferrers(t, registry.Host(), subject) {
		want = append(want, referrer.Root.Digest.String())
	}
	slices.Sort(want)

	node := startNode(t, registry.URL(), testenv.NodeConfig{})
	discover := func(t *testing.T) {
		t.Helper()
		var got []string
		for _, d := range (testenv.Oras{}).Discover(t, node.Source(upstreamName), subject) {
			got = append(got, d.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("oras discovered %v, want %v", got, want)
		}
	}
	// Distribution has no referrers API: the node finds them by the fallback tag.
	t.Run("from upstream's fallback tag", discover)
	registry.Stop()
	t.Run("with upstream stopped", discover)
}
