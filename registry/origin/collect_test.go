package origin_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"entrepot/registry/origin"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func collectTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"CollectRemovesWhatNoManifestNames":          testCollect,
		"CollectKeepsWhatIsYoung":                    testCollectGrace,
		"CollectOfUntaggedKeepsWhatATagLeadsTo":      testCollectUntagged,
		"CollectKeepsEverythingItCannotRead":         testCollectDamaged,
		"CollectWhilePushingBreaksNoImage":           testCollectWhilePushing,
		"CollectKeepsABlobOfOneRepositoryForItAlone": testCollectPerRepository,
	}
}

func (s *site) collect(options origin.CollectOptions) origin.Collected {
	s.t.Helper()
	collected, err := s.origin.Collect(s.t.Context(), options)
	if err != nil {
		s.t.Fatal(err)
	}
	return collected
}

// now collects whatever its age.
var now = origin.CollectOptions{Grace: -1}

func testCollect(t *testing.T, s *site) {
	d, m := s.pushImage("a", "x", nil)
	untagged, _ := s.pushImage("a", "", nil)
	loose := s.pushBlob("a", random(50))
	deleted, deletedManifest := s.pushImage("b/c", "y", nil)
	s.want(http.StatusAccepted, "", "DELETE", manifestPath("b/c", deleted.Digest.String()), nil)

	s.clock.forward(2 * time.Second) // records keep whole seconds
	want := origin.Collected{Links: 3, Blobs: 4, Bytes: 50 + 1100 + deleted.Size}
	if got := s.collect(origin.CollectOptions{Grace: -1, DryRun: true}); got.Links != want.Links {
		t.Errorf("a dry run: %+v, want %d links", got, want.Links)
	}
	s.want(http.StatusOK, "", "GET", blobPath("a", loose.Digest), nil)
	if got := s.collect(now); got != want {
		t.Errorf("collected %+v, want %+v", got, want)
	}
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a", loose.Digest), nil)
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("b/c", deletedManifest.Layers[0].Digest), nil)
	for range 2 {
		s.want(http.StatusOK, "", "GET", manifestPath("a", "x"), nil)
		s.want(http.StatusOK, "", "GET", manifestPath("a", untagged.Digest.String()), nil)
		for _, blob := range []digest.Digest{m.Config.Digest, m.Layers[0].Digest} {
			s.want(http.StatusOK, "", "GET", blobPath("a", blob), nil)
		}
		s.want(http.StatusOK, "", "GET", manifestPath("a", d.Digest.String()), nil)
		if got := s.collect(now); got != (origin.Collected{}) {
			t.Errorf("a second time: %+v", got)
		}
		s.restart()
	}
}

func testCollectGrace(t *testing.T, s *site) {
	loose := s.pushBlob("a", random(50))
	if got := s.collect(origin.CollectOptions{}); got != (origin.Collected{}) {
		t.Errorf("of what was just pushed: %+v", got)
	}
	s.clock.forward(origin.DefaultGrace - time.Hour)
	// Mounting an old blob makes it a young one, for its repository and the store.
	s.want(http.StatusCreated, "", "POST", mountQuery("b", "mount="+loose.Digest.String()), nil)
	s.clock.forward(2 * time.Hour)
	if got := s.collect(origin.CollectOptions{}); got != (origin.Collected{Links: 1}) {
		t.Errorf("after a day: %+v, want one link", got)
	}
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a", loose.Digest), nil)
	s.want(http.StatusOK, "", "GET", blobPath("b", loose.Digest), nil)
	s.clock.forward(origin.DefaultGrace)
	if got := s.collect(origin.CollectOptions{}); got != (origin.Collected{Links: 1, Blobs: 1, Bytes: 50}) {
		t.Errorf("after two days: %+v, want the other link and the blob", got)
	}
}

func testCollectUntagged(t *testing.T, s *site) {
	child, childManifest := s.pushImage("a", "", nil)
	index := indexOf(child)
	s.want(http.StatusCreated, "", "PUT", manifestPath("a", "x"), index, "Content-Type", ocispec.MediaTypeImageIndex)
	signature, _ := s.pushImage("a", "", func(m *ocispec.Manifest) { m.Subject = &child })
	ofSignature, _ := s.pushImage("a", "", func(m *ocispec.Manifest) { m.Subject = &signature })
	loose, _ := s.pushImage("a", "", nil)
	ofLoose, _ := s.pushImage("a", "", func(m *ocispec.Manifest) { m.Subject = &loose })
	s.clock.forward(2 * time.Second)
	young := origin.CollectOptions{Untagged: true}
	if got := s.collect(young); got != (origin.Collected{}) {
		t.Errorf("of young manifests: %+v", got)
	}
	options := origin.CollectOptions{Untagged: true, Grace: -1}
	dry := options
	dry.DryRun = true
	if got := s.collect(dry); got.Manifests != 2 {
		t.Errorf("a dry run: %+v, want 2 manifests", got)
	}
	if got := s.collect(options); got.Manifests != 2 || got.Links != 4 || got.Blobs != 6 {
		t.Errorf("collected %+v, want 2 manifests and their 4 blobs", got)
	}
	for range 2 {
		for _, kept := range []digest.Digest{digest.FromBytes(index), child.Digest, signature.Digest, ofSignature.Digest} {
			s.want(http.StatusOK, "", "GET", manifestPath("a", kept.String()), nil)
		}
		for _, gone := range []digest.Digest{loose.Digest, ofLoose.Digest} {
			s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", gone.String()), nil)
		}
		if got := s.referrersOf("a", loose.Digest, ""); len(got) != 0 {
			t.Errorf("referrers of what is gone: %v", got)
		}
		s.want(http.StatusOK, "", "GET", blobPath("a", childManifest.Layers[0].Digest), nil)
		s.restart()
	}
}

func testCollectDamaged(t *testing.T, s *site) {
	d, m := s.pushImage("a", "x", nil)
	s.pushBlob("b", random(10))
	if err := s.config.Store.Delete(t.Context(), d.Digest); err != nil {
		t.Fatal(err)
	}
	s.clock.forward(time.Minute)
	before := s.storedBlobs()
	if _, err := s.origin.Collect(t.Context(), now); err == nil {
		t.Error("a manifest that cannot be read is no error")
	}
	if after := s.storedBlobs(); after != before {
		t.Errorf("%d of %d blobs are left", after, before)
	}
	s.want(http.StatusOK, "", "GET", blobPath("a", m.Layers[0].Digest), nil)
}

func testCollectPerRepository(_ *testing.T, s *site) {
	_, m := s.pushImage("a", "x", nil)
	layer := m.Layers[0].Digest
	s.want(http.StatusCreated, "", "POST", mountQuery("b", "mount="+layer.String()), nil)
	s.clock.forward(2 * time.Second)
	s.collect(now)
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("b", layer), nil)
	s.want(http.StatusOK, "", "GET", blobPath("a", layer), nil)
}

// Images are pushed, of a few layers that come and go, and deleted, while
// garbage is collected with no grace at all. A push may be told that a blob is
// missing, and then sends it again; but what was taken stays whole.
func testCollectWhilePushing(t *testing.T, s *site) {
	var layers [][]byte
	for i := range 4 {
		layers = append(layers, fmt.Appendf(nil, "layer %d", i))
	}
	images := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for range images { // one collection for each image, while it is pushed
			s.clock.forward(2 * time.Second)
			if _, err := s.origin.Collect(t.Context(), now); err != nil {
				t.Errorf("collecting: %v", err)
			}
		}
	})
	var pushers sync.WaitGroup
	for p := range 4 {
		pushers.Go(func() {
			repository := fmt.Sprintf("r%d", p%2)
			for i := range 10 {
				images <- struct{}{}
				if !s.pushAndCheck(repository, fmt.Sprintf("p%d-%d", p, i), layers[i%4], layers[(i+p)%4]) {
					return
				}
			}
		})
	}
	pushers.Wait()
	close(images)
	collector.Wait()
}

// pushAndCheck pushes an image until it is taken, reads all of it, and deletes
// it. It is for goroutines of a test.
func (s *site) pushAndCheck(repository, tag string, contents ...[]byte) bool {
	for range 1000 {
		var layers []ocispec.Descriptor
		for _, content := range contents {
			d := digest.FromBytes(content)
			way := "/v2/" + repository + "/blobs/uploads/?mount=" + d.String()
			if a := s.ask("POST", way, nil); a.StatusCode != http.StatusCreated {
				if a := s.ask("PUT", withDigest(a.Header.Get("Location"), d), content); a.StatusCode != http.StatusCreated {
					s.t.Errorf("pushing a blob: %d %s", a.StatusCode, a.body)
					return false
				}
			}
			layers = append(layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(content))})
		}
		body := image(layers[0], layers, func(m *ocispec.Manifest) { m.Annotations = map[string]string{"tag": tag} })
		a := s.ask("PUT", manifestPath(repository, tag), body, "Content-Type", ocispec.MediaTypeImageManifest)
		if a.code() == "MANIFEST_BLOB_UNKNOWN" {
			continue
		}
		if a.StatusCode != http.StatusCreated {
			s.t.Errorf("pushing a manifest: %d %s", a.StatusCode, a.body)
			return false
		}
		for _, path := range []string{manifestPath(repository, tag), blobPath(repository, layers[0].Digest), blobPath(repository, layers[1].Digest)} {
			if a := s.ask("GET", path, nil); a.StatusCode != http.StatusOK {
				s.t.Errorf("%s of an image that was taken: %d %s", path, a.StatusCode, a.body)
				return false
			}
		}
		if a := s.ask("DELETE", manifestPath(repository, digest.FromBytes(body).String()), nil); a.StatusCode != http.StatusAccepted {
			s.t.Errorf("deleting: %d %s", a.StatusCode, a.body)
			return false
		}
		return true
	}
	s.t.Errorf("%s was refused a thousand times", tag)
	return false
}

func TestOneCollectionRunsAtATime(t *testing.T) {
	store := &slowStore{Dir: openDir(t), listing: make(chan struct{}), goOn: make(chan struct{})}
	s := newSite(t, store)
	s.pushBlob("a", random(10))
	done := make(chan error, 1)
	go func() {
		_, err := s.origin.Collect(t.Context(), now)
		done <- err
	}()
	<-store.listing
	if _, err := s.origin.Collect(t.Context(), now); !errors.Is(err, origin.ErrCollecting) {
		t.Errorf("a second one: %v, want ErrCollecting", err)
	}
	close(store.goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
