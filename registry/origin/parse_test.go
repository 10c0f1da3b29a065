package origin

import (
	"strings"
	"testing"

	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestKeysOfRecordsAreReadBack(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x").String()
	for _, repository := range []string{"a", "a/b", "a/tags/b", "tags/tags", "localhost:5000/a", "a__b/c--d"} {
		for _, name := range []string{"_", "_x", "v1.0", d} {
			got, gotName, ok := splitKey(tagRecords, recordKey(tagRecords, repository, name))
			if !ok || got != repository || gotName != name {
				t.Errorf("%s %s: read back as %s %s, %v", repository, name, got, gotName, ok)
			}
			if _, _, ok := splitKey(blobRecords, recordKey(tagRecords, repository, name)); ok {
				t.Errorf("%s %s: read back as of another kind", repository, name)
			}
		}
	}
	for _, key := range []string{"", "tags", "tags/", "tags/a", "tags/a/_", "other/a/_/x"} {
		if repository, name, ok := splitKey(tagRecords, key); ok {
			t.Errorf("%q is read as %s %s", key, repository, name)
		}
	}
}

func TestUploadStateThatIsBrokenIsNoUpload(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", "{}", "null", `{"repository":""}`, `{"repository":7}`, "\x00\x00"} {
		if repository, err := parseUploadState([]byte(text)); err == nil {
			t.Errorf("%q is an upload to %q", text, repository)
		}
	}
}

func FuzzUploadState(f *testing.F) {
	for _, seed := range []string{`{"repository":"a/b"}`, "{}", `{"repository":["a"]}`, "", "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if repository, err := parseUploadState(text); (err == nil) == (repository == "") {
			t.Fatalf("%q: repository %q, error %v", text, repository, err)
		}
	})
}

func FuzzUploadID(f *testing.F) {
	f.Add(strings.Repeat("0a", 16))
	f.Add("../../etc/passwd")
	f.Fuzz(func(t *testing.T, id string) {
		if validID(id) && (len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "") {
			t.Fatalf("%q is taken for an id", id)
		}
	})
}

// What is taken for a manifest names digests only: they become paths.
func FuzzManifest(f *testing.F) {
	d := digest.FromString("x").String()
	for _, seed := range []string{
		`{"schemaVersion":2,"config":{"digest":"` + d + `"},"layers":[{"digest":"` + d + `","urls":["x"]}],"subject":{"digest":"` + d + `"}}`,
		`{"schemaVersion":2,"manifests":[{"digest":"` + d + `","size":-1}]}`,
		`{"schemaVersion":1,"fsLayers":[{"blobSum":"../x"}]}`, `{"blobs":[{"digest":""}]}`, "[]", "null", "", "7",
	} {
		for _, mediaType := range []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, "a/b", ""} {
			f.Add(mediaType, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, mediaType string, body []byte) {
		if len(body) > registry.MaxManifestSize {
			return
		}
		c, err := parseManifest(mediaType, body)
		if err != nil {
			return
		}
		if !validMediaType(c.mediaType) {
			t.Fatalf("media type %q is taken", c.mediaType)
		}
		all := append(append(append([]digest.Digest{}, c.blobs...), c.elsewhere...), c.manifests...)
		if c.subject != "" {
			all = append(all, c.subject)
		}
		for _, d := range all {
			if err := d.Validate(); err != nil {
				t.Fatalf("%q of %s names %q", body, mediaType, d)
			}
		}
	})
}
