package clientconf

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errDead = errors.New("the process is dead")

// mortal is a machine whose process dies before a step, counted from 0: it does
// nothing more. It reports whether it came to that.
func mortal(t *testing.T, root string, step int) (m *Machine, died func() bool) {
	t.Helper()
	m = open(t, root)
	steps := 0
	m.disk.before = func() error {
		if steps++; steps > step {
			return errDead
		}
		return nil
	}
	return m, func() bool { return steps > step }
}

// deaths runs a life again and again, each time in a root that is made anew, with the
// process dying one step later, until it lives.
func deaths(t *testing.T, root func() string, life func(m *Machine) error, after func(t *testing.T, root string)) {
	t.Helper()
	const most = 500
	for step := range most {
		at := root()
		m, died := mortal(t, at, step)
		err := life(m)
		if died() != errors.Is(err, errDead) {
			t.Fatalf("dying before step %d was answered with %v", step, err)
		}
		if err != nil && !died() {
			t.Fatal(err)
		}
		t.Run(fmt.Sprintf("step %d", step), func(t *testing.T) { after(t, at) })
		if !died() {
			return
		}
	}
	t.Fatalf("it takes more than %d steps", most)
}

func writing(client Client, s *Server) func(m *Machine) error {
	return func(m *Machine) error {
		p, err := m.Plan(client, s)
		if err != nil {
			return err
		}
		return m.Write(p)
	}
}

// twoNodes are two of which each has an upstream that the other has not.
func twoNodes(t *testing.T) (first, second *Server) {
	first, second = aNode(t, near), aNode(t, other)
	first.Upstreams = append(first.Upstreams, Upstream{Name: "a.example.org"})
	second.Upstreams = append(second.Upstreams, Upstream{Name: "b.example.org"})
	return first, second
}

// clientFiles is what is in a root but for the state.
func clientFiles(t *testing.T, root string) map[string]string {
	t.Helper()
	all := tree(t, root)
	maps.DeleteFunc(all, func(name, _ string) bool { return strings.HasPrefix(name, filepath.Dir(stateDir)) })
	for name, what := range all { // when a file was written does not matter
		if strings.HasPrefix(what, "-") {
			all[name] = strings.SplitN(what, " ", 3)[0] + what[strings.Index(what, `"`):]
		}
	}
	return all
}

// dying are what a process may be at when it dies: what was there before, and its
// last deed.
func dying(t *testing.T, client Client) map[string]struct {
	before []*Server
	life   func(m *Machine) error
} {
	near, moved := twoNodes(t)
	undoing := func(m *Machine) error { _, err := m.Undo(client, false); return err }
	return map[string]struct {
		before []*Server
		life   func(m *Machine) error
	}{
		"the first write":    {nil, writing(client, near)},
		"a write to another": {[]*Server{near}, writing(client, moved)},
		"an undo":            {[]*Server{near, moved}, undoing},
	}
}

func TestWhereverAProcessDiesUndoRestoresWhatWasThereBeforeTheFirstWrite(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nothing is there", "one line", "comments and other mirrors"} {
		for _, client := range []Client{Containerd, Docker, Podman, CRIO, Curl} {
			files := messy()[name]
			for deed, c := range dying(t, client) {
				t.Run(fmt.Sprintf("%s/%s/%s", name, client, deed), func(t *testing.T) {
					t.Parallel()
					var before map[string]string
					deaths(t, func() string {
						root := folder(t, files)
						before = tree(t, root)
						for _, s := range c.before {
							write(t, root, client, s)
						}
						return root
					}, c.life, func(t *testing.T, root string) {
						undo(t, root, client)
						if diff := cmp.Diff(before, tree(t, root)); diff != "" {
							t.Errorf("undo left (-before +after):\n%s", diff)
						}
					})
				})
			}
		}
	}
}

func TestWhereverAProcessDiesAnotherWriteGoesOn(t *testing.T) {
	t.Parallel()
	files := messy()["comments and other mirrors"]
	for _, client := range []Client{Containerd, Docker, Podman, CRIO, Curl} {
		for deed, c := range dying(t, client) {
			t.Run(fmt.Sprintf("%s/%s", client, deed), func(t *testing.T) {
				t.Parallel()
				_, moved := twoNodes(t)
				undisturbed := folder(t, files)
				before := tree(t, undisturbed)
				write(t, undisturbed, client, moved)
				want := clientFiles(t, undisturbed)
				deaths(t, func() string {
					root := folder(t, files)
					for _, s := range c.before {
						write(t, root, client, s)
					}
					return root
				}, c.life, func(t *testing.T, root string) {
					write(t, root, client, moved)
					got := clientFiles(t, root)
					delete(got, certsDir+"/a.example.org") // an empty folder stays until the undo
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("the next write made (-undisturbed +after a death):\n%s", diff)
					}
					undo(t, root, client)
					if diff := cmp.Diff(before, tree(t, root)); diff != "" {
						t.Errorf("undo left (-before +after):\n%s", diff)
					}
				})
			})
		}
	}
}

func TestWhatSomebodyChangedSurvivesADeathWithoutOurPart(t *testing.T) {
	hosts := certsDir + "/docker.io/hosts.toml"
	for _, deed := range []string{"a write to another", "an undo"} {
		for _, client := range []Client{Containerd, Docker} {
			t.Run(fmt.Sprintf("%s/%s", client, deed), func(t *testing.T) {
				deaths(t, func() string {
					root := folder(t, map[string]string{daemonJSON: "{\n  \"debug\": true\n}\n", hosts: "server = \"https://registry-1.docker.io\"\n"})
					write(t, root, client, aNode(t, near))
					put(t, root, daemonJSON, strings.Replace(read(t, root, daemonJSON), "true", "false", 1))
					put(t, root, hosts, read(t, root, hosts)+"# mine\n")
					return root
				}, dying(t, client)[deed].life, func(t *testing.T, root string) {
					undo(t, root, client)
					want := map[Client]string{Containerd: "server = \"https://registry-1.docker.io\"\n# mine\n", Docker: "{\n  \"debug\": false\n}\n"}
					file := map[Client]string{Containerd: hosts, Docker: daemonJSON}
					if got := read(t, root, file[client]); got != want[client] {
						t.Errorf("undo left %q, want %q", got, want[client])
					}
				})
			})
		}
	}
}

// Somebody edits the file between the death and the undo: the mirror that was and the
// one that was to be are both ours.
func TestAFileThatWasChangedAfterADeathLosesBothOurMirrors(t *testing.T) {
	deaths(t, func() string {
		root := folder(t, map[string]string{daemonJSON: "{\n  \"debug\": true\n}\n"})
		write(t, root, Docker, aNode(t, near))
		return root
	}, writing(Docker, aNode(t, other)), func(t *testing.T, root string) {
		put(t, root, daemonJSON, strings.Replace(read(t, root, daemonJSON), "true", "false", 1))
		undo(t, root, Docker)
		if got, want := read(t, root, daemonJSON), "{\n  \"debug\": false\n}\n"; got != want {
			t.Errorf("undo left %q, want %q", got, want)
		}
	})
}

// A root may be an image of somebody else's making, and with it the journal.
func TestAJournalRemovesNothingOutsideOfItsRoot(t *testing.T) {
	outside := t.TempDir()
	root := filepath.Join(outside, "root")
	for _, dir := range []string{"victim", ".victim" + freshSuffix} {
		put(t, outside, dir+"/file", "x")
	}
	if err := os.Mkdir(filepath.Join(outside, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, root, stateDir+"/"+journalName, `{"version":1,"files":[{"path":"/../victim/file","clients":["docker"],"part":{"form":"list"}}],"dirs":["../victim","../empty"]}`)
	before := tree(t, outside)
	if _, err := open(t, root).Undo(Docker, false); err != nil {
		t.Fatal(err)
	}
	for name := range tree(t, outside) {
		delete(before, name)
	}
	for name := range before {
		if !strings.HasPrefix(name, "/root/") {
			t.Errorf("undo removed %s, which is outside of the root", name)
		}
	}
}
