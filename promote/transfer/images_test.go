package transfer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"entrepot/promote/transfer"
)

// newClient makes a client that does not wait long.
func newClient(t testing.TB, change ...func(*transfer.Config)) *transfer.Client {
	t.Helper()
	cfg := transfer.Config{
		DockerConfig: t.TempDir() + "/config.json",
		FirstBackoff: time.Millisecond,
		Getenv:       func(string) string { return "" },
	}
	for _, c := range change {
		c(&cfg)
	}
	client, err := transfer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// pusher puts content into a fake registry's repository directly.
type pusher struct {
	t    testing.TB
	repo *fakeRepo
}

func (f *fakeRegistry) pusher(t testing.TB, name string) *pusher {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &pusher{t, f.repo(name)}
}

func (p *pusher) blob(content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	p.repo.blobs[d] = content
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(content))}
}

func (p *pusher) manifest(mediaType string, value any, tags ...string) ocispec.Descriptor {
	p.t.Helper()
	content, err := json.Marshal(value)
	if err != nil {
		p.t.Fatal(err)
	}
	d := digest.FromBytes(content)
	p.repo.manifests[d] = fakeManifest{mediaType, content}
	for _, tag := range tags {
		p.repo.tags[tag] = d
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// image is a manifest with a config and a layer for each of texts.
func (p *pusher) image(subject *ocispec.Descriptor, tag string, texts ...string) ocispec.Descriptor {
	p.t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Subject: subject, Config: p.blob([]byte(fmt.Sprintf(`{"of":%q}`, texts)))}
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	for _, text := range texts {
		m.Layers = append(m.Layers, p.blob([]byte(text)))
	}
	if tag == "" {
		return p.manifest(m.MediaType, m)
	}
	return p.manifest(m.MediaType, m, tag)
}

// index is the image v1 for two platforms, which share a layer.
func (p *pusher) index() ocispec.Descriptor {
	p.t.Helper()
	return p.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{
			p.image(nil, "", "shared by all", "app amd64"), p.image(nil, "", "shared by all", "app arm64"),
		},
	}, "v1")
}

// release is one of many images that are alike.
func (p *pusher) release(i int) ocispec.Descriptor {
	p.t.Helper()
	return p.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{
			p.image(nil, "", "shared by all", fmt.Sprint("amd64 of ", i)), p.image(nil, "", "shared by all", fmt.Sprint("arm64 of ", i)),
		},
	})
}

func ofRepo(f *fakeRegistry, name string) transfer.Repository {
	return transfer.Repository{Host: f.host(), Name: name}
}

func randomBytes(n int) []byte {
	content := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	return content
}

// sameContent fails unless every manifest and blob of a source repository is
// at the destination.
func sameContent(t *testing.T, from, to *fakeRepo) {
	t.Helper()
	for d, m := range from.manifests {
		if got, found := to.manifests[d]; !found || !bytes.Equal(got.content, m.content) || got.mediaType != m.mediaType {
			t.Errorf("manifest %s is not at the destination as it was: %s", d, m.content)
		}
	}
	for d := range from.blobs {
		if _, found := to.blobs[d]; !found {
			t.Errorf("blob %s is not at the destination", d)
		}
	}
}

func TestCopyBringsTheWholeImageWithAllThatIsAboutIt(t *testing.T) {
	for _, api := range []struct{ from, to bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		t.Run(fmt.Sprintf("referrers API from %v to %v", api.from, api.to), func(t *testing.T) {
			from, to := newFakeRegistry(t), newFakeRegistry(t)
			from.referrersAPI, to.referrersAPI = api.from, api.to
			p := from.pusher(t, "staging/app")
			root := p.index()
			sbom := p.image(&root, "", "a bill of materials")
			signed := p.image(&sbom, "", "a signature of the bill")
			if !api.from {
				p.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{
					MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{sbom},
				}, "sha256-"+root.Digest.Encoded())
				p.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{
					MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{signed},
				}, "sha256-"+sbom.Digest.Encoded())
			}
			sig := p.image(nil, "sha256-"+root.Digest.Encoded()+".sig", "a cosign signature")
			att := p.image(nil, "sha256-"+sig.Digest.Encoded()+".att", "an attestation of the signature")

			got, err := newClient(t).Copy(t.Context(), transfer.Copy{
				From: ofRepo(from, "staging/app"), To: ofRepo(to, "prod/app"), Digest: root.Digest, Tags: []string{"v1", "latest"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got.Root.Digest != root.Digest || got.Root.Size != root.Size || got.Root.MediaType != root.MediaType || got.Present {
				t.Errorf("root is %+v, present %v", got.Root, got.Present)
			}
			if len(got.Attached) != 4 || len(got.Lost) != 0 || len(got.Kept) != 0 {
				t.Errorf("attached %d (want 4), lost %v, kept %v", len(got.Attached), got.Lost, got.Kept)
			}
			prod := to.repo("prod/app")
			if api.from { // the lists at tags are the source's own
				sameContent(t, p.repo, prod)
			}
			want := map[string]digest.Digest{
				"v1": root.Digest, "latest": root.Digest,
				"sha256-" + root.Digest.Encoded() + ".sig": sig.Digest, "sha256-" + sig.Digest.Encoded() + ".att": att.Digest,
			}
			for tag, d := range want {
				if prod.tags[tag] != d {
					t.Errorf("tag %s is %s, want %s", tag, prod.tags[tag], d)
				}
			}
			for subject, referrer := range map[digest.Digest]digest.Digest{root.Digest: sbom.Digest, sbom.Digest: signed.Digest} {
				list := prod.manifests[prod.tags["sha256-"+subject.Encoded()]].content
				if listed := strings.Contains(string(list), referrer.String()); listed == api.to {
					t.Errorf("list of the referrers of %s: %q", subject, list)
				}
			}
			// The fake refuses manifests before what they name; tags come last.
			writes := to.requests(http.MethodPut)
			if last := writes[len(writes)-2:]; !strings.HasSuffix(last[0], "/v1") || !strings.HasSuffix(last[1], "/latest") {
				t.Errorf("the last writes are %q, want the tags", last)
			}
		})
	}
}

func TestCopyOfWhatIsThereAsksOnly(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	root := from.pusher(t, "app").index()
	what := transfer.Copy{From: ofRepo(from, "app"), To: ofRepo(to, "app"), Digest: root.Digest}
	if _, err := newClient(t).Copy(t.Context(), what); err != nil {
		t.Fatal(err)
	}

	to.forget()
	var counters transfer.Counters
	got, err := newClient(t, func(c *transfer.Config) { c.Progress = &counters }).Copy(t.Context(), what)
	if err != nil || !got.Present {
		t.Fatalf("present %v, %v", got.Present, err)
	}
	if writes := to.requests(http.MethodPost, http.MethodPut, http.MethodPatch); len(writes) != 0 {
		t.Errorf("wrote %q", writes)
	}
	if n := counters.Counts(); n.BlobsPresent != 5 || n.BlobsSent != 0 || n.Bytes != 0 {
		t.Errorf("counts %+v, want the 5 blobs present", n)
	}

	to.forget()
	from.forget()
	what.Trusted = true
	if got, err = newClient(t).Copy(t.Context(), what); err != nil || !got.Present || got.Root.Digest != root.Digest {
		t.Fatalf("%+v, %v", got, err)
	}
	if asked := len(to.requests()) + len(from.requests()); asked != 1 {
		t.Errorf("a trusted image costs %d requests, want 1", asked)
	}
}

func TestCopyIntoAnOrigin(t *testing.T) {
	from := newFakeRegistry(t)
	p := from.pusher(t, "app")
	root := p.index()
	sbom := p.image(&root, "", "a bill of materials")
	p.image(nil, "sha256-"+root.Digest.Encoded()+".sig", "a signature")
	to := transfer.Repository{Host: newOriginRegistry(t), Name: "prod/app"}
	client := newClient(t)
	got, err := client.Copy(t.Context(), transfer.Copy{From: ofRepo(from, "app"), To: to, Digest: root.Digest, Tags: []string{"v1"}})
	if err != nil || len(got.Attached) != 2 {
		t.Fatalf("attached %+v, %v", got.Attached, err)
	}
	for _, d := range []digest.Digest{root.Digest, sbom.Digest} {
		if err := client.Verify(t.Context(), to, d); err != nil {
			t.Error(err)
		}
	}
	if tags, err := client.Tags(t.Context(), to); err != nil || len(tags) != 2 {
		t.Errorf("tags %q, %v", tags, err)
	}
}

func TestBlobsAreMountedWhereTheRegistryHoldsThem(t *testing.T) {
	reg := newFakeRegistry(t)
	root := reg.pusher(t, "staging/app").index()
	other := newFakeRegistry(t)
	var counters transfer.Counters
	client := newClient(t, func(c *transfer.Config) { c.Progress = &counters })
	for _, to := range []transfer.Repository{ofRepo(reg, "prod/app"), ofRepo(other, "one"), ofRepo(other, "two")} {
		if _, err := client.Copy(t.Context(), transfer.Copy{From: ofRepo(reg, "staging/app"), To: to, Digest: root.Digest}); err != nil {
			t.Fatal(err)
		}
	}
	// From staging within the first registry, then once over the network, and
	// from "one" into "two".
	if n := counters.Counts(); n.BlobsMounted != 10 || n.BlobsSent != 5 || n.BlobsPresent != 0 {
		t.Errorf("counts %+v, want 10 mounted and 5 sent", n)
	}
	sameContent(t, reg.repo("staging/app"), other.repo("two"))
}

func TestBlobsAreSentWhereTheRegistryMountsNone(t *testing.T) {
	reg := newFakeRegistry(t)
	reg.mounts = false
	p := reg.pusher(t, "staging/app")
	root := p.index()
	if _, err := newClient(t).Copy(t.Context(), transfer.Copy{From: ofRepo(reg, "staging/app"), To: ofRepo(reg, "prod/app"), Digest: root.Digest}); err != nil {
		t.Fatal(err)
	}
	sameContent(t, p.repo, reg.repo("prod/app"))
	if posts := reg.requests(http.MethodPost); len(posts) != 5 {
		t.Errorf("%d sessions for 5 blobs: %q", len(posts), posts)
	}
}

func TestForeignLayersAreNeitherFetchedNorSent(t *testing.T) {
	from, to, elsewhere := newFakeRegistry(t), newFakeRegistry(t), newFakeRegistry(t)
	p := from.pusher(t, "app")
	root := p.manifest("application/vnd.docker.distribution.manifest.v2+json", map[string]any{
		"mediaType": "application/vnd.docker.distribution.manifest.v2+json",
		"config":    p.blob([]byte("{}")),
		"layers": []ocispec.Descriptor{{
			MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
			Digest:    digest.FromString("far away"), Size: 8, URLs: []string{elsewhere.URL + "/layer"},
		}},
	}, "v1")
	if _, err := newClient(t).Copy(t.Context(), transfer.Copy{From: ofRepo(from, "app"), To: ofRepo(to, "app"), Digest: root.Digest, Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	if asked := elsewhere.requests(); len(asked) != 0 {
		t.Errorf("asked the layer's URL: %q", asked)
	}
}

func TestAnImageForManyDestinationsIsReadOnce(t *testing.T) {
	from := newFakeRegistry(t)
	p := from.pusher(t, "app")
	root := p.index()
	p.image(&root, "", "a bill of materials")
	client := newClient(t)
	for range 3 {
		to := newFakeRegistry(t)
		if _, err := client.Copy(t.Context(), transfer.Copy{From: ofRepo(from, "app"), To: ofRepo(to, "app"), Digest: root.Digest}); err != nil {
			t.Fatal(err)
		}
		sameContent(t, p.repo, to.repo("app"))
	}
	asked := make(map[string]int)
	for _, line := range from.requests(http.MethodGet) {
		if asked[line]++; asked[line] > 1 && !strings.Contains(line, "/blobs/") {
			t.Errorf("%s was asked for again", line)
		}
	}
}

func TestWhatWasDeletedInARunIsCopiedAgain(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	root := from.pusher(t, "app").image(nil, "v1", "layer")
	client := newClient(t)
	for range 2 {
		if _, err := client.Copy(t.Context(), transfer.Copy{From: ofRepo(from, "app"), To: ofRepo(to, "app"), Digest: root.Digest}); err != nil {
			t.Fatal(err)
		}
		if _, there := to.repo("app").manifests[root.Digest]; !there {
			t.Fatal("the image is not there")
		}
		if err := client.DeleteManifest(t.Context(), ofRepo(to, "app"), root.Digest); err != nil {
			t.Fatal(err)
		}
	}
}
