package charttest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"entrepot/e2e/testenv"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// loadCompose reads the file as docker compose does: its schema, its variables,
// and whether what it names is there.
func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../compose.yaml"}, cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeFileIsTheWholeSystem(t *testing.T) {
	project := loadCompose(t)
	var names []string
	for name, service := range project.Services {
		names = append(names, name)
		if len(service.CapDrop) != 1 || service.CapDrop[0] != "ALL" || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s has capabilities", name)
		}
		for _, v := range service.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
				t.Errorf("%s mounts %s, read-only %v: %v", name, v.Source, v.ReadOnly, err)
			}
		}
	}
	slices.Sort(names)
	if want := []string{"minio", "node-1", "node-2", "origin", "router"}; !slices.Equal(names, want) {
		t.Errorf("it has %v", names)
	}
}

func TestEntrepotTakesTheConfigurationsOfTheComposeFile(t *testing.T) {
	e := entrepot(testenv.BuildEntrepot(t))
	project := loadCompose(t)
	listeners := map[string]string{}
	for name, service := range project.Services {
		if name == "minio" {
			continue
		}
		if !service.ReadOnly || service.User != "65532:65532" {
			t.Errorf("%s runs as %q, read-only %v", name, service.User, service.ReadOnly)
		}
		env := []string{}
		for key, value := range service.Environment {
			env = append(env, key+"="+*value)
		}
		i := slices.IndexFunc(service.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == service.Command[len(service.Command)-1] })
		if i < 0 {
			t.Errorf("%s has no configuration at %v", name, service.Command)
			continue
		}
		text, err := os.ReadFile(service.Volumes[i].Source)
		if err != nil {
			t.Fatal(err)
		}
		e.check(t, e.place(t, string(text)), env...)
		// All share the host's network.
		key := filepath.Base(service.Volumes[i].Source) + " " + os.Expand(string(text), func(k string) string {
			if v := service.Environment[k]; v != nil {
				return *v
			}
			return ""
		})
		if other := listeners[key]; other != "" {
			t.Errorf("%s and %s listen at the same addresses", name, other)
		}
		listeners[key] = name
	}
}
