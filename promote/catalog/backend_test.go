package catalog_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"entrepot/promote/catalog"
	"entrepot/promote/ledger"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// noFiles says of every file that it is left to it.
type noFiles struct{}

func (noFiles) File(_ context.Context, req *registry.FileRequest) (registry.File, registry.CacheStatus, error) {
	return registry.File{}, registry.CacheStatus{}, registry.Errorf(errcode.ErrorCodeNameUnknown, "left to the other: %s", req.Path)
}

func TestBackendShowsFoldersAndLeavesTheRestToTheOther(t *testing.T) {
	p := newProduction(t)
	p.record(set("release/v1/bin/tool", here), set("release/v1/odd name & more", here), set("release/SHA256SUMS", here), set("stable.txt", here))
	c := catalog.New(func() *ledger.State { return p.log.State() }, here)
	s := httptest.NewServer(registry.NewFileHandler(catalog.NewBackend(noFiles{}, map[string]*catalog.Catalog{"dl": c, "plain": nil}, "dl"), registry.Config{}))
	defer s.Close()
	for _, row := range []struct {
		path, accept string
		status       int
		want         string
	}{
		{"/dl/", "application/json", 200, `"name":"release/"`},
		{"/", "application/json", 200, `"name":"stable.txt"`},
		{"/release/v1/", "text/html", 200, "odd name &amp; more"},
		{"/dl/release/v1/", "text/html", 200, s.URL + "/dl/release/v1/"},
		{"/release/v1/", "text/plain", 200, "bin/"},
		{"/release/v1/?sort=weight", "text/plain", 400, "weight"},
		{"/release/v1/bin/SHA256SUMS", "", 200, "  tool\n"},
		{"/dl/SHA256SUMS?recursive=1", "", 200, "  release/v1/bin/tool\n"},
		{"/release/SHA256SUMS", "", 404, "left to the other"}, // one that was promoted
		{"/release/v1/bin/tool", "", 404, "left to the other"},
		{"/release/v2/", "", 404, "left to the other"},
		{"/release/v1", "", 404, "left to the other"},
		{"/plain/", "", 404, "left to the other"},
		{"/plain/SHA256SUMS", "", 404, "left to the other"},
		{"/dl/%zz/", "", 400, ""},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			req, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Opaque = row.path
			req.Header.Set("Accept", row.accept)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != row.status || method == http.MethodGet && !strings.Contains(string(body), row.want) {
				t.Errorf("%s %s as %q: %s, %v\n%s", method, row.path, row.accept, resp.Status, err, body)
			}
			if row.status == http.StatusOK && (resp.Header.Get("Etag") == "" || resp.ContentLength < 1) {
				t.Errorf("%s %s: %v", method, row.path, resp.Header)
			}
		}
	}
	// What is known is not sent again.
	resp, err := http.Get(s.URL + "/release/v1/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/release/v1/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("If-None-Match", resp.Header.Get("Etag"))
	again, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	again.Body.Close()
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("again: %s", again.Status)
	}
}
