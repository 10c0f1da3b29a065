package clientconf

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// aNode is a node for two registries, one of which others may be asked for, too.
func aNode(t *testing.T, at string) *Server {
	t.Helper()
	u, err := ParseURL(at)
	if err != nil {
		t.Fatal(err)
	}
	return &Server{URL: u, DialTimeout: time.Second, Description: Description{
		Role: "node", DefaultUpstream: "docker.io",
		Upstreams: []Upstream{{Name: "docker.io"}, {Name: "registry.k8s.io"}},
		Files:     []Upstream{{Name: "dl.k8s.io"}},
	}}
}

const (
	near  = "http://node.example.org:5000"
	other = "https://other.example.org"
)

// folder is a root with files, whose times are in the past.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		put(t, root, name, content)
	}
	return root
}

func put(t *testing.T, root, name, content string) {
	t.Helper()
	at := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	long := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	if err := os.Chtimes(at, long, long); err != nil {
		t.Fatal(err)
	}
}

// tree is all that is in a root: kinds, modes, owners, contents, links, and the
// times of files.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			what += " to " + target
		case !d.IsDir():
			content, is, err := readFile(name)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %d:%d %v %q", is.UID, is.GID, info.ModTime().UTC(), content)
		}
		all[strings.TrimPrefix(name, root)] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func open(t *testing.T, root string) *Machine {
	t.Helper()
	m, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	m.disk.lazy = true
	return m
}

// write plans and writes, and returns the plan.
func write(t *testing.T, root string, client Client, s *Server) *Plan {
	t.Helper()
	m := open(t, root)
	p, err := m.Plan(client, s)
	if err != nil {
		t.Fatalf("planning %s: %v", client, err)
	}
	if err := m.Write(p); err != nil {
		t.Fatalf("writing %s: %v", client, err)
	}
	return p
}

func undo(t *testing.T, root string, client Client) {
	t.Helper()
	if _, err := open(t, root).Undo(client, false); err != nil {
		t.Fatalf("undoing %s: %v", client, err)
	}
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// messy are files as people leave them.
func messy() map[string]map[string]string {
	hosts := "/etc/containerd/certs.d/docker.io/hosts.toml"
	return map[string]map[string]string{
		"nothing is there": {},
		"empty files":      {containerdConfig: "", hosts: "", daemonJSON: "", registriesConf: "", dropIn: "", crioIn: "\n\n"},
		"comments and other mirrors": {
			containerdConfig:             "# ours\nversion = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"x\" # pause\n\t[plugins.\"io.containerd.grpc.v1.cri\".registry]\n\t  # config_path = \"/no\"\n\n[debug]\nlevel = \"info\"",
			hosts:                        "# the hub\nserver = \"https://registry-1.docker.io\"\n\n# the mirror of the office\n[host.\"https://office.example.org\"]\n  capabilities = [\n    \"pull\", # no tags\n  ]\n  [host.\"https://office.example.org\".header]\n    x-a = [\"]\", '''\n[host.\"https://not.a.table\"]\n''']\n",
			daemonJSON:                   "{\n\t\"log-driver\": \"journald\",\n\t\"registry-mirrors\": [\n\t\t\"https://office.example.org\"\n\t],\n\t\"data-root\": \"/srv/\\u0064ocker\"\n}\n",
			registriesConf:               "unqualified-search-registries = [\"docker.io\"]\n# theirs\n[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"office.example.org/hub\"\n",
			registriesDir + "/50-x.conf": "[[registry]]\nprefix = \"registry.k8s.io\"\nlocation = \"k8s.example.org\"\nblocked = false\n",
		},
		"lines that end in CRLF": {
			containerdConfig: "version = 3\r\n\r\n[plugins.'io.containerd.cri.v1.images'.registry]\r\n  config_path = ''\r\n",
			hosts:            "server = \"https://registry-1.docker.io\"\r\n[host.\"https://office.example.org\"]\r\n",
			daemonJSON:       "{\r\n  \"debug\": true\r\n}\r\n",
		},
		"one line": {
			containerdConfig: "version=2", hosts: "server='https://registry-1.docker.io'", daemonJSON: `{"debug":true,"registry-mirrors":["https://office.example.org/"]}`,
		},
		"a byte order mark":    {daemonJSON: "\ufeff{\n  \"debug\": true\n}\n"},
		"lists that are empty": {daemonJSON: "{\"registry-mirrors\": [], \"insecure-registries\": null}"},
	}
}
