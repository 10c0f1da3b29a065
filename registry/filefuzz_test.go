package registry

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
)

func FuzzParseFileRequest(f *testing.F) {
	for _, seed := range []string{
		"/up/a", "/up/../a", "/up/%2e%2e/a", "/up/a%2f..%2fb", "/up/..%5c..%5ca", "/up/%252e%252e%252fa", "/up/..;/a", "//a//", "/%", "/a\\..\\b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = u
		req, err := ParseFileRequest(r)
		if err != nil {
			return
		}
		// However often a server decodes it, and whichever slash counts to it.
		for range 3 {
			clean := path.Clean("/base/" + strings.ReplaceAll(req.Path, "\\", "/"))
			if clean != "/base" && !strings.HasPrefix(clean, "/base/") {
				t.Fatalf("%q leads to %q", target, clean)
			}
			if req.Path, err = url.PathUnescape(req.Path); err != nil {
				return
			}
		}
	})
}
