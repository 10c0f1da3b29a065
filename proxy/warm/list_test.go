package warm

import (
	"fmt"
	"strings"
	"testing"
)

// isFile knows one server of files.
func isFile(server string) bool { return server == "dl.k8s.io" }

// names are the items of a list, written out.
func names(l *List) string {
	var all []string
	for _, i := range l.Items {
		if i.Repository == "" {
			all = append(all, "file "+i.Upstream+" "+i.Path)
			continue
		}
		all = append(all, i.Upstream+" "+i.Repository+" "+i.Reference)
	}
	return strings.Join(all, "\n")
}

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestListsAreRead(t *testing.T) {
	for what, row := range map[string]struct{ text, want string }{
		"lines, with comments and twice the same": {
			"# images\nnginx # the web\n\n  quay.io/org/app:v1\r\n- docker.io/library/nginx:latest\n\"ghcr.io/a/b@" + someDigest + "\"\n",
			"docker.io library/nginx latest\nquay.io org/app v1\nghcr.io a/b " + someDigest,
		},
		"files": {
			"https://dl.k8s.io/release/stable.txt\ndl.k8s.io/release/v1.36.0/bin/linux/amd64/kubectl\ndl.k8s.io/a b\n",
			"file dl.k8s.io release/stable.txt\nfile dl.k8s.io release/v1.36.0/bin/linux/amd64/kubectl\nfile dl.k8s.io a%20b",
		},
		"kubeadm config images list": {
			"I1130 04:00:00.000000   12 version.go:261] remote version is much newer\nregistry.k8s.io/kube-apiserver:v1.36.0\nregistry.k8s.io/coredns/coredns:v1.12.0\nregistry.k8s.io/pause:3.10\nregistry.k8s.io/etcd:3.6.1-0\n",
			"registry.k8s.io kube-apiserver v1.36.0\nregistry.k8s.io coredns/coredns v1.12.0\nregistry.k8s.io pause 3.10\nregistry.k8s.io etcd 3.6.1-0",
		},
		"kubeadm config images list -o json": {
			"{\n \"kind\": \"Images\",\n \"images\": [\"registry.k8s.io/pause:3.10\"]\n}",
			"registry.k8s.io pause 3.10",
		},
		"manifests of Kubernetes": {
			`apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      initContainers: [{name: i, image: busybox:1}]
      containers:
      - name: a
        image: "quay.io/a/a:1" # comment
      ephemeralContainers:
      - {name: e, image: quay.io/a/e:1}
      volumes:
      - name: v
        image: {reference: quay.io/a/v:1, pullPolicy: Always}
---
# Source: chart/templates/cron.yaml
kind: CronJob
spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: quay.io/a/cron:1}]}}}}}
---
kind: List
items:
- kind: Pod
  spec: {containers: [{image: quay.io/a/a:1}, {image: quay.io/a/pod:1}]}
---
kind: Prometheus
spec: {image: quay.io/a/crd:1, image2: no, other: {image: }}
---
`,
			"docker.io library/busybox 1\nquay.io a/a 1\nquay.io a/e 1\nquay.io a/v 1\nquay.io a/cron 1\nquay.io a/pod 1\nquay.io a/crd 1",
		},
		"aliases are seen once": {
			"kind: x\na: &c {image: quay.io/a/a:1}\nb: *c\n",
			"quay.io a/a 1",
		},
		"nothing": {"# only a comment\n\n", ""},
	} {
		l, err := ReadList(strings.NewReader(row.text), isFile)
		if err != nil || len(l.Problems) > 0 {
			t.Errorf("%s: %v, %v", what, err, l.Problems)
		}
		if got := names(l); got != row.want {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, row.want)
		}
	}
}

func TestWhatCannotBeReadIsNamedWithItsLine(t *testing.T) {
	for what, row := range map[string]struct {
		text, want string
		items      int
	}{
		"a name in capitals":            {"quay.io/a:1\nquay.io/A\n", "line 2: quay.io/A: ", 1},
		"a URL without a path":          {"https://dl.k8s.io/\n", "line 1: https://dl.k8s.io/: it is no URL of a file", 0},
		"a URL with a password":         {"https://u:p@dl.k8s.io/a\n", "line 1", 0},
		"a chart that was not rendered": {"kind: Pod\nspec:\n  image: {{ .Values.image }}\n", "line 3", 0},
		"a broken document":             {"kind: Pod\nimage: quay.io/a:1\n---\nkind: [\n", "helm template", 1},
	} {
		l, err := ReadList(strings.NewReader(row.text), isFile)
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Items) != row.items || len(l.Problems) != 1 || !strings.Contains(l.Problems[0].Error(), row.want) {
			t.Errorf("%s: %d items, %v; want %q", what, len(l.Items), l.Problems, row.want)
		}
	}
}

// A few aliases that stand for each other make a document that is larger than any
// memory; they are not followed.
func TestAliasesDoNotMultiply(t *testing.T) {
	var b strings.Builder
	b.WriteString("kind: x\na0: &a0 {image: quay.io/a:1}\n")
	for i := range 40 {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i, i)
	}
	l, err := ReadList(strings.NewReader(b.String()), nil)
	if err != nil || len(l.Items) != 1 {
		t.Errorf("%d items, %v", len(l.Items), err)
	}
}

func FuzzReadList(f *testing.F) {
	f.Add("kind: x\nimage: a\n")
	f.Add("a\nb # c\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ReadList(strings.NewReader(text), isFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range l.Items {
			if i.Upstream == "" || (i.Repository == "") == (i.Path == "") || (i.Repository == "") != (i.Reference == "") {
				t.Errorf("%q names %+v", text, i)
			}
		}
	})
}
