package clientconf

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// content is what a file of a plan is to be.
func content(t *testing.T, p *Plan, path string) string {
	t.Helper()
	for _, f := range p.Files {
		if f.Path == path {
			return strings.ReplaceAll(f.Content, beginNote, "#<")
		}
	}
	t.Fatalf("the plan has no %s: %+v", path, p)
	return ""
}

func TestMergesKeepWhatIsThere(t *testing.T) {
	hosts := certsDir + "/docker.io/hosts.toml"
	cases := []struct {
		name      string
		client    Client
		file, old string
		untrusted bool
		want      string
	}{
		{
			"a hosts.toml of one's own", Containerd, hosts, "", false,
			"#<\nserver = \"https://registry-1.docker.io\"\n\n[host.\"http://node.example.org:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n# entrepot: end\n",
		},
		{
			"a server that is not trusted resolves no names", Containerd, hosts, "server = \"https://x\"", true,
			"server = \"https://x\"\n#<\n[host.\"http://node.example.org:5000\"]\n  capabilities = [\"pull\"]\n  dial_timeout = \"1s\"\n# entrepot: end\n",
		},
		{
			"before hosts that are there, and the comment above them", Containerd, hosts,
			"server = \"https://x\" # s\n\n# office\n[host.\"https://office\"]\n  [host.\"https://office\".header]\n    a = [\"\"\"\n[b]\"\"\", # ]\n    ]\n", false,
			"server = \"https://x\" # s\n\n#<\n[host.\"http://node.example.org:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n# entrepot: end\n# office\n[host.\"https://office\"]\n  [host.\"https://office\".header]\n    a = [\"\"\"\n[b]\"\"\", # ]\n    ]\n",
		},
		{
			"a configuration of containerd 2 that names no folder", Containerd, containerdConfig,
			"version = 3\r\n[plugins.'io.containerd.cri.v1.images'.registry]\r\n  config_path = '' # none\r\n", false,
			"version = 3\r\n[plugins.'io.containerd.cri.v1.images'.registry]\r\n# entrepot: begin; instead of:   config_path = '' # none\r\n  config_path = \"/etc/containerd/certs.d\"\r\n# entrepot: end\r\n",
		},
		{
			"a daemon.json in tabs", Docker, daemonJSON,
			"{\n\t\"registry-mirrors\": [\n\t\t\"https://office\"\n\t],\n\t\"a\": 1.0\n}", false,
			"{\n\t\"registry-mirrors\": [\n\t\t\"http://node.example.org:5000\",\n\t\t\"https://office\"\n\t],\n\t\"a\": 1.0,\n\t\"insecure-registries\": [\"node.example.org:5000\"]\n}",
		},
		{
			"a registry of others is taken over", Podman, registriesConf,
			"[[registry]]\nlocation = \"docker.io\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"office\"\npull-from-mirror = \"tag-only\"\n[[registry]]\nprefix = \"registry.k8s.io\"\nlocation = \"k8s\"\nmirror-by-digest-only = true\n", true,
			"#<\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"node.example.org:5000/docker.io\"\ninsecure = true\npull-from-mirror = \"digest-only\"\n[[registry.mirror]]\nlocation = \"office\"\npull-from-mirror = \"tag-only\"\n\n" +
				"[[registry]]\nprefix = \"registry.k8s.io\"\nlocation = \"k8s\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"node.example.org:5000/registry.k8s.io\"\ninsecure = true\n\n# entrepot: end\n",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			if c.old != "" {
				files[c.file] = c.old
			}
			root, s := folder(t, files), aNode(t, near)
			s.Untrusted = c.untrusted
			p, err := open(t, root).Plan(c.client, s)
			if err != nil {
				t.Fatal(err)
			}
			file := c.file
			if c.client == Podman {
				file = dropIn
			}
			if diff := cmp.Diff(c.want, content(t, p, file)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func TestWhatIsThereAlreadyIsLeftAlone(t *testing.T) {
	root := folder(t, map[string]string{
		containerdConfig:                        "version = 2\nimports = [\"conf.d/*.toml\"]\n",
		containerdDir + "/conf.d/registry.toml": "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/srv/certs:/etc/docker/certs.d\"\n",
		"/srv/certs/docker.io/hosts.toml":       "[host.\"http://node.example.org:5000\"]\ncapabilities = [\"pull\"]\n",
		daemonJSON:                              `{"registry-mirrors": ["http://node.example.org:5000/"], "insecure-registries": ["node.example.org:5000"]}`,
	})
	for client, want := range map[Client]int{Containerd: 1, Docker: 0} { // registry.k8s.io has no hosts.toml yet
		p, err := open(t, root).Plan(client, aNode(t, near))
		if err != nil || len(p.Files) != want {
			t.Errorf("%s: %d files are written, %v; want %d: %+v", client, len(p.Files), err, want, p)
		}
		for _, f := range p.Files {
			if f.Path != "/srv/certs/registry.k8s.io/hosts.toml" {
				t.Errorf("%s is written", f.Path)
			}
		}
	}
}

func TestContainerdsConfigurationIsLeftAloneWhereItWouldNotHelp(t *testing.T) {
	for text, why := range map[string]string{
		"disabled_plugins = [\"cri\"]\n": "disabled",
		"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://a\"]\n": "registry.mirrors",
		"root = \"/x\"\n": "old version",
	} {
		p, err := open(t, folder(t, map[string]string{containerdConfig: text})).Plan(Containerd, aNode(t, near))
		if err != nil || !strings.Contains(strings.Join(p.Notes, "\n"), why) {
			t.Errorf("%q: %v, notes %q, want %q", text, err, p.Notes, why)
			continue
		}
		if p.written()[containerdConfig] {
			t.Errorf("%q is changed", text)
		}
	}
}

func TestDockerIsRefusedWhatItCannotDo(t *testing.T) {
	for want, change := range map[string]func(*Server){
		"--untrusted":      func(s *Server) { s.Untrusted = true },
		"does not have":    func(s *Server) { s.Upstreams = s.Upstreams[1:] },
		"default_upstream": func(s *Server) { s.DefaultUpstream = "registry.k8s.io" },
	} {
		s := aNode(t, near)
		change(s)
		if _, err := open(t, t.TempDir()).Plan(Docker, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("docker was planned with %v, want %q", err, want)
		}
	}
}

func TestCertificatesGoWhereEachClientLooks(t *testing.T) {
	for client, want := range map[Client]string{
		Containerd: "/etc/containerd/entrepot-ca.crt",
		Docker:     "/etc/docker/certs.d/node.example.org:5443/ca.crt",
		Podman:     "/etc/containers/certs.d/node.example.org:5443/ca.crt",
	} {
		s := aNode(t, "https://node.example.org:5443")
		s.CA = []byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
		p, err := open(t, t.TempDir()).Plan(client, s)
		if err != nil || !p.written()[want] {
			t.Errorf("%s: %v, %+v; want %s", client, err, p, want)
		}
		for _, f := range p.Files {
			if strings.Contains(f.Content, "insecure") {
				t.Errorf("%s lets the client skip verification: %s", f.Path, f.Content)
			}
		}
	}
}

func FuzzHostsTOML(f *testing.F) {
	for _, files := range messy() {
		for _, text := range files {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURL(near)
		if err != nil {
			t.Fatal(err)
		}
		p := &planner{server: &Server{URL: u}, plan: new(Plan)}
		merged, err := p.hosts([]byte(text), "docker.io", "", "hosts.toml")
		if err != nil || string(merged) == text {
			return
		}
		// [planner.hosts] has compared what the two say. What is left is that undo
		// finds the text again; a last line without an end is given one.
		rest, found, err := cutBlocks(merged)
		if err != nil || !found {
			if strings.Contains(text, beginMark) || strings.Contains(text, endMark) {
				return // look refuses such a text, or cuts it, before
			}
			t.Fatalf("our part is not found in %q: %v", merged, err)
		}
		if got := strings.TrimRight(string(rest), "\r\n"); got != strings.TrimRight(text, "\r\n") && !strings.Contains(text, "entrepot:") {
			t.Errorf("%q became %q after both", text, rest)
		}
	})
}

func FuzzDaemonJSON(f *testing.F) {
	for _, files := range messy() {
		f.Add(files[daemonJSON])
	}
	f.Fuzz(func(t *testing.T, text string) {
		const key, value = "registry-mirrors", "https://node"
		merged, added, err := addToList([]byte(text), key, value)
		if err != nil || !added {
			return
		}
		before, after := map[string]any{}, map[string]any{}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(text, utf8BOM)), &before); err != nil {
			t.Fatalf("%q was merged: %v", text, err)
		}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(string(merged), utf8BOM)), &after); err != nil {
			t.Fatalf("%q became %q: %v", text, merged, err)
		}
		list, _ := after[key].([]any)
		if len(list) == 0 || list[0] != value {
			t.Errorf("%q became %q, in which the value is not first", text, merged)
		}
		rest, ok := removeFromList(merged, key, value)
		if !ok {
			t.Errorf("%q does not have the value", merged)
		}
		again := map[string]any{}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(string(rest), utf8BOM)), &again); err != nil {
			t.Fatalf("%q became %q: %v", merged, rest, err)
		}
		delete(before, key)
		delete(after, key)
		delete(again, key)
		if !reflect.DeepEqual(before, after) || !reflect.DeepEqual(before, again) {
			t.Errorf("%q became %q, and then %q", text, merged, rest)
		}
	})
}
