package registry

import (
	"strings"
	"testing"
)

func TestRouteSaysWhichUpstreamIsMeant(t *testing.T) {
	type upstream struct{ name string }
	hub, k8s, port := &upstream{"docker.io"}, &upstream{"registry.k8s.io"}, &upstream{"localhost:5000"}
	all := map[string]*upstream{hub.name: hub, k8s.name: k8s, port.name: port}
	for _, c := range []struct {
		namespace, host, repository string
		fallback                    *upstream
		want                        *upstream
		repo, fails                 string
	}{
		{repository: "docker.io/library/nginx", want: hub, repo: "library/nginx"},
		{repository: "library/nginx", namespace: "registry.k8s.io", want: k8s, repo: "library/nginx"},
		{repository: "docker.io/nginx", namespace: "registry.k8s.io", want: k8s, repo: "docker.io/nginx"},
		{repository: "pause", host: "registry.k8s.io:443", want: k8s, repo: "pause"},
		{repository: "pause", host: "localhost:5000", want: port, repo: "pause"},
		{repository: "docker.io", fallback: hub, want: hub, repo: "docker.io"}, // a repository, as nothing is below it
		{repository: "pause", fallback: hub, host: "node.example", want: hub, repo: "pause"},
		{repository: "pause", fails: "no default"},
		{repository: "evil.example/pause", fallback: hub, fails: `"evil.example" is not an upstream`},
		{repository: "pause", namespace: "evil.example", fallback: hub, fails: `"evil.example" is not an upstream`},
	} {
		up, repo, err := RouteImage(&Request{Namespace: c.namespace, Host: c.host, Repository: c.repository}, all, c.fallback)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%+v: error %v, want one with %q", c, err, c.fails)
			}
			continue
		}
		if err != nil || up != c.want || repo != c.repo {
			t.Errorf("%+v: upstream %v, repository %q, error %v", c, up, repo, err)
		}
	}
	for _, c := range []struct {
		path, host     string
		fallback, want *upstream
		rest           string
	}{
		{path: "docker.io/a/b", want: hub, rest: "a/b"},
		{path: "docker.io", want: hub},
		{path: "a/b", host: "registry.k8s.io:80", want: k8s, rest: "a/b"},
		{path: "a/b", fallback: port, want: port, rest: "a/b"},
		{path: "a/b", host: "node.example", rest: "a/b"},
	} {
		if up, rest := RouteFile(&FileRequest{Path: c.path, Host: c.host}, all, c.fallback); up != c.want || rest != c.rest {
			t.Errorf("%+v: upstream %v, path %q", c, up, rest)
		}
	}
	for path, want := range map[string]bool{"/v2": true, "/v2/": true, "/v2/a": true, "/v2a": false, "/": false, "/v": false} {
		if got := IsAPI(path); got != want {
			t.Errorf("IsAPI(%q) is %v", path, got)
		}
	}
}
