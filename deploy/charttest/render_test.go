package charttest

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"entrepot/e2e/testenv"

	"sigs.k8s.io/yaml"
)

const (
	chart = "../helm/entrepot"
	// kubernetes is the version that the chart is rendered for, and whose schemas
	// are taken: that of the module k8s.io/api.
	kubernetes = "1.37.2"
)

// object is one of the things that the chart makes.
type object struct {
	text       []byte // YAML
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
}

func (o object) String() string { return o.Kind + " " + o.Metadata.Name }

// examples are the values that come with the chart, and its defaults.
func examples(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(chart + "/examples/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	all := map[string][]string{"defaults": nil}
	for _, file := range files {
		all[strings.TrimSuffix(filepath.Base(file), ".yaml")] = []string{"--values", file}
	}
	return all
}

// helm runs Helm on the chart.
func helm(t *testing.T, verb string, args ...string) (output string, err error) {
	t.Helper()
	command := []string{verb}
	if verb == "template" {
		command = append(command, "release")
	}
	command = append(append(command, chart, "--kube-version", kubernetes, "--namespace", "mirrors"), args...)
	cmd := exec.CommandContext(t.Context(), testenv.Tool(t, "helm"), command...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=/usr/bin:/bin"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String() + stderr.String(), err
}

// render is what the chart makes of values.
func render(t *testing.T, args ...string) []object {
	t.Helper()
	output, err := helm(t, "template", args...)
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, output)
	}
	var objects []object
	for _, text := range regexp.MustCompile(`(?m)^---\n`).Split(output, -1) {
		o := object{text: []byte(text)}
		if err := yaml.Unmarshal(o.text, &o); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if o.Kind != "" {
			objects = append(objects, o)
		}
	}
	return objects
}

func TestLintFindsNothing(t *testing.T) {
	for name, args := range examples(t) {
		t.Run(name, func(t *testing.T) {
			output, err := helm(t, "lint", append(args, "--strict", "--with-subcharts")...)
			if err != nil || strings.Contains(output, "[WARNING]") {
				t.Errorf("helm lint: %v\n%s", err, output)
			}
		})
	}
}

func TestWrongValuesAreRefusedWithTheirName(t *testing.T) {
	for name, c := range map[string]struct{ set, want string }{
		"unknown section":           {"nodes.replicas=1", "additional properties 'nodes' not allowed"},
		"unknown key":               {"node.replica=1", "additional properties 'replica' not allowed"},
		"unknown key of a service":  {"router.service.prot=1", "additional properties 'prot' not allowed"},
		"unknown key of the config": {"node.config.max_fill=1", "additional properties 'max_fill' not allowed"},
		"deep in the config":        {"node.config.upstreams.quay.tag_tll=5m", "additional properties 'tag_tll' not allowed"},
		"in a mirror":               {"router.config.mirrors[0].naem=eu", "additional properties 'naem' not allowed"},
		"another kind":              {"node.kind=DaemonSet", "/node/kind"},
		"a size in other words":     {"node.volume.size=100GB", "/node/volume/size"},
		"a number in words":         {"node.replicas=two", "/node/replicas"},
		"a digest cut short":        {"image.digest=sha256:abc", "/image/digest"},
		"an address of one's own":   {"node.config.listen=:80", "node.config.listen is the chart's to set"},
		"a router without mirrors":  {"router.enabled=true", "router.config.mirrors is empty"},
		"promotion without a tree":  {"promotion.job.enabled=true", "promotion.tree is empty"},
		"a pod killed too soon":     {"node.config.shutdown_timeout=1m30s", "with a shutdown_timeout of 1m30s it has to be at least 105"},
		"a folder of one's own":     {"router.enabled=true,router.geoUpdate.enabled=true,router.config.geo.dir=/x", "router.config.geo.dir is the chart's to set"},
		"an Ingress without hosts":  {"node.ingress.enabled=true", "node.ingress.hosts is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			output, err := helm(t, "template", "--set", c.set)
			if err == nil || !strings.Contains(output, c.want) {
				t.Errorf("--set %s gave %v without %q:\n%.2000s", c.set, err, c.want, output)
			}
		})
	}
}

// A router reads a changed list of mirrors by itself; all else makes new pods.
func TestOnlyTheListOfMirrorsChangesWithoutNewPods(t *testing.T) {
	template := func(set string) string {
		for _, o := range render(t, "--values", chart+"/examples/whole-system.yaml", "--set", set) {
			if o.Kind == "Deployment" && strings.HasSuffix(o.Metadata.Name, "-router") {
				return regexp.MustCompile(`checksum/config: (\w+)`).FindString(string(o.text))
			}
		}
		t.Fatal("no router")
		return ""
	}
	before := template("router.replicas=3")
	if after := template("router.config.mirrors[0].draining=true"); after != before {
		t.Errorf("a mirror that is drained makes new pods: %s, before %s", after, before)
	}
	if after := template("router.config.choice.base_ms=3"); after == before {
		t.Errorf("another choice makes no new pods: %s", after)
	}
}
