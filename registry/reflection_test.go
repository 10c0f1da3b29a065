package registry

import (
	"net/http"
	"strings"
	"testing"
)

// TestNothingThatAClientSendsComesBackInAHeader but a namespace that is a host, and
// the link to the next page of a repository whose name was parsed.
func TestNothingThatAClientSendsComesBackInAHeader(t *testing.T) {
	t.Parallel()
	const mark = "m4rk3r"
	backends := map[string]http.Handler{
		"images": NewHandler(Config{Backend: &fakeBackend{manifest: manifestOf("x/y", "{}"), tags: []string{"a", "b"}, more: true}}),
		"files":  NewFileHandler(&fakeFiles{file: alphabetFile()}, Config{}),
	}
	header := http.Header{}
	for _, key := range []string{
		"X-Request-Id", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Origin", "Referer", "User-Agent", "Accept", "Cookie",
		"Authorization", "If-None-Match", "If-Range", "Range", "X-Original-Url", "Accept-Language", "Access-Control-Request-Headers",
	} {
		header[key] = []string{mark}
	}
	for name, h := range backends {
		for _, target := range []string{
			"/v2/", "/v2/app/manifests/v1", "/v2/app/tags/list?n=1", "/v2/app/manifests/" + mark + "%0d%0aSet-Cookie:%20a=b", "/v2/" + mark + "%0d%0aX:y/tags/list",
			"/v2/app/tags/list?ns=" + mark + "%0d%0aSet-Cookie:a", "/v2/app/tags/list?ns=http://" + mark + "/", "/v2/app/tags/list?last=" + mark + "%0d%0a",
			"/" + mark + "%0d%0aLocation:%20http://" + mark, "/a?" + mark + "=%0d%0aX:y", "//" + mark + "/%2e%2e", "/\\" + mark,
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
				resp := ask(t, h, method, target, header)
				for key, values := range resp.Header {
					if text := strings.Join(values, "\n"); strings.Contains(text, mark) || strings.ContainsAny(text, "\r\n") {
						t.Errorf("%s: %s %s is answered with %s: %q", name, method, target, key, values)
					}
				}
			}
		}
	}
	resp := ask(t, backends["images"], http.MethodGet, "/v2/app/tags/list?n=1&ns=docker.io", nil)
	if resp.Header.Get("OCI-Namespace") != "docker.io" || !strings.Contains(resp.Header.Get("Link"), "/v2/app/tags/list?n=1&last=") {
		t.Errorf("what is parsed does not come back: %v", resp.Header)
	}
}
