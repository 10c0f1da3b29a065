package charttest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"entrepot/e2e/testenv"

	core "k8s.io/api/core/v1"
)

// entrepot is the binary's path.
type entrepot string

// place lays out what a configuration names, as it would be in the container, and
// returns the configuration with the folders of the test in place of those.
func (e entrepot) place(t *testing.T, text string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range regexp.MustCompile(`/etc/entrepot/[\w./-]+`).FindAllString(text, -1) {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(e.content(t, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text = strings.NewReplacer("/etc/entrepot/", root+"/etc/entrepot/", "/var/lib/entrepot", root+"/var/lib/entrepot").Replace(text)
	file := filepath.Join(root, "entrepot.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// content is something that a file of that name may have.
func (e entrepot) content(t *testing.T, name string) string {
	t.Helper()
	switch {
	case strings.HasSuffix(name, "htpasswd"):
		text, err := os.ReadFile("../compose/htpasswd")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	case strings.HasSuffix(name, ".pub"):
		key := filepath.Join(t.TempDir(), "key")
		made, err := exec.CommandContext(t.Context(), string(e), "ledger", "keygen", "--name", "origin.example.org/ledger", "--out", key).CombinedOutput()
		if err != nil {
			t.Fatalf("making a key: %v\n%s", err, made)
		}
		text, err := os.ReadFile(key + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	case strings.HasSuffix(name, "/tls.crt"), strings.HasSuffix(name, "/tls.key"):
		text, err := os.ReadFile("testdata/" + filepath.Base(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	case strings.HasSuffix(name, "/login"):
		return "user:password" // of a URL
	default:
		return "a secret of some length"
	}
}

// check runs entrepot config check, with nothing in the environment but env.
func (e entrepot) check(t *testing.T, file string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), string(e), "config", "check", file)
	cmd.Env = env
	if env == nil {
		cmd.Env = []string{}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		text, _ := os.ReadFile(file)
		t.Errorf("entrepot config check: %v\n%s\n%s", err, out, text)
	}
}

// Each role's configuration is one that entrepot takes, with the variables that its
// container has and no others, and with files only where something is mounted.
func TestEntrepotTakesEachConfiguration(t *testing.T) {
	e := entrepot(testenv.BuildEntrepot(t))
	for name, args := range examples(t) {
		t.Run(name, func(t *testing.T) {
			r, err := readRelease(render(t, args...))
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range r.workloads {
				if !w.serves {
					continue
				}
				c := w.pod.Spec.Containers[0]
				text := r.configuration(t, w)
				for _, name := range regexp.MustCompile(`/(?:etc|var/lib)/entrepot/[\w./-]+`).FindAllString(text, -1) {
					if !slices.ContainsFunc(c.VolumeMounts, func(m core.VolumeMount) bool { return strings.HasPrefix(name, m.MountPath+"/") }) {
						t.Errorf("%v: nothing is mounted where its configuration says %s", w, name)
					}
				}
				env := []string{}
				for _, e := range c.Env {
					env = append(env, e.Name+"=a secret of some length")
				}
				e.check(t, e.place(t, text), env...)
			}
		})
	}
}

// configuration is the file that a workload is given.
func (r release) configuration(t *testing.T, w workload) string {
	t.Helper()
	for _, o := range r.objects {
		if o.Kind != "ConfigMap" || o.Metadata.Name != w.Metadata.Name {
			continue
		}
		m, err := decode[core.ConfigMap](o)
		if err != nil {
			t.Fatal(err)
		}
		return m.Data["entrepot.yaml"]
	}
	t.Fatalf("%v has no configuration", w)
	return ""
}

// Where clients are is fetched beside each router, or by one job for all of them: with
// the configuration and secrets that the router has, into the folder that it reads.
func TestGeoUpdateFetchesIntoTheFolderThatRoutersRead(t *testing.T) {
	const folder = "/var/lib/entrepot/geo"
	mounted := func(spec core.PodSpec, c core.Container) string {
		for _, m := range c.VolumeMounts {
			for _, v := range spec.Volumes {
				switch {
				case m.MountPath != folder || m.Name != v.Name:
				case v.PersistentVolumeClaim != nil:
					return fmt.Sprintf("claim %s, read-only %v", v.PersistentVolumeClaim.ClaimName, m.ReadOnly)
				case v.EmptyDir != nil:
					return fmt.Sprintf("a folder of the pod, read-only %v", m.ReadOnly)
				}
			}
		}
		return "nothing"
	}
	for claim, want := range map[string][]string{
		"":       {"entrepot serve: a folder of the pod, read-only true", "geo-update geo update, every 24h: a folder of the pod, read-only false"},
		"places": {"entrepot serve: claim places, read-only true", "geo-update geo update: claim places, read-only false"},
	} {
		r, err := readRelease(render(t, "--values", chart+"/examples/whole-system.yaml", "--set", "router.geoUpdate.existingClaim="+claim))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range r.violations() {
			t.Errorf("claim %q: %s", claim, v)
		}
		var got []string
		for _, w := range r.workloads {
			spec := w.pod.Spec
			for _, c := range slices.Concat(spec.Containers, spec.InitContainers) {
				what := c.Name + " " + strings.ReplaceAll(strings.Join(c.Args, " "), " --config /etc/entrepot/config/entrepot.yaml", "")
				if where := mounted(spec, c); where != "nothing" {
					got = append(got, strings.ReplaceAll(what, " --every ", ", every ")+": "+where)
				}
				beside := c.RestartPolicy != nil && *c.RestartPolicy == core.ContainerRestartPolicyAlways
				if len(spec.InitContainers) > 0 && c.Name == spec.InitContainers[0].Name && !beside {
					t.Errorf("%v waits for %s before it starts", w, c.Name)
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("claim %q: there are %q, want %q", claim, got, want)
		}
	}
}

// What promotion is told is something that the command understands.
func TestPromotionIsACommandThatIsUnderstood(t *testing.T) {
	r, err := readRelease(render(t, "--values", chart+"/examples/origin-and-promotion.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, w := range r.workloads {
		if w.serves {
			continue
		}
		args := w.pod.Spec.Containers[0].Args
		args[len(args)-1] = t.TempDir() // in place of the tree, which has nothing
		var said bytes.Buffer
		cmd := testenv.EntrepotCommand(t, testenv.BuildEntrepot(t), t.TempDir(), args...)
		cmd.Stderr = &said
		_ = cmd.Run() // that it fails for want of a tree is known
		if status := cmd.ProcessState.ExitCode(); status != 1 {
			t.Errorf("%v: entrepot %s: status %d\n%s", w, strings.Join(args, " "), status, said.String())
		}
		ran++
	}
	if ran != 2 {
		t.Errorf("%d of a CronJob and a Job", ran)
	}
}
