package warm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// someNames are what two upstreams have: of one there is a ledger.
type someNames struct{ asked []string }

func (s *someNames) All(upstream string, files bool) ([]string, bool) {
	switch {
	case upstream == "registry.k8s.io":
		return []string{"kube-proxy:v1.29.0", "kube-proxy:v1.30.2", "kube-proxy:v1.30.10", "kube-apiserver:v1.30.2", "a/kube-x:v1.30.0", "pause@" + someDigest}, true
	case upstream == "dl.k8s.io" && files:
		return []string{"release/v1.36.0/bin/linux/amd64/kubectl", "release/v1.36.0/bin/linux/arm64/kubectl", "release/stable.txt"}, true
	}
	return nil, false
}

func (s *someNames) Tags(_ context.Context, upstream, repository string) ([]string, error) {
	s.asked = append(s.asked, upstream+"/"+repository)
	return []string{"1.9", "1.10", "1.10-alpine", "latest"}, nil
}

func TestPatternsMeanNames(t *testing.T) {
	for _, row := range []struct {
		images, files string
		limit         int
		want          string
		cut           int
	}{
		{images: "registry.k8s.io/kube-*:v1.3*", want: "registry.k8s.io/kube-proxy:v1.30.10 registry.k8s.io/kube-proxy:v1.30.2 registry.k8s.io/kube-apiserver:v1.30.2"},
		{images: "registry.k8s.io/kube-proxy:v1.3*", limit: 1, want: "registry.k8s.io/kube-proxy:v1.30.10", cut: 1},
		{images: "registry.k8s.io/**:v1.30.*", limit: 1, want: "registry.k8s.io/kube-proxy:v1.30.10", cut: 3},
		{images: "registry.k8s.io/other:1.1*", want: "registry.k8s.io/other:1.10-alpine registry.k8s.io/other:1.10"}, // its ledger has not heard of it
		{images: "docker.io/nginx:1.*", want: "docker.io/library/nginx:1.10-alpine docker.io/library/nginx:1.10 docker.io/library/nginx:1.9"},
		{images: "docker.io/nginx", want: "docker.io/library/nginx:latest"},
		{images: "docker.io/nginx:1.9", want: "docker.io/library/nginx:1.9"},
		{images: "quay.io/a/b@" + someDigest, want: "quay.io/a/b@" + someDigest},
		{files: "dl.k8s.io/release/v*/bin/linux/amd64/*", want: "dl.k8s.io/release/v1.36.0/bin/linux/amd64/kubectl"},
		{files: "other.example/a/b.txt", want: "other.example/a/b.txt"},
	} {
		p, err := ParseImages(row.images)
		if row.files != "" {
			p, err = ParseFiles(row.files)
		}
		if err != nil {
			t.Errorf("%s%s: %v", row.images, row.files, err)
			continue
		}
		limit := row.limit
		if limit == 0 {
			limit = 100
		}
		items, cut, err := p.Resolve(t.Context(), &someNames{}, limit)
		var got []string
		for _, i := range items {
			got = append(got, i.Name)
		}
		if err != nil || strings.Join(got, " ") != row.want || cut != row.cut {
			t.Errorf("%s%s means %v, and %d more, %v; want %s, and %d", row.images, row.files, got, cut, err, row.want, row.cut)
		}
	}
}

func TestPatternsThatMeanNothingAreRefused(t *testing.T) {
	for _, text := range []string{"", "nginx", "nginx/*:1", "*.io/a", "docker.io/", "docker.io/a:[0-9]", "docker.io/A:1", "docker.io/a@sha256:0"} {
		if p, err := ParseImages(text); err == nil {
			t.Errorf("%q is taken for %+v", text, p)
		}
	}
	for _, text := range []string{"", "dl.k8s.io", "*/a", "dl.k8s.io/../a"} {
		if p, err := ParseFiles(text); err == nil {
			t.Errorf("%q is taken for %+v", text, p)
		}
	}
	p, err := ParseImages("docker.io/library/*:1")
	if err != nil || !p.NeedsNames() {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, _, err := p.Resolve(t.Context(), &someNames{}, 10); !errors.Is(err, errNoNames) {
		t.Errorf("resolving it says %v", err)
	}
}

func TestNamesAreInTheOrderOfTheirNumbers(t *testing.T) {
	want := []string{"latest", "v1.9", "v1.09", "v1.10", "v1.10-rc.2", "v1.10-rc.10", "v2"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortStableFunc(got, compareNumbers)
	if got[1] == "v1.09" { // they are equal, and stay as they were
		got[1], got[2] = got[2], got[1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("the order is %v, want %v", got, want)
	}
}
