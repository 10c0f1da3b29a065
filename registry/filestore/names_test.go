package filestore_test

import (
	"context"
	"iter"
	"net/http"
	"strings"
	"testing"

	"entrepot/registry/filestore"

	"github.com/opencontainers/go-digest"
)

type observation = filestore.Observation

func (w *watched) RecordKeys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	if err := w.note("keys %s", prefix); err != nil {
		return func(yield func(string, error) bool) { yield("", err) }
	}
	return w.Backing.RecordKeys(ctx, prefix)
}

func nameTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"names that files can have": func(_ *testing.T, s *site) {
			for _, path := range []string{
				"/a", "/a b+c", "/%20", "/...", "/.hidden/..x", "/a:b", "/~user", "/%C3%A9/%E8%88%B9", "/100%25", "/a%3Fb%23c", "/<b>&'%22",
				"/blobs/file", "/blobs/sha256", "/" + strings.Repeat("e", 255),
			} {
				path = strings.ReplaceAll(path, " ", "%20")
				s.put(path, path).want(http.StatusCreated)
				s.holds(path, path)
			}
			// One name has many spellings in a URL.
			s.holds("/%61", "/a")
		},

		"names that no file can have": func(_ *testing.T, s *site) {
			for path, want := range map[string]string{
				"/a/../b":                      `has an element ".."`,
				"/%2e%2e/b":                    `has an element ".."`,
				"/./a":                         `has an element "."`,
				"//a":                          "empty element",
				"/a//b":                        "empty element",
				"/a%2Fb":                       "encoded slash",
				"/a%5Cb":                       "backslash",
				"/a%00b":                       "control character",
				"/a%0Ab":                       "control character",
				"/a%7F":                        "control character",
				"/a%C2%85b":                    "control character",
				"/%FF":                         "not UTF-8",
				"/" + strings.Repeat("e", 256): "more than the 255 allowed",
				"/" + strings.Repeat("long/", 819) + "longer": "more than the 4096 allowed",
				"/blobs/sha256:abc":                           "is not a digest",
				"/blobs/sha256:abc/d":                         "is not a digest",
			} {
				for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
					s.ask(method, path, "x", "Repr-Digest: "+field("x")).want(http.StatusBadRequest, want)
				}
			}
			s.ask(http.MethodGet, "/blobs/"+string(digest.SHA512.FromString("x")), "").want(http.StatusNotFound)
		},

		"a file and a folder cannot have one name": func(_ *testing.T, s *site) {
			s.put("/a/b/c", "x").want(http.StatusCreated)
			s.put("/a/b", "x").want(http.StatusConflict, "a/b cannot be a file: a/b is a folder")
			s.put("/a", "x").want(http.StatusConflict, "a is a folder")
			s.put("/a/b/c/d/e", "x").want(http.StatusConflict, "a/b/c/d/e cannot be a file: a/b/c is a file")
			s.put("/a/b/c", "x").want(http.StatusOK)
			s.put("/a/bc", "x").want(http.StatusCreated)
			s.open()
			s.put("/a/b", "x").want(http.StatusConflict)
			s.put("/a/b/c/d", "x").want(http.StatusConflict)
			s.ask(http.MethodDelete, "/a/b/c", "").want(http.StatusNoContent)
			s.put("/a/b", "x").want(http.StatusCreated)
			s.put("/a/b/c", "x").want(http.StatusConflict)
		},
	}
}

func deleteTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"a deleted file is gone, and its content stays": func(t *testing.T, s *site) {
			s.put("/a/b", "x").want(http.StatusCreated)
			s.heard.take()
			s.ask(http.MethodDelete, "/a/b", "").want(http.StatusNoContent)
			s.ask(http.MethodDelete, "/a/b", "").want(http.StatusNotFound, "there is no file a/b")
			if heard := s.heard.take(); len(heard) != 1 || !strings.HasPrefix(heard[0], "deleted a/b ") {
				t.Errorf("heard %q", heard)
			}
			for range 2 {
				s.ask(http.MethodGet, "/a/b", "").want(http.StatusNotFound)
				s.ask(http.MethodGet, "/a/", "").want(http.StatusNotFound)
				s.ask(http.MethodGet, "/", "").want(http.StatusOK)
				s.open()
			}
			s.holds("/blobs/"+string(digest.FromString("x")), "x")
			s.ask(http.MethodPut, "/a/b?mount="+string(digest.FromString("x")), "").want(http.StatusCreated)
			s.holds("/a/b", "x")
		},

		"a deletion can be of what somebody saw": func(_ *testing.T, s *site) {
			s.put("/a", "x").want(http.StatusCreated)
			s.ask(http.MethodDelete, "/a", "", "If-Match: "+tag("y")).want(http.StatusPreconditionFailed, tag("x"))
			s.holds("/a", "x")
			s.open() // what the file is has to be read first
			s.ask(http.MethodDelete, "/a", "", "If-Match: "+tag("x")).want(http.StatusNoContent)
		},

		"a folder is not deleted": func(_ *testing.T, s *site) {
			s.put("/a/b", "x").want(http.StatusCreated)
			s.ask(http.MethodDelete, "/a", "").want(http.StatusConflict, "a is a folder")
			s.holds("/a/b", "x")
		},
	}
}
