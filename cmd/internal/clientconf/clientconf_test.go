package clientconf

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatWasWrittenIsUndoneWithoutATrace(t *testing.T) {
	for name, files := range messy() {
		for _, client := range Clients() {
			t.Run(name+"/"+string(client), func(t *testing.T) {
				root := folder(t, files)
				before := tree(t, root)
				write(t, root, client, aNode(t, near))
				undo(t, root, client)
				if diff := cmp.Diff(before, tree(t, root)); diff != "" {
					t.Errorf("undo left (-before +after):\n%s", diff)
				}
			})
		}
	}
}

func TestASecondWriteChangesNothing(t *testing.T) {
	for name, files := range messy() {
		for _, client := range Clients() {
			t.Run(name+"/"+string(client), func(t *testing.T) {
				root := folder(t, files)
				write(t, root, client, aNode(t, near))
				before := tree(t, root)
				if p := write(t, root, client, aNode(t, near)); p.Changed() {
					t.Errorf("the second plan changes files: %+v", p.Files)
				}
				after := tree(t, root)
				for _, all := range []map[string]string{before, after} { // the journal may be written anew
					maps.DeleteFunc(all, func(name, _ string) bool { return strings.HasPrefix(name, stateDir) })
				}
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("the second write changed (-first +second):\n%s", diff)
				}
			})
		}
	}
}

func TestAllClientsAtOnceAreUndoneInAnyOrder(t *testing.T) {
	for _, order := range [][]Client{{Containerd, Docker, Podman, CRIO, Kubeadm}, {Kubeadm, CRIO, Podman, Docker, Containerd}, {Podman, Kubeadm, Docker, CRIO, Containerd}} {
		root := folder(t, messy()["comments and other mirrors"])
		before := tree(t, root)
		for _, client := range []Client{Kubeadm, Containerd, Docker, CRIO, Podman} {
			write(t, root, client, aNode(t, near))
		}
		for _, client := range order {
			undo(t, root, client)
		}
		if diff := cmp.Diff(before, tree(t, root)); diff != "" {
			t.Errorf("undoing %v left (-before +after):\n%s", order, diff)
		}
	}
}

func TestAnotherServerReplacesTheFirst(t *testing.T) {
	for _, client := range []Client{Containerd, Docker, Podman, CRIO} {
		t.Run(string(client), func(t *testing.T) {
			root := folder(t, messy()["comments and other mirrors"])
			before := tree(t, root)
			write(t, root, client, aNode(t, near))
			moved := aNode(t, other)
			moved.Upstreams = moved.Upstreams[:1] // and one upstream less
			write(t, root, client, moved)
			for name, what := range tree(t, root) {
				if strings.Contains(what, "node.example.org") && !strings.HasPrefix(name, stateDir) {
					t.Errorf("%s still has the first server: %s", name, what)
				}
			}
			undo(t, root, client)
			if diff := cmp.Diff(before, tree(t, root)); diff != "" {
				t.Errorf("undo left (-before +after):\n%s", diff)
			}
		})
	}
}

func TestUndoKeepsWhatSomebodyChangedSince(t *testing.T) {
	hosts := certsDir + "/docker.io/hosts.toml"
	root := folder(t, map[string]string{daemonJSON: "{\n  \"debug\": true\n}\n", hosts: "server = \"https://registry-1.docker.io\"\n"})
	write(t, root, Containerd, aNode(t, near))
	write(t, root, Docker, aNode(t, near))
	put(t, root, daemonJSON, strings.Replace(read(t, root, daemonJSON), "true,", "true,\n  \"ipv6\": true,", 1))
	put(t, root, hosts, read(t, root, hosts)+"# mine\n")

	undo(t, root, Containerd)
	undo(t, root, Docker)
	if got, want := read(t, root, hosts), "server = \"https://registry-1.docker.io\"\n# mine\n"; got != want {
		t.Errorf("hosts.toml is %q, want %q", got, want)
	}
	if got, want := read(t, root, daemonJSON), "{\n  \"debug\": true,\n  \"ipv6\": true\n}\n"; got != want {
		t.Errorf("daemon.json is %q, want %q", got, want)
	}
}

func TestUndoRefusesWhatItCannotTellApartUnlessForced(t *testing.T) {
	root := folder(t, map[string]string{daemonJSON: "{}"})
	before := tree(t, root)
	write(t, root, Docker, aNode(t, near))
	put(t, root, daemonJSON, "no JSON any more")
	changed := tree(t, root)
	if _, err := open(t, root).Undo(Docker, false); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("undo said %v, want it to name --force", err)
	}
	if diff := cmp.Diff(changed, tree(t, root)); diff != "" {
		t.Errorf("a refused undo changed (-before +after):\n%s", diff)
	}
	if _, err := open(t, root).Undo(Docker, true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("a forced undo left (-before +after):\n%s", diff)
	}
}

func TestAFileBehindALinkIsChangedWhereItIs(t *testing.T) {
	root := folder(t, map[string]string{"/srv/config/daemon.json": "{}\n"})
	if err := os.MkdirAll(filepath.Join(root, "etc/docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The link is absolute: on the machine it leads below the machine's root.
	if err := os.Symlink("/srv/config/daemon.json", filepath.Join(root, daemonJSON)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, root)
	write(t, root, Docker, aNode(t, near))
	if got := read(t, root, "/srv/config/daemon.json"); !strings.Contains(got, near) {
		t.Errorf("the file behind the link is %q", got)
	}
	if target, err := os.Readlink(filepath.Join(root, daemonJSON)); err != nil || target != "/srv/config/daemon.json" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	undo(t, root, Docker)
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("undo left (-before +after):\n%s", diff)
	}
}

func TestModesStay(t *testing.T) {
	root := folder(t, map[string]string{daemonJSON: "{}\n"})
	if err := os.Chmod(filepath.Join(root, daemonJSON), 0o440); err != nil {
		t.Fatal(err)
	}
	write(t, root, Docker, aNode(t, near))
	info, err := os.Stat(filepath.Join(root, daemonJSON))
	if err != nil || info.Mode() != 0o440 {
		t.Errorf("daemon.json has mode %v, %v; want 0440", info.Mode(), err)
	}
	state, err := os.Stat(filepath.Join(root, stateDir))
	if err != nil || state.Mode().Perm() != 0o700 {
		t.Errorf("what was there, which may hold secrets, is kept with mode %v, %v", state.Mode(), err)
	}
}

func TestAWriteThatFailsInTheMiddleChangesNothing(t *testing.T) {
	root := folder(t, map[string]string{certsDir + "/registry.k8s.io": "a file where a folder has to be"})
	before := tree(t, root)
	m := open(t, root)
	p, err := m.Plan(Containerd, aNode(t, near))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Write(p); err == nil || !strings.Contains(err.Error(), "/registry.k8s.io/hosts.toml") {
		t.Errorf("write said %v, want the file that it could not write", err)
	}
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("a failed write left (-before +after):\n%s", diff)
	}
}

func TestTwoAtOnceDoNotLoseEachOthersJournal(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	p, err := m.Plan(Docker, aNode(t, near))
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, Containerd, aNode(t, near))
	if err := m.Write(p); err == nil || !strings.Contains(err.Error(), "run this again") {
		t.Errorf("writing by an old journal says %v", err)
	}
	write(t, root, Docker, aNode(t, near))
	undo(t, root, Docker)
	undo(t, root, Containerd)
	if left := tree(t, root); len(left) != 1 {
		t.Errorf("undo left %v", left)
	}
}

// A process that is killed has the journal, and some of the files.
func TestAWriteThatWasKilledIsUndone(t *testing.T) {
	files := messy()["comments and other mirrors"]
	for _, client := range []Client{Containerd, Docker, CRIO} {
		root := folder(t, files)
		before := tree(t, root)
		for name := range write(t, root, client, aNode(t, near)).written() {
			// As if this one had not been written any more.
			if original, ok := files[name]; ok {
				put(t, root, name, original)
			} else if err := os.Remove(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		undo(t, root, client)
		if diff := cmp.Diff(before, tree(t, root)); diff != "" {
			t.Errorf("undoing %s left (-before +after):\n%s", client, diff)
		}
	}
}

// written are the paths of a plan.
func (p *Plan) written() map[string]bool {
	all := map[string]bool{}
	for _, f := range p.Files {
		all[f.Path] = true
	}
	return all
}

func TestFilesThatCannotBeMergedAreRefusedWithTheirLine(t *testing.T) {
	cases := []struct {
		client     Client
		file, text string
		want       []string
	}{
		{Docker, daemonJSON, "{\n  // no JSON\n}", []string{daemonJSON, "line 2"}},
		{Docker, daemonJSON, `["a"]`, []string{daemonJSON, "no JSON object"}},
		{Docker, daemonJSON, `{"registry-mirrors": "https://a"}`, []string{daemonJSON, "registry-mirrors is no list"}},
		{Containerd, containerdConfig, "version = 2\nx = \n", []string{containerdConfig, "line 2"}},
		{Containerd, certsDir + "/docker.io/hosts.toml", "host = {}\n", []string{"hosts.toml", "by hand"}},
		{Containerd, certsDir + "/docker.io/hosts.toml", "# entrepot: begin\n", []string{"hosts.toml", "entrepot: end"}},
		{Podman, registriesConf, "[[registry]\n", []string{registriesConf, "TOML"}},
		{Podman, registriesDir + "/zzz.conf", "[[registry]]\nlocation=\"a\"\n", []string{"zzz.conf", "sorts before"}},
	}
	for _, c := range cases {
		root := folder(t, map[string]string{c.file: c.text})
		_, err := open(t, root).Plan(c.client, aNode(t, near))
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s with %s %q: %v, want %q", c.client, c.file, c.text, err, want)
			}
		}
	}
}

func TestNamesThatAreNoHostsAreNotBelieved(t *testing.T) {
	for _, name := range []string{"../../etc", "a/b", "", ".", "..", "DOCKER.IO", "a\nb", `a"b`, "a:0", "a:99999", "-a", strings.Repeat("a", 300)} {
		d := Description{Role: "node", Upstreams: []Upstream{{Name: name}}}
		if d.check() == nil {
			t.Errorf("the name %q was believed", name)
		}
	}
	if err := aNode(t, near).check(); err != nil {
		t.Error(err)
	}
}

func TestURLsOfServers(t *testing.T) {
	for _, bad := range []string{"node:5000", "node", "ftp://a", "https://a/b", "https://u:p@a", "https://a?b", "http://A B", "http://", "https://a:0"} {
		if u, err := ParseURL(bad); err == nil {
			t.Errorf("%q was taken for %v", bad, u)
		}
	}
	for _, good := range []string{"http://127.0.0.1:5000", "https://[::1]:5000", "https://node.example.org", "https://node.example.org/"} {
		if u, err := ParseURL(good); err != nil || u.String() != strings.TrimSuffix(good, "/") {
			t.Errorf("%q was taken for %v, %v", good, u, err)
		}
	}
}
