package charttest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/santhosh-tekuri/jsonschema/v6"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

func TestEachExampleSatisfiesTheSchemas(t *testing.T) {
	schemas := readSchemas(t)
	seen := map[string]bool{}
	for name, args := range examples(t) {
		t.Run(name, func(t *testing.T) {
			for _, o := range render(t, args...) {
				seen[o.Kind] = true
				if err := schemas.check(o); err != nil {
					t.Errorf("%v: %v\n%s", o, err, o.text)
				}
			}
		})
	}
	for _, kind := range []string{
		"ConfigMap", "CronJob", "Deployment", "HTTPRoute", "HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy",
		"PodDisruptionBudget", "PrometheusRule", "Secret", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet",
	} {
		if !seen[kind] {
			t.Errorf("no example has a %s", kind)
		}
	}
}

// The schemas are worth something only if they refuse.
func TestSchemasRefuseWhatKubernetesWould(t *testing.T) {
	schemas := readSchemas(t)
	for name, c := range map[string]struct{ kind, from, to, want string }{
		"an unknown field":     {"StatefulSet", "serviceName:", "serviceNam:", "serviceNam"},
		"a wrong type":         {"StatefulSet", "replicas: 2", "replicas: two", "replicas"},
		"a field that misses":  {"StatefulSet", "- name: entrepot\n          image:", "- image:", "name"},
		"a key that is twice":  {"StatefulSet", "replicas: 2", "replicas: 2\n  replicas: 2", "replicas"},
		"a number for a text":  {"NetworkPolicy", "cidr: 0.0.0.0/0", "cidr: 5", "cidr"},
		"a monitor's field":    {"ServiceMonitor", "interval:", "intervall:", "intervall"},
		"a route's field":      {"HTTPRoute", "backendRefs:", "backends:", "backends"},
		"a rule's field":       {"PrometheusRule", "groups:", "group:", "group"},
		"of an unknown kind":   {"ServiceMonitor", "kind: ServiceMonitor", "kind: ServiceMonitors", "ServiceMonitors"},
		"of an old API":        {"CronJob", "apiVersion: batch/v1", "apiVersion: batch/v1beta1", "batch/v1beta1"},
		"a probe without port": {"StatefulSet", "httpGet: {path: /readyz, port: admin}", "httpGet: {path: /readyz}", "port"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--values", chart + "/examples/whole-system.yaml", "--set", "node.replicas=2"}
			if c.kind == "CronJob" {
				args = []string{"--values", chart + "/examples/origin-and-promotion.yaml"}
			}
			for _, o := range render(t, args...) {
				if o.Kind != c.kind || !bytes.Contains(o.text, []byte(c.from)) {
					continue
				}
				o.text = bytes.Replace(o.text, []byte(c.from), []byte(c.to), 1)
				if err := yaml.Unmarshal(o.text, &o); err != nil {
					t.Fatal(err)
				}
				if err := schemas.check(o); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("said %v, without %q", err, c.want)
				}
				return
			}
			t.Fatalf("no %s has %q", c.kind, c.from)
		})
	}
}

// schemas are those of Kubernetes' own kinds, by apiVersion and kind.
type schemas map[string]*jsonschema.Schema

// check holds an object to its schema: of Kubernetes' published OpenAPI document,
// or, of what extends it, the types of their API.
func (s schemas) check(o object) error {
	extensions := map[string]any{
		"monitoring.coreos.com/v1 ServiceMonitor": new(monitoring.ServiceMonitor),
		"monitoring.coreos.com/v1 PrometheusRule": new(monitoring.PrometheusRule),
		"gateway.networking.k8s.io/v1 HTTPRoute":  new(gateway.HTTPRoute),
	}
	id := o.APIVersion + " " + o.Kind
	if typed, ok := extensions[id]; ok {
		return yaml.UnmarshalStrict(o.text, typed)
	}
	schema, ok := s[id]
	if !ok {
		return unknownKind(id)
	}
	plain, err := yaml.YAMLToJSONStrict(o.text) // refuses a key that is there twice
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(plain))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

type unknownKind string

func (u unknownKind) Error() string {
	return string(u) + " is nothing that Kubernetes " + kubernetes + " has"
}

// readSchemas reads the OpenAPI document of Kubernetes from its module, which the
// checksum database of Go vouches for.
func readSchemas(t *testing.T) schemas {
	t.Helper()
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "k8s.io/kubernetes@v"+kubernetes)
	download.Dir = t.TempDir() // no module's, so that none needs it
	out, err := download.Output()
	if err != nil {
		t.Fatalf("downloading the schemas of Kubernetes: %v\n%s", err, out)
	}
	var module struct {
		Dir string `json:"Dir"`
	}
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(module.Dir, "api", "openapi-spec", "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return compileSchemas(t, document.Definitions)
}

// compileSchemas makes JSON schemas of OpenAPI's definitions. These leave out what
// the API server adds: that there are no other fields, and that a quantity or port
// may be a number.
func compileSchemas(t *testing.T, definitions map[string]map[string]any) schemas {
	t.Helper()
	ids := map[string]string{}
	plain := map[string]any{}
	for name, d := range definitions {
		if _, open := d["additionalProperties"]; d["properties"] != nil && !open {
			d["additionalProperties"] = false
		}
		if strings.HasSuffix(name, ".Quantity") || d["format"] == "int-or-string" {
			d["type"] = []any{"string", "integer"}
		}
		delete(d, "format")
		if kinds, ok := d["x-kubernetes-group-version-kind"].([]any); ok && len(kinds) == 1 {
			k := kinds[0].(map[string]any)
			id := strings.TrimPrefix(k["group"].(string)+"/"+k["version"].(string), "/") + " " + k["kind"].(string)
			ids[id] = name
		}
		plain[name] = any(d)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("kubernetes.json", any(map[string]any{"definitions": plain})); err != nil {
		t.Fatal(err)
	}
	all := schemas{}
	for id, name := range ids {
		schema, err := compiler.Compile("kubernetes.json#/definitions/" + name)
		if err != nil {
			t.Fatalf("the schema of %s: %v", id, err)
		}
		all[id] = schema
	}
	return all
}
