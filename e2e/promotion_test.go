package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// visible is how soon after an apply a node's clients have to see it.
const visible = 2 * time.Second

// production is an origin with its ledger, a staging registry, and a node that
// follows the ledger.
type production struct {
	staging *testenv.Registry
	origin  *testenv.Origin
	node    *testenv.Node
	ledger  string // URL of the ledger's directory
	key     string // private key; the public one is key+".pub"
	file    string // the configuration, a plain file of images
}

// productionName is what clients of the node call production.
const productionName = "production.test"

func startProduction(t *testing.T, store map[string]any) *production {
	t.Helper()
	dir := t.TempDir()
	p := &production{
		staging: testenv.StartRegistry(t),
		ledger:  (&url.URL{Scheme: "file", Path: filepath.Join(dir, "ledger")}).String(),
		key:     filepath.Join(dir, "ledger.key"),
		file:    filepath.Join(dir, "app.yaml"),
	}
	if made := testenv.Entrepot(t, dir, "ledger", "keygen", "--name", "production.test/ledger", "--out", p.key); made.Status != 0 {
		t.Fatal("no key")
	}
	p.origin = testenv.StartOrigin(t, testenv.OriginConfig{Store: store, Ledger: p.ledger, Race: true})
	p.node = testenv.StartNode(t, testenv.NodeConfig{
		Race:            true,
		DefaultUpstream: productionName,
		Extra: map[string]any{"upstreams": map[string]any{productionName: map[string]any{
			"urls":   []string{p.origin.URL()},
			"ledger": map[string]any{"url": p.origin.URL() + "/ledger", "key": p.key + ".pub"},
		}}},
	})
	return p
}

// listed is an image as the configuration lists it.
type listed struct {
	name    string
	digests map[digest.Digest][]string // tags
}

// configure writes the configuration; more is added to its list.
func (p *production) configure(t *testing.T, images []listed, more ...string) {
	t.Helper()
	text := p.text(p.origin.Host()+"/app", images) + strings.Join(more, "")
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// text is the configuration of images from staging to a destination.
func (p *production) text(destination string, images []listed) string {
	text := "registries:\n"
	text += "- name: " + p.staging.Host() + "/staging\n  src: true\n"
	text += "- name: " + destination + "\nmutable_tags: [\"stable\"]\nimages:\n"
	for _, image := range images {
		text += "- name: " + image.name + "\n  dmap:\n"
		for d, tags := range image.digests {
			text += fmt.Sprintf("    %q: [", d)
			for i, tag := range tags {
				if i > 0 {
					text += ", "
				}
				text += fmt.Sprintf("%q", tag)
			}
			text += "]\n"
		}
	}
	return text
}

// promote runs entrepot promote with the ledger and its key.
func (p *production) promote(t *testing.T, status int, command string, args ...string) testenv.Command {
	t.Helper()
	args = append([]string{"promote", command, "--ledger", p.ledger, "--ledger-key", p.key}, args...)
	got := testenv.Entrepot(t, p.origin.Docker, args...)
	if got.Status != status {
		t.Fatalf("status %d, want %d", got.Status, status)
	}
	return got
}

// seen waits until the node answers a manifest with a status, and a digest if
// that is 200.
func (p *production) seen(t *testing.T, repository, reference string, status int, want digest.Digest) {
	t.Helper()
	path := p.node.URL() + "/v2/app/" + repository + "/manifests/" + reference
	var last string
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil && response.StatusCode == status && (status != http.StatusOK || digest.FromBytes(body) == want) {
			return
		}
		last = fmt.Sprintf("%s %s: %.300s", response.Status, digest.FromBytes(body), body)
		if time.Since(start) > visible {
			t.Fatalf("%s after %v: %s; want %d %s", path, visible, last, status, want)
		}
	}
}

func TestPromotionIsWhatClientsOfANodeSee(t *testing.T) {
	s3 := testenv.StartMinIO(t)
	p := startProduction(t, map[string]any{"s3": map[string]any{
		"endpoint": s3.Endpoint, "bucket": s3.NewBucket(t), "region": s3.Region, "access_key": s3.AccessKey, "secret_key": s3.SecretKey,
	}})
	multi := testenv.PushIndex(t, p.staging.Host(), "staging/multi", "rc1")
	referrers := testenv.PushReferrers(t, p.staging.Host(), multi)
	signature := testenv.PushCosignSignature(t, p.staging.Host(), multi)
	second := testenv.PushFile(t, p.staging.Host(), "staging/tool", "rc1", 1<<20)
	newer := testenv.PushFile(t, p.staging.Host(), "staging/tool", "rc2", 1<<20)
	big := testenv.PushBigImage(t, p.staging.Host(), "staging/big", "rc1", 500<<20)

	base := []listed{
		{"big", map[digest.Digest][]string{big.Root.Digest: {"v1"}}},
		{"multi", map[digest.Digest][]string{multi.Root.Digest: {"v1", "stable"}}},
		{"tool", map[digest.Digest][]string{second.Root.Digest: {"v1", "stable"}, newer.Root.Digest: {"v2"}}},
	}
	p.configure(t, base)
	p.promote(t, 3, "plan", p.file)
	p.promote(t, 0, "apply", p.file)
	p.promote(t, 0, "plan", p.file)

	t.Run("promoted images are pulled by tag", func(t *testing.T) {
		p.seen(t, "multi", "stable", http.StatusOK, multi.Root.Digest)
		p.seen(t, "tool", "v1", http.StatusOK, second.Root.Digest)
		for _, a := range []testenv.Artifact{multi, big} {
			a.Repository, a.Tag = strings.Replace(a.Repository, "staging", "app", 1), "v1"
			got := testenv.Containerd{Version: 2}.Pull(t, p.node.Source(productionName), a)
			if !slices.Contains(a.Manifests, got) {
				t.Errorf("containerd pulled %s, want one of %s", got, a.Manifests)
			}
		}
	})
	t.Run("signatures and bills of materials come along", func(t *testing.T) {
		p.seen(t, "multi", signature.Tag, http.StatusOK, signature.Root.Digest)
		response, err := http.Get(p.node.URL() + "/v2/app/multi/referrers/" + multi.Root.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var index ocispec.Index
		if err := json.NewDecoder(response.Body).Decode(&index); err != nil {
			t.Fatal(err)
		}
		for _, referrer := range referrers {
			if !slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == referrer.Root.Digest }) {
				t.Errorf("%s is not among the referrers %v", referrer.Tag, index.Manifests)
			}
		}
	})
	moved := slices.Clone(base)
	moved[2] = listed{"tool", map[digest.Digest][]string{second.Root.Digest: {"v1"}, newer.Root.Digest: {"v2", "stable"}}}
	t.Run("a tag moves", func(t *testing.T) {
		p.seen(t, "tool", "stable", http.StatusOK, second.Root.Digest)
		p.configure(t, moved)
		p.promote(t, 0, "apply", p.file)
		p.seen(t, "tool", "stable", http.StatusOK, newer.Root.Digest)
	})
	t.Run("a tag that may not move is a conflict and stays", func(t *testing.T) {
		p.configure(t, []listed{{"tool", map[digest.Digest][]string{newer.Root.Digest: {"v1"}}}})
		if got := p.promote(t, 1, "apply", p.file); !strings.Contains(got.Stdout, "conflict") {
			t.Errorf("the conflict is not told: %s", got.Stdout)
		}
		p.seen(t, "tool", "v1", http.StatusOK, second.Root.Digest)
	})
	t.Run("it is rolled back", func(t *testing.T) {
		p.promote(t, 0, "rollback", "--to", "5")
		p.seen(t, "tool", "stable", http.StatusOK, second.Root.Digest)
	})
	t.Run("an image is removed", func(t *testing.T) {
		p.configure(t, base[:2], "- removed: tool\n  reason: it has a new home\n")
		p.promote(t, 0, "apply", p.file)
		for _, tag := range []string{"v1", "v2", "stable"} {
			p.seen(t, "tool", tag, http.StatusNotFound, "")
		}
		p.seen(t, "multi", "v1", http.StatusOK, multi.Root.Digest)
	})
	t.Run("a digest is revoked", func(t *testing.T) {
		p.configure(t, base[:1], fmt.Sprintf("- revoked: %q\n  reason: CVE-2026-0001\n", multi.Root.Digest))
		p.promote(t, 0, "apply", p.file)
		p.seen(t, "multi", multi.Root.Digest.String(), http.StatusUnavailableForLegalReasons, "")
		p.seen(t, "multi", "v1", http.StatusUnavailableForLegalReasons, "")
		p.seen(t, "big", "v1", http.StatusOK, big.Root.Digest)
	})
	t.Run("the ledger proves all of it", func(t *testing.T) {
		for _, location := range []string{p.ledger, p.origin.URL() + "/ledger"} {
			got := testenv.Entrepot(t, t.TempDir(), "ledger", "verify", "--ledger", location, "--key", p.key+".pub",
				p.origin.Host()+"/app/big:v1@"+big.Root.Digest.String())
			if got.Status != 0 {
				t.Errorf("verifying %s: status %d", location, got.Status)
			}
		}
	})
	t.Run("an audit finds what was done behind promotion's back", func(t *testing.T) {
		p.promote(t, 0, "audit", "--deep")
	})
}
