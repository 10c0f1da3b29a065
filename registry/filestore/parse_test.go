package filestore

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

// FuzzTarget says that what is taken for a name is canonical, and that its URL
// leads back to it.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{
		"/a", "/a/", "/", "//", "/a/../b", "/%2e%2e/", "/a%2Fb", "/%00", "/\\", "/é", "/%C3%A9", "/%c3%a9/", "/blobs/sha256:" + strings.Repeat("a", 64),
		"/blobs/sha256:x", "/blobs", "/blobs/", "/%62lobs/sha256:x", "/" + strings.Repeat("x", 256), "/%", "/%F0%9F%9A%A2", "/a//",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		got, err := parseTarget(escaped, "")
		if err != nil {
			return
		}
		if got.kind == targetBlob {
			if got.digest.Validate() != nil {
				t.Fatalf("%q is taken for blob %q", escaped, got.digest)
			}
			return
		}
		if got.kind == targetFolder && got.path == "" {
			if escaped != "/" {
				t.Fatalf("%q is taken for the root", escaped)
			}
			return
		}
		if p, err := ParsePath(string(got.path)); err != nil || p != got.path {
			t.Fatalf("%q is taken for %q: %v", escaped, got.path, err)
		}
		again := "/" + folder.EscapePath(string(got.path))
		if got.kind == targetFolder {
			again += "/"
		}
		if back, err := parseTarget(again, ""); err != nil || back != got {
			t.Fatalf("%q is %+v, and %q is %+v, %v", escaped, got, again, back, err)
		}
		u, err := url.Parse(again)
		if err != nil || u.EscapedPath() != again || u.Host != "" {
			t.Fatalf("%q is no path of a URL: %v", again, err)
		}
		if key := recordKey(got.path); !strings.HasPrefix(key, "files/") {
			t.Fatalf("key %q", key)
		} else if back, ok := recordPath(key); !ok || back != got.path {
			t.Fatalf("%q has key %q, which is of %q, %v", got.path, key, back, ok)
		} else {
			for segment := range strings.SplitSeq(key, "/") {
				if segment == "" || segment == "." || segment == ".." || len(segment) > maxSegment || strings.ContainsFunc(segment, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Fatalf("key %q has segment %q", key, segment)
				}
			}
		}
	})
}

// FuzzRecordKey says that a key is of one path at most.
func FuzzRecordKey(f *testing.F) {
	f.Add("files/a/b")
	f.Add("files/" + strings.Repeat("%C3", 83) + "%%/A9")
	f.Add("files/a%/b")
	f.Fuzz(func(t *testing.T, key string) {
		if p, ok := recordPath(key); ok && recordKey(p) != key {
			t.Errorf("key %q is of %q, which has key %q", key, p, recordKey(p))
		}
	})
}

func TestLongElementsHaveKeysOfTheirOwn(t *testing.T) {
	seen := map[string]Path{}
	for _, p := range []Path{
		Path(strings.Repeat("é", 127)), Path(strings.Repeat("é", 127) + "."), Path(strings.Repeat("%", 85) + ".."), Path(strings.Repeat("%", 83) + "...."),
		Path(strings.Repeat("%", 255)), Path(strings.Repeat("%", 250) + "/" + strings.Repeat("%", 5)), Path(strings.Repeat("a", 255)),
	} {
		if _, err := ParsePath(string(p)); err != nil {
			t.Fatal(err)
		}
		key := recordKey(p)
		if back, ok := recordPath(key); !ok || back != p {
			t.Errorf("%q has key %q, which is of %q", p, key, back)
		}
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have one key", p, other)
		}
		seen[key] = p
	}
}

func FuzzDigestField(f *testing.F) {
	f.Add("sha-256=:" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + ":")
	f.Add("sha-512=:AA==:, sha-256=:AA==:;a=b")
	f.Add("sha-256")
	f.Fuzz(func(t *testing.T, value string) {
		d, err := parseDigestField([]string{value})
		if err != nil || d == "" {
			return
		}
		if err := d.Validate(); err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		if again, err := parseDigestField([]string{reprDigest(d)}); err != nil || again != d {
			t.Errorf("%s is written %s, which is %s: %v", d, reprDigest(d), again, err)
		}
		if _, err := sentDigest(http.Header{"Repr-Digest": {value}}, string(digest.FromString(value))); err == nil {
			t.Error("two digests are taken for one")
		}
	})
}
