package main

import (
	"strings"
	"testing"
)

func TestPrefetchIsChecked(t *testing.T) {
	const node = "node:\n  store: {dir: d}\n  upstreams: {docker.io: {}, quay.io: {}}\n  files: {dl.k8s.io: {}}\n  prefetch:\n    a: "
	read := func(text string) error {
		_, err := parseConfig("f.yaml", []byte(node+text+"\n"), func(string) (string, bool) { return "", false }, nil)
		return err
	}
	for _, good := range []string{
		`{images: ["docker.io/nginx:1.*", "quay.io/a/b"], files: [dl.k8s.io/a.txt], platforms: [linux/amd64], every: 1m, windows: ["22:00-06:00"], time_zone: Europe/Zurich}`,
	} {
		if err := read(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for text, want := range map[string]string{
		`{}`:                                          "f.yaml:6: node.prefetch.a has neither images nor files",
		`{images: [ghcr.io/a:1]}`:                     "ghcr.io is not one of node.upstreams: docker.io, quay.io",
		`{files: [docker.io/a]}`:                      "docker.io is not one of node.files: dl.k8s.io",
		`{images: ["docker.io/li*/a"]}`:               "docker.io has no ledger",
		`{files: ["dl.k8s.io/a/*"]}`:                  "dl.k8s.io has no ledger",
		`{images: [nginx]}`:                           "node.prefetch.a.images[0]: ",
		`{images: [docker.io/a], platforms: [amd64]}`: "node.prefetch.a.platforms[0]: ",
		`{images: [docker.io/a], every: 10s}`:         "must be at least 1m",
		`{images: [docker.io/a], windows: [night]}`:   "windows[0]: ",
		`{images: [docker.io/a], limit: 0}`:           "must be at least 1",
	} {
		if err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
