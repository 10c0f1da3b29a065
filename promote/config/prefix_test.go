package config_test

import (
	"strings"
	"testing"
)

// one is a list of one image with one tag on a digest of one letter.
func one(image, letter string) string {
	return "- name: " + image + "\n  dmap:\n    sha256:" + hex(letter) + ": [v1]\n"
}

func TestProjectsWriteOnlyBelowTheirOwnPrefix(t *testing.T) {
	const host = "registry.example.org/prod"
	for name, test := range map[string]struct {
		projects map[string][2]string
		told     []string
		standing []string
	}{
		"each below its name, in several places": {
			map[string][2]string{
				"alpha": {host + "/alpha mirror.example.org/alpha", one("x", "a")},
				"beta":  {host + "/beta mirror.example.org/beta", one("x", "b")},
			}, nil, []string{"alpha/x@av1", "beta/x@bv1"},
		},
		"a name that the project's abbreviates": {
			map[string][2]string{"npd": {host + "/node-problem-detector", one("x", "a")}, "beta": {host + "/beta", one("x", "b")}},
			nil,
			[]string{"beta/x@bv1", "npd/x@av1"},
		},
		"another's prefix": {
			map[string][2]string{"alpha": {host + "/alpha", one("x", "a")}, "beta": {host + "/beta " + host + "/alpha", one("y", "b")}},
			[]string{`manifests/beta/promoter-manifest.yaml:5: destination ` + host + `/alpha is outside the project's own prefix: ` + host + `/alpha belongs to project alpha (manifests/alpha/promoter-manifest.yaml); the destination is set aside`},
			[]string{"alpha/x@av1", "beta/y@bv1"},
		},
		"inside another's prefix": {
			map[string][2]string{"alpha": {host + "/alpha", one("x", "a")}, "beta": {host + "/alpha/beta", one("y", "b")}},
			[]string{
				`manifests/beta/promoter-manifest.yaml: no destination is left; the project is set aside`,
				`manifests/beta/promoter-manifest.yaml:4: destination ` + host + `/alpha/beta is outside the project's own prefix: ` + host + `/alpha belongs to project alpha (manifests/alpha/promoter-manifest.yaml); the destination is set aside`,
			},
			[]string{"alpha/x@av1"},
		},
		"a prefix of nobody's name, where the others have their own": {
			map[string][2]string{"alpha": {host + "/alpha", one("x", "a")}, "beta": {host + "/beta " + host + "/hijack", one("y", "b")}},
			[]string{`manifests/beta/promoter-manifest.yaml:5: destination ` + host + `/hijack is outside the project's own prefix: destinations in ` + host + ` end in the name of their project, such as ` + host + `/beta; the destination is set aside`},
			[]string{"alpha/x@av1", "beta/y@bv1"},
		},
		"no convention to break": {
			map[string][2]string{"alpha": {host + "/one", one("x", "a")}, "beta": {host + "/two", one("x", "b")}},
			nil,
			[]string{"alpha/x@av1", "beta/x@bv1"},
		},
		"one prefix for all": {
			map[string][2]string{"alpha": {host, one("x", "a")}, "beta": {host, one("y", "b")}},
			nil,
			[]string{"alpha/x@av1", "beta/y@bv1"},
		},
		"top-level projects beside the others": {
			map[string][2]string{
				"kubernetes": {host + " " + host + "/kubernetes", one("pause", "a")},
				"etcd":       {host + " " + host + "/kubernetes", one("etcd", "b")},
				"alpha":      {host + "/alpha", one("x", "c")},
			}, nil, []string{"alpha/x@cv1", "etcd/etcd@bv1", "kubernetes/pause@av1"},
		},
		"a top-level project's name in another's prefix": {
			map[string][2]string{"kubernetes": {host, one("alpha/x", "a") + one("alphabet/x", "b")}, "alpha": {host + "/alpha", one("x", "c")}},
			[]string{`images/kubernetes/images.yaml:1: alpha/x would stand in ` + host + `/alpha, the prefix of project alpha (manifests/alpha/promoter-manifest.yaml); it is set aside`},
			[]string{"alpha/x@cv1", "kubernetes/alphabet/x@bv1"},
		},
		"two projects write one name": {
			map[string][2]string{
				"kubernetes": {host + " " + host + "/kubernetes", one("etcd", "a") + one("pause", "c")},
				"etcd":       {host + " " + host + "/kubernetes", one("etcd", "b")},
			},
			[]string{
				`images/etcd/images.yaml:3: ` + host + `/etcd:v1 is written by two projects; see images/kubernetes/images.yaml:3`,
				`images/kubernetes/images.yaml:3: ` + host + `/etcd:v1 is written by two projects: sha256:aaaaaaaaaaaa… here, and sha256:bbbbbbbbbbbb… by etcd on images/etcd/images.yaml:3; it is set aside in both`,
			},
			[]string{"kubernetes/pause@cv1"},
		},
		"two projects write one name alike": {
			map[string][2]string{"kubernetes": {host, one("etcd", "a")}, "etcd": {host, one("etcd", "a")}},
			[]string{`(images/kubernetes/images.yaml:3: ` + host + `/etcd:v1 is written by project etcd as well, on images/etcd/images.yaml:3, with the same digest)`},
			[]string{"etcd/etcd@av1", "kubernetes/etcd@av1"},
		},
		"removing what another project has": {
			map[string][2]string{
				"kubernetes": {host, one("pause", "a") + "- removed: [alpha/x, etcd, \"etcd:v1\", \"etcd:v0\"]\n  reason: tidying\n"},
				"etcd":       {host, one("etcd", "b")},
				"alpha":      {host + "/alpha", one("x", "c")},
			},
			[]string{
				`images/kubernetes/images.yaml:4: alpha/x would stand in ` + host + `/alpha, the prefix of project alpha (manifests/alpha/promoter-manifest.yaml); it is set aside`,
				`images/kubernetes/images.yaml:4: etcd is removed, and listed by project etcd on images/etcd/images.yaml:3; the removal is set aside`,
				`images/kubernetes/images.yaml:4: etcd:v1 is removed, and listed by project etcd on images/etcd/images.yaml:3; the removal is set aside`,
			},
			[]string{"alpha/x@cv1", "etcd/etcd@bv1", "kubernetes/pause@av1", "kubernetes-etcd:v0"},
		},
		"two ways to one name": {
			map[string][2]string{"alpha": {host, one("team/x", "a")}, "beta": {host + "/team", one("x", "b")}},
			[]string{
				`images/alpha/images.yaml:3: ` + host + `/team/x:v1 is written by two projects; see images/beta/images.yaml:3`,
				`images/beta/images.yaml:3: ` + host + `/team/x:v1 is written by two projects: sha256:bbbbbbbbbbbb… here, and sha256:aaaaaaaaaaaa… by alpha on images/alpha/images.yaml:3; it is set aside in both`,
			},
			nil,
		},
		"what another project revokes": {
			map[string][2]string{"alpha": {host + "/alpha", one("x", "a")}, "beta": {host + "/beta", "- revoked: sha256:" + hex("a") + "\n  reason: leaks\n"}},
			[]string{`images/alpha/images.yaml:3: x has the digest sha256:aaaaaaaaaaaa…, which is revoked on images/beta/images.yaml:1; it is set aside`},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) { check(t, thin(test.projects), "", test.told, test.standing) })
	}
}

func TestProjectsOfFilesShareNoName(t *testing.T) {
	files := map[string]string{}
	for name, letter := range map[string]string{"alpha": "a", "beta": "b"} {
		files["filestores/"+name+"/filepromoter-manifest.yaml"] = "filestores:\n- base: gs://staging-" + name + "\n  src: true\n- base: s3://prod/bin/\n"
		files["manifests/"+name+"/v1.yaml"] = "files:\n- name: v1/tool\n  sha256: " + hex(letter) + "\n- name: v1/" + name + "\n  sha256: " + hex(letter) + "\n"
	}
	check(t, files, "", []string{
		`manifests/alpha/v1.yaml:2: s3://prod/bin/v1/tool is written by two projects; see manifests/beta/v1.yaml:2`,
		`manifests/beta/v1.yaml:2: s3://prod/bin/v1/tool is written by two projects: sha256:bbbbbbbbbbbb… here, and sha256:aaaaaaaaaaaa… by alpha on manifests/alpha/v1.yaml:2; it is set aside in both`,
	}, []string{"alpha/v1/alpha=a", "beta/v1/beta=b"})
}

// 22 regions of one conflict are one problem.
func TestConflictIsToldOnceForAllDestinations(t *testing.T) {
	var destinations []string
	for _, c := range "abcdefghijklmnopqrstuv" {
		destinations = append(destinations, "region-"+string(c)+".example.org/prod")
	}
	both := strings.Join(destinations, " ")
	told, standing := problems(t, thin(map[string][2]string{"alpha": {both, one("x", "a")}, "beta": {both, one("x", "b")}}), "")
	if len(told) != 2 || len(standing) != 0 {
		t.Errorf("told %q, standing %q; want one problem in either list and nothing standing", told, standing)
	}
}
