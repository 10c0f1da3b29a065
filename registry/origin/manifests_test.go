package origin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func manifestTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"ManifestIsReadByEveryNameItWasGiven":         testManifestNames,
		"ManifestOfAnyMediaTypeIsKeptByteForByte":     testAnyMediaType,
		"ManifestThatSaysTwoThingsIsRefused":          testAmbiguousManifests,
		"ManifestWithMissingContentIsRefused":         testMissingContent,
		"ManifestOfFourMebibytesIsTheLargest":         testManifestSize,
		"ManifestWithAnotherDigestIsRefused":          testManifestDigest,
		"ReferrersListWhatNamesASubject":              testReferrers,
		"TagsAreListedInPages":                        testTagPages,
		"TagThatMovesIsSeenAtOnce":                    testTagMoves,
		"WritersOfOneTagLeaveWhatTheLastReadsSees":    testTagRace,
		"NamesSurviveARestart":                        testNamesSurvive,
		"RepositoriesWithNamesAlikeAreApart":          testRepositoriesApart,
		"PushIsHeardOfOnceForEachTag":                 testPushEvents,
		"IndexMayNameContentThatIsNoManifest":         testIndexOfBlobs,
		"LayersThatMayBeKeptElsewhereNeedNotBeThere":  testForeignLayers,
		"WhatWasNeverPushedIsUnknownToEachEndpoint":   testUnknown,
		"ReferrerPushedBeforeItsSubjectIsListedAfter": testSubjectLater,
	}
}

func testManifestNames(t *testing.T, s *site) {
	config, layer := s.pushBlob("a/b", random(10)), s.pushBlob("a/b", random(10))
	body := image(config, []ocispec.Descriptor{layer}, nil)
	sha256, sha512 := digest.SHA256.FromBytes(body), digest.SHA512.FromBytes(body)
	for _, push := range []struct {
		reference string
		digest    digest.Digest
		tags      string // OCI-Tag
		names     []string
	}{
		{"v1", sha256, "", []string{"v1", sha256.String()}},
		{sha512.String(), sha512, "", []string{sha512.String()}},
		{"v2?digest=" + sha512.String(), sha512, "", []string{"v2"}},
		{sha256.String() + "?tag=v3&tag=v4&tag=v3", sha256, "v3, v4", []string{"v3", "v4"}},
		{sha512.String() + "?digest=" + sha512.String() + "&tag=v5", sha512, "v5", []string{"v5"}},
	} {
		a := s.want(http.StatusCreated, "", "PUT", manifestPath("a/b", push.reference), body, "Content-Type", ocispec.MediaTypeImageManifest)
		a.wantHeaders(t, map[string]string{
			"Location": manifestPath("a/b", push.digest.String()), "Docker-Content-Digest": push.digest.String(), "Oci-Tag": push.tags, "Oci-Subject": "",
		})
		for _, name := range push.names {
			for _, method := range []string{"GET", "HEAD"} {
				a := s.want(http.StatusOK, "", method, manifestPath("a/b", name), nil)
				if method == "GET" && a.body != string(body) {
					t.Errorf("%s: other bytes came back", name)
				}
				a.wantHeaders(t, map[string]string{
					"Docker-Content-Digest": push.digest.String(), "Content-Type": ocispec.MediaTypeImageManifest, "Content-Length": fmt.Sprint(len(body)),
				})
			}
		}
	}
	for query, code := range map[string]string{
		"v1?tag=v2": "UNSUPPORTED", sha256.String() + "?tag=.v2": "TAG_INVALID", sha256.String() + "?tag=": "TAG_INVALID",
		sha256.String() + "?digest=" + sha512.String(): "DIGEST_INVALID", "v1?digest=sha256:abc": "DIGEST_INVALID",
	} {
		s.want(http.StatusBadRequest, code, "PUT", manifestPath("a/b", query), body, "Content-Type", ocispec.MediaTypeImageManifest)
	}
	many := sha256.String() + "?"
	for i := range registry.MaxManifestTags + 1 {
		many += fmt.Sprintf("&tag=t%d", i)
	}
	s.want(http.StatusBadRequest, "UNSUPPORTED", "PUT", manifestPath("a/b", many), body, "Content-Type", ocispec.MediaTypeImageManifest)
}

func testAnyMediaType(t *testing.T, s *site) {
	for mediaType, body := range map[string]string{
		"application/vnd.example+json": `{ "config" : 7 }`,
		"text/plain":                   "no JSON at all",
		"application/vnd.docker.distribution.manifest.v1+prettyjws":                `{"schemaVersion":1,"fsLayers":[{"blobSum":"` + digest.FromString("x").String() + `"}]}`,
		"application/vnd.cncf.oras.artifact.manifest.v1+json; charset=utf-8":       `{"mediaType":"application/vnd.cncf.oras.artifact.manifest.v1+json","blobs":[]}`,
		"application/vnd.example.list+json":                                        `{"manifests":[{"digest":"` + digest.FromString("not here").String() + `"}]}`,
		"application/vnd.docker.distribution.manifest.list.v2+json":                `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}`,
		"application/vnd.oci.image.index.v1+json":                                  `{"schemaVersion":2,"manifests":[] ,"x-unknown":{}}`,
		"application/vnd.example.with-everything.and_more+json.v1!#$&^application": "0",
	} {
		s.want(http.StatusCreated, "", "PUT", manifestPath("a", "x"), []byte(body), "Content-Type", mediaType)
		want, _, _ := strings.Cut(mediaType, ";")
		a := s.want(http.StatusOK, "", "GET", manifestPath("a", "x"), nil)
		if a.body != body || a.Header.Get("Content-Type") != want {
			t.Errorf("%s: %q as %s came back", mediaType, a.body, a.Header.Get("Content-Type"))
		}
	}
	// Without a Content-Type, it is what it says it is.
	body := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	s.want(http.StatusCreated, "", "PUT", manifestPath("a", "y"), []byte(body))
	s.want(http.StatusOK, "", "HEAD", manifestPath("a", "y"), nil).wantHeaders(t, map[string]string{"Content-Type": ocispec.MediaTypeImageIndex})
}

func testAmbiguousManifests(_ *testing.T, s *site) {
	blob := s.pushBlob("a", random(10))
	named := `{"mediaType":"x/y","size":1,"digest":"` + blob.Digest.String() + `"}`
	for _, bad := range []struct{ mediaType, body string }{
		{"", "{}"},
		{"", "no JSON"},
		{"nonsense", "{}"},
		{"a/b/c", "{}"},
		{"application/" + strings.Repeat("x", 300), "{}"},
		{"text/html\x7f", "{}"},
		{ocispec.MediaTypeImageManifest, "no JSON"},
		{ocispec.MediaTypeImageManifest, `{"schemaVersion":1,"config":` + named + `}`},
		{ocispec.MediaTypeImageManifest, `{"schemaVersion":2}`},
		{ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","config":` + named + `}`},
		{ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":` + named + `,"manifests":[]}`},
		{ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`},
		{ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[],"config":` + named + `}`},
		{ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[{"digest":"sha256:abc"}]}`},
		{ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[{"digest":"` + blob.Digest.String() + `","size":-1}]}`},
		{ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[],"subject":{"digest":"../../x"}}`},
		{"application/vnd.example+json", `{"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`},
	} {
		s.want(http.StatusBadRequest, "MANIFEST_INVALID", "PUT", manifestPath("a", "x"), []byte(bad.body), "Content-Type", bad.mediaType)
	}
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", "x"), nil)
}

func testMissingContent(t *testing.T, s *site) {
	config, layer := s.pushBlob("a", random(10)), s.pushBlob("b", random(10)) // another repository's layer
	body := image(config, []ocispec.Descriptor{layer}, nil)
	push := func(status int, code string) {
		t.Helper()
		s.want(status, code, "PUT", manifestPath("a", "x"), body, "Content-Type", ocispec.MediaTypeImageManifest)
	}
	stored := s.storedBlobs()
	push(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
	if now := s.storedBlobs(); now != stored {
		t.Errorf("%d blobs are stored, not %d as before a manifest that was refused", now, stored)
	}
	s.pushBlob("a", random(10))
	push(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", "x"), nil)
	s.want(http.StatusCreated, "", "POST", "/v2/a/blobs/uploads/?mount="+layer.Digest.String()+"&from=b", nil)
	push(http.StatusCreated, "")

	child, _ := s.pushImage("b", "", nil)
	index := indexOf(child)
	s.want(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "PUT", manifestPath("a", "i"), index, "Content-Type", ocispec.MediaTypeImageIndex)
	s.want(http.StatusCreated, "", "PUT", manifestPath("b", "i"), index, "Content-Type", ocispec.MediaTypeImageIndex)
	s.want(http.StatusAccepted, "", "DELETE", manifestPath("b", child.Digest.String()), nil)
	s.want(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "PUT", manifestPath("b", "j"), index, "Content-Type", ocispec.MediaTypeImageIndex)
}

// indexOf is an index of manifests.
func indexOf(children ...ocispec.Descriptor) []byte {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: children}
	index.SchemaVersion = 2
	b, err := json.Marshal(index)
	if err != nil {
		panic(err) // it has a JSON form
	}
	return b
}

func testIndexOfBlobs(_ *testing.T, s *site) {
	s.want(http.StatusCreated, "", "PUT", manifestPath("a", "x"), indexOf(s.pushBlob("a", random(10))), "Content-Type", ocispec.MediaTypeImageIndex)
}

func testForeignLayers(_ *testing.T, s *site) {
	config := s.pushBlob("a", random(10))
	for _, foreign := range []ocispec.Descriptor{
		{MediaType: ocispec.MediaTypeImageLayerGzip, URLs: []string{"https://example.org/layer"}},
		{MediaType: ocispec.MediaTypeImageLayerNonDistributableGzip}, //nolint:staticcheck // old images have them
		{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"},
	} {
		foreign.Digest, foreign.Size = digest.FromBytes(random(10)), 10
		s.want(http.StatusCreated, "", "PUT", manifestPath("a", "x"), image(config, []ocispec.Descriptor{foreign}, nil), "Content-Type", ocispec.MediaTypeImageManifest)
	}
}

func testManifestSize(_ *testing.T, s *site) {
	config := s.pushBlob("a", random(10))
	padded := func(size int) []byte {
		b := image(config, []ocispec.Descriptor{}, nil)
		return append(b, strings.Repeat(" ", size-len(b))...)
	}
	s.want(http.StatusCreated, "", "PUT", manifestPath("a", "x"), padded(registry.MaxManifestSize), "Content-Type", ocispec.MediaTypeImageManifest)
	s.want(http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "PUT", manifestPath("a", "y"), padded(registry.MaxManifestSize+1), "Content-Type", ocispec.MediaTypeImageManifest)
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "HEAD", manifestPath("a", "y"), nil)
}

func testManifestDigest(_ *testing.T, s *site) {
	body := indexOf()
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		wrong := algorithm.FromString("something else")
		s.want(http.StatusBadRequest, "DIGEST_INVALID", "PUT", manifestPath("a", wrong.String()), body, "Content-Type", ocispec.MediaTypeImageIndex)
		s.want(http.StatusBadRequest, "DIGEST_INVALID", "PUT", manifestPath("a", "x?digest="+wrong.String()), body, "Content-Type", ocispec.MediaTypeImageIndex)
		s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", wrong.String()), nil)
	}
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", "x"), nil)
}

func testReferrers(t *testing.T, s *site) {
	subject, _ := s.pushImage("a", "v1", nil)
	if got := s.referrersOf("a", subject.Digest, ""); len(got) != 0 {
		t.Fatalf("before there are any: %v", got)
	}
	signature, _ := s.pushImage("a", "", func(m *ocispec.Manifest) {
		m.Subject, m.ArtifactType, m.Annotations = &subject, "application/vnd.example.signature", map[string]string{"by": "me"}
	})
	// Without an artifact type, an image is of its config's.
	plain, _ := s.pushImage("a", "", func(m *ocispec.Manifest) { m.Subject = &subject })
	list := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}, Subject: &subject, ArtifactType: "application/vnd.example.sbom"}
	list.SchemaVersion = 2
	body, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	a := s.want(http.StatusCreated, "", "PUT", manifestPath("a", "sbom"), body, "Content-Type", ocispec.MediaTypeImageIndex)
	a.wantHeaders(t, map[string]string{"Oci-Subject": subject.Digest.String()})

	want := map[digest.Digest]string{
		signature.Digest: "application/vnd.example.signature", plain.Digest: ocispec.MediaTypeImageConfig, digest.FromBytes(body): "application/vnd.example.sbom",
	}
	s.restart()
	got := s.referrersOf("a", subject.Digest, "")
	for _, d := range got {
		if want[d.Digest] != d.ArtifactType {
			t.Errorf("%s has artifact type %q, want %q", d.Digest, d.ArtifactType, want[d.Digest])
		}
	}
	if len(got) != 3 {
		t.Errorf("%d referrers, want 3", len(got))
	}
	filtered := s.referrersOf("a", subject.Digest, "?artifactType=application%2Fvnd.example.signature")
	if len(filtered) != 1 || filtered[0].Digest != signature.Digest || filtered[0].Size != signature.Size || filtered[0].Annotations["by"] != "me" {
		t.Errorf("filtered: %+v", filtered)
	}
	if other := s.referrersOf("b", subject.Digest, ""); len(other) != 0 {
		t.Errorf("another repository has referrers %v", other)
	}
	s.want(http.StatusAccepted, "", "DELETE", manifestPath("a", signature.Digest.String()), nil)
	if got := s.referrersOf("a", subject.Digest, ""); len(got) != 2 || slices.ContainsFunc(got, func(d ocispec.Descriptor) bool { return d.Digest == signature.Digest }) {
		t.Errorf("after one was deleted: %v", got)
	}
}

func testSubjectLater(t *testing.T, s *site) {
	config := s.pushBlob("a", random(10))
	body := image(config, []ocispec.Descriptor{}, nil)
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(body), Size: int64(len(body))}
	s.pushImage("a", "", func(m *ocispec.Manifest) { m.Subject = &subject })
	s.want(http.StatusCreated, "", "PUT", manifestPath("a", "x"), body, "Content-Type", ocispec.MediaTypeImageManifest)
	if got := s.referrersOf("a", subject.Digest, ""); len(got) != 1 {
		t.Errorf("referrers: %v", got)
	}
}

func testTagPages(t *testing.T, s *site) {
	body := indexOf()
	want := []string{"1.10", "1.9", "A", "_x", "a", "a-b", "a.b", "latest"}
	for _, tag := range []string{"latest", "a.b", "a", "A", "1.9", "1.10", "_x", "a-b"} {
		s.want(http.StatusCreated, "", "PUT", manifestPath("a/b", tag), body, "Content-Type", ocispec.MediaTypeImageIndex)
	}
	s.restart()
	if got, _ := s.tagsOf("a/b", ""); !slices.Equal(got, want) {
		t.Errorf("tags %q, want %q", got, want)
	}
	var paged []string
	for next := "/v2/a/b/tags/list?n=3"; next != ""; {
		tags, a := s.tagsOf("a/b", next[len("/v2/a/b/tags/list"):])
		if len(tags) > 3 {
			t.Errorf("a page of %d", len(tags))
		}
		paged = append(paged, tags...)
		next, _, _ = strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
	}
	if !slices.Equal(paged, want) {
		t.Errorf("pages of 3: %q, want %q", paged, want)
	}
	if got, a := s.tagsOf("a/b", "?n=0"); len(got) != 0 || a.Header.Get("Link") != "" {
		t.Errorf("n=0: %q, Link %q", got, a.Header.Get("Link"))
	}
	if got, _ := s.tagsOf("a/b", "?last=a&n=100"); !slices.Equal(got, want[5:]) {
		t.Errorf("after a: %q", got)
	}
	// A repository that holds something and no tags has an empty list.
	s.want(http.StatusNotFound, "NAME_UNKNOWN", "GET", "/v2/a/tags/list", nil)
	s.pushBlob("a", random(10))
	if got, _ := s.tagsOf("a", ""); len(got) != 0 {
		t.Errorf("tags %q of a repository without", got)
	}
}

func testTagMoves(t *testing.T, s *site) {
	for range 3 {
		d, _ := s.pushImage("a", "x", nil)
		s.want(http.StatusOK, "", "GET", manifestPath("a", "x"), nil).wantHeaders(t, map[string]string{"Docker-Content-Digest": d.Digest.String()})
	}
	if tags, _ := s.tagsOf("a", ""); !slices.Equal(tags, []string{"x"}) {
		t.Errorf("tags %q", tags)
	}
}

func testTagRace(t *testing.T, s *site) {
	var bodies [][]byte
	for i := range 8 {
		bodies = append(bodies, []byte(fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"annotations":{"i":"%d"}}`, i)))
	}
	var wait sync.WaitGroup
	for _, body := range bodies {
		wait.Go(func() {
			for range 4 {
				s.ask("PUT", manifestPath("a", "x"), body, "Content-Type", ocispec.MediaTypeImageIndex)
				s.ask("GET", manifestPath("a", "x"), nil)
				s.ask("GET", "/v2/a/tags/list", nil)
			}
		})
	}
	wait.Wait()
	before := s.want(http.StatusOK, "", "GET", manifestPath("a", "x"), nil)
	s.restart() // nothing is remembered any more
	after := s.want(http.StatusOK, "", "GET", manifestPath("a", "x"), nil)
	if before.body != after.body {
		t.Errorf("what was remembered is %s, the store has %s", before.body, after.body)
	}
}

func testNamesSurvive(t *testing.T, s *site) {
	d, m := s.pushImage("a/b/c", "v1", nil)
	for range 2 {
		for _, reference := range []string{"v1", d.Digest.String()} {
			a := s.want(http.StatusOK, "", "GET", manifestPath("a/b/c", reference), nil)
			a.wantHeaders(t, map[string]string{"Docker-Content-Digest": d.Digest.String(), "Content-Type": d.MediaType})
		}
		s.want(http.StatusOK, "", "HEAD", blobPath("a/b/c", m.Layers[0].Digest), nil)
		s.restart()
	}
}

func testRepositoriesApart(t *testing.T, s *site) {
	s.pushImage("a", "b", nil)
	s.pushImage("a/b", "c", nil)
	s.pushImage("a/tags/b", "d", nil)
	s.pushImage("a-b", "e", nil)
	for repository, want := range map[string]string{"a": "b", "a/b": "c", "a/tags/b": "d", "a-b": "e"} {
		if tags, _ := s.tagsOf(repository, ""); !slices.Equal(tags, []string{want}) {
			t.Errorf("%s has tags %q, want %s", repository, tags, want)
		}
	}
	s.want(http.StatusNotFound, "NAME_UNKNOWN", "GET", "/v2/a/tags/tags/list", nil)
}

func testPushEvents(t *testing.T, s *site) {
	body := indexOf()
	d := digest.FromBytes(body).String()
	for _, reference := range []string{"x", d, d + "?tag=y&tag=z"} {
		s.want(http.StatusCreated, "", "PUT", manifestPath("a", reference), body, "Content-Type", ocispec.MediaTypeImageIndex)
	}
	s.want(http.StatusAccepted, "", "DELETE", manifestPath("a", "y"), nil)
	s.want(http.StatusAccepted, "", "DELETE", manifestPath("a", d), nil)
	what := ocispec.MediaTypeImageIndex + " a@" + d
	want := []string{"pushed " + what + " as x", "pushed " + what, "pushed " + what + " as y", "pushed " + what + " as z", "deleted " + what + " as y", "deleted " + what}
	if got := s.heard.take(); !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
}

func testUnknown(_ *testing.T, s *site) {
	d := digest.FromString("never pushed")
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", "x"), nil)
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "GET", manifestPath("a", d.String()), nil)
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a", d), nil)
	s.want(http.StatusNotFound, "NAME_UNKNOWN", "GET", "/v2/a/tags/list", nil)
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "DELETE", manifestPath("a", "x"), nil)
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", "DELETE", manifestPath("a", d.String()), nil)
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "DELETE", blobPath("a", d), nil)
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "GET", "/v2/a/blobs/uploads/"+strings.Repeat("a", 32), nil)
}
