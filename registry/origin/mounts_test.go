package origin_test

import (
	"net/http"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func mountTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"MountMakesABlobReadable":                  testMount,
		"MountOfWhatIsNotThereBecomesAnUpload":     testMountMissing,
		"BlobIsReadableOnlyWhereItWasPushed":       testBlobRepositories,
		"ManifestIsReadableOnlyWhereItWasPushedTo": testManifestRepositories,
	}
}

func deleteTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"DeletedTagLeavesItsManifest":         testDeleteTag,
		"DeletedManifestTakesItsTagsWithIt":   testDeleteManifest,
		"DeletedBlobStaysInOtherRepositories": testDeleteBlob,
		"DeletedContentCanBePushedAgain":      testDeleteThenPush,
	}
}

func mountQuery(repository, query string) string {
	return "/v2/" + repository + "/blobs/uploads/?" + query
}

func testMount(t *testing.T, s *site) {
	layer := s.pushBlob("a", random(1000))
	d := layer.Digest.String()
	for repository, query := range map[string]string{"b": "mount=" + d + "&from=a", "c/d": "mount=" + d} {
		s.heard.take()
		a := s.want(http.StatusCreated, "", "POST", mountQuery(repository, query), nil)
		a.wantHeaders(t, map[string]string{"Location": blobPath(repository, layer.Digest), "Docker-Content-Digest": d})
		s.want(http.StatusOK, "", "GET", blobPath(repository, layer.Digest), nil)
		if got := s.heard.take(); len(got) != 1 {
			t.Errorf("%s: events %q", query, got)
		}
	}
	if n := s.storedBlobs(); n != 1 {
		t.Errorf("%d blobs are stored, want 1", n)
	}
}

func testMountMissing(t *testing.T, s *site) {
	content := random(10)
	layer := s.pushBlob("a", content)
	d := layer.Digest.String()
	// From a repository that does not have it, though the store does.
	a := s.want(http.StatusAccepted, "", "POST", mountQuery("b", "mount="+d+"&from=c"), nil)
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("b", layer.Digest), nil)
	s.want(http.StatusCreated, "", "PUT", withDigest(a.Header.Get("Location"), layer.Digest), content)
	s.want(http.StatusOK, "", "GET", blobPath("b", layer.Digest), nil)
	s.want(http.StatusBadRequest, "NAME_INVALID", "POST", mountQuery("b", "mount="+d+"&from=../a"), nil)
	s.want(http.StatusAccepted, "", "POST", mountQuery("b", "from=a"), nil)
	if got := s.heard.take(); len(got) != 2 {
		t.Errorf("events %q, want those of two uploads", got)
	}
}

func testBlobRepositories(_ *testing.T, s *site) {
	layer := s.pushBlob("a/b", random(10))
	for _, other := range []string{"a", "b", "a/b/c", "a/bb"} {
		s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath(other, layer.Digest), nil)
		s.want(http.StatusNotFound, "BLOB_UNKNOWN", "HEAD", blobPath(other, layer.Digest), nil)
		s.want(http.StatusNotFound, "BLOB_UNKNOWN", "DELETE", blobPath(other, layer.Digest), nil)
	}
	s.want(http.StatusOK, "", "GET", blobPath("a/b", layer.Digest), nil)
}

func testManifestRepositories(_ *testing.T, s *site) {
	d, _ := s.pushImage("a", "x", nil)
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("b", d.Digest.String()), nil)
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a", d.Digest), nil)
}

func testDeleteTag(t *testing.T, s *site) {
	d, _ := s.pushImage("a", "x", nil)
	s.want(http.StatusCreated, "", "PUT", manifestPath("a", "y"), []byte(s.want(http.StatusOK, "", "GET", manifestPath("a", "x"), nil).body), "Content-Type", d.MediaType)
	s.tagsOf("a", "")
	s.want(http.StatusAccepted, "", "DELETE", manifestPath("a", "x"), nil)
	for range 2 {
		s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", "x"), nil)
		s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "DELETE", manifestPath("a", "x"), nil)
		s.want(http.StatusOK, "", "GET", manifestPath("a", "y"), nil)
		s.want(http.StatusOK, "", "GET", manifestPath("a", d.Digest.String()), nil)
		if tags, _ := s.tagsOf("a", ""); !slices.Equal(tags, []string{"y"}) {
			t.Errorf("tags %q", tags)
		}
		s.restart()
	}
}

func testDeleteManifest(t *testing.T, s *site) {
	d, m := s.pushImage("a", "x", nil)
	body := []byte(s.want(http.StatusOK, "", "GET", manifestPath("a", "x"), nil).body)
	for _, tag := range []string{"y", "z"} {
		s.want(http.StatusCreated, "", "PUT", manifestPath("a", tag), body, "Content-Type", d.MediaType)
	}
	s.pushImage("a", "other", nil)
	s.want(http.StatusAccepted, "", "DELETE", manifestPath("a", d.Digest.String()), nil)
	for range 2 {
		for _, reference := range []string{"x", "y", "z", d.Digest.String()} {
			s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", reference), nil)
		}
		if tags, _ := s.tagsOf("a", ""); !slices.Equal(tags, []string{"other"}) {
			t.Errorf("tags %q", tags)
		}
		s.want(http.StatusOK, "", "GET", blobPath("a", m.Layers[0].Digest), nil)
		s.restart()
	}
}

func testDeleteBlob(_ *testing.T, s *site) {
	layer := s.pushBlob("a", random(10))
	s.want(http.StatusCreated, "", "POST", mountQuery("b", "from=a&mount="+layer.Digest.String()), nil)
	s.want(http.StatusAccepted, "", "DELETE", blobPath("a", layer.Digest), nil)
	for range 2 {
		s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a", layer.Digest), nil)
		s.want(http.StatusNotFound, "BLOB_UNKNOWN", "DELETE", blobPath("a", layer.Digest), nil)
		s.want(http.StatusOK, "", "GET", blobPath("b", layer.Digest), nil)
		s.restart()
	}
}

func testDeleteThenPush(_ *testing.T, s *site) {
	content := random(10)
	layer := s.pushBlob("a", content)
	s.want(http.StatusAccepted, "", "DELETE", blobPath("a", layer.Digest), nil)
	s.pushBlob("a", content)
	s.want(http.StatusOK, "", "GET", blobPath("a", layer.Digest), nil)
	for range 2 {
		s.want(http.StatusCreated, "", "PUT", manifestPath("a", "x"), indexOf(layer), "Content-Type", ocispec.MediaTypeImageIndex)
		a := s.want(http.StatusOK, "", "GET", manifestPath("a", "x"), nil)
		s.want(http.StatusAccepted, "", "DELETE", manifestPath("a", a.Header.Get("Docker-Content-Digest")), nil)
		s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", "x"), nil)
	}
}
