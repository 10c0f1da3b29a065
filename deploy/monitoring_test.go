package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"entrepot/e2e/testenv"

	"go.yaml.in/yaml/v3"
)

// alert is a rule of prometheus/rules.yaml.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func readAlerts(t *testing.T) []alert {
	t.Helper()
	text, err := os.ReadFile("prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups[0].Rules
}

// queries are the panels of the dashboard with their queries.
func queries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("grafana/entrepot.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID          int    `json:"id"`
			Title       string `json:"title"`
			Type        string `json:"type"`
			Description string `json:"description"`
			Targets     []struct {
				RefID string `json:"refId"`
				Expr  string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	all, ids := map[string]string{}, map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Description == "") {
			t.Errorf("the panel %q asks nothing, or says not what", p.Title)
		}
		for _, target := range p.Targets {
			all[p.Title+" "+target.RefID] = target.Expr
		}
	}
	return all
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), testenv.Debian(t, "promtool", "prometheus"), args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlertsFireWhenTheyShouldAndOnlyThen(t *testing.T) {
	promtool(t, "check", "rules", "prometheus/rules.yaml")
	var tests []byte
	for _, name := range []string{"prometheus/rules_test.yaml", "prometheus/rules_slow_test.yaml"} {
		promtool(t, "test", "rules", name)
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, text...)
	}
	for _, a := range readAlerts(t) {
		if !strings.Contains(string(tests), `{alertname="`+a.Alert+`"`) {
			t.Errorf("no test has %s fire", a.Alert)
		}
	}
}

// The queries of the dashboard are ones that Prometheus takes, with Grafana's
// variables filled in.
func TestQueriesOfTheDashboardAreValid(t *testing.T) {
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, expr := range queries(t) {
		expr = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(expr)
		rules = append(rules, rule{"x" + strconv.Itoa(len(rules)), expr})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []map[string]any{{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

func TestEachAlertHasASectionOfTheRunbookAndEachSectionAnAlert(t *testing.T) {
	text, err := os.ReadFile("../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### (Entrepot\w+)$`).FindAllStringSubmatch(string(text), -1) {
		sections[m[1]] = true
	}
	for _, a := range readAlerts(t) {
		if !sections[a.Alert] {
			t.Errorf("%s has no section in docs/OPERATING.md", a.Alert)
		}
		delete(sections, a.Alert)
		if want := "docs/OPERATING.md#" + strings.ToLower(a.Alert); a.Annotations["runbook_url"] != want {
			t.Errorf("%s leads to %q, not to %s", a.Alert, a.Annotations["runbook_url"], want)
		}
		if s := a.Labels["severity"]; s != "warning" && s != "critical" || a.Annotations["summary"] == "" {
			t.Errorf("%s has the severity %q and the summary %q", a.Alert, s, a.Annotations["summary"])
		}
	}
	for section := range sections {
		t.Errorf("docs/OPERATING.md has a section for %s, which is no alert", section)
	}
}

// metric is a name as it stands in a query, without the parts of a histogram.
func metricsIn(expr string) []string {
	var names []string
	for _, name := range regexp.MustCompile(`\b(?:entrepot|process|go|kube)_[a-z0-9_]+`).FindAllString(expr, -1) {
		names = append(names, strings.TrimSuffix(name, "_bucket"))
	}
	return names
}

// Alerts and dashboard ask for nothing that is not there, and the reference in
// docs/OPERATING.md has every metric with its type.
func TestMetricsAreThoseThatEntrepotHas(t *testing.T) {
	exported := scrape(t)
	// Of these the first series comes with the first event.
	declared := declaredMetrics(t)
	has := func(name string) bool {
		return exported[name] != "" || declared[name] || strings.HasPrefix(name, "kube_")
	}
	for _, a := range readAlerts(t) {
		for _, name := range metricsIn(a.Expr) {
			if !has(name) {
				t.Errorf("the alert %s asks for %s", a.Alert, name)
			}
		}
	}
	for panel, expr := range queries(t) {
		for _, name := range metricsIn(expr) {
			if !has(name) {
				t.Errorf("the panel %s asks for %s", panel, name)
			}
		}
	}
	text, err := os.ReadFile("../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(entrepot_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = m[2]
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		switch kind, ok := documented[name]; {
		case !ok:
			t.Errorf("docs/OPERATING.md has no row for %s (%s)", name, exported[name])
		case exported[name] != "" && kind != exported[name]:
			t.Errorf("docs/OPERATING.md calls %s a %s; it is a %s", name, kind, exported[name])
		}
	}
	for name := range documented {
		if !declared[name] {
			t.Errorf("docs/OPERATING.md has %s, which nothing exports", name)
		}
	}
	for name := range exported {
		if strings.HasPrefix(name, "entrepot_") && !declared[name] {
			t.Errorf("%s is exported, and found nowhere in the source", name)
		}
	}
}

// declaredMetrics are the names of metrics in the source.
func declaredMetrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	isName := regexp.MustCompile(`^entrepot_[a-z0-9_]+$`)
	walkSource(t, func(file *ast.File, _ *token.FileSet) {
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil && isName.MatchString(text) {
					names[text] = true
				}
			}
			return true
		})
	})
	return names
}

// walkSource visits the files of the program, without its tests.
func walkSource(t *testing.T, visit func(*ast.File, *token.FileSet)) {
	t.Helper()
	for _, room := range []string{"blobstore", "cmd", "geo", "promote", "proxy", "registry"} {
		err := filepath.WalkDir(filepath.Join("..", room), func(name string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			if strings.HasSuffix(filepath.Dir(name), "test") { // helpers of tests
				return nil
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			visit(file, set)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// scrape runs every role, has each do something, and returns the types of the
// metrics that are exported then.
func scrape(t *testing.T) map[string]string {
	t.Helper()
	port := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)) }
	admin, node, origin, router, nobody := port(), port(), port(), port(), port()
	dir := t.TempDir()
	binary := testenv.BuildEntrepot(t)
	if out, err := exec.CommandContext(t.Context(), binary, "ledger", "keygen", "--name", "ledger", "--out", dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("making a key: %v\n%s", err, out)
	}
	ledger := fmt.Sprintf(`{url: "http://%s/ledger", key: %s/key.pub}`, origin, dir)
	config := fmt.Sprintf(`
admin: {listen: %[1]q}
node:
  listen: %[2]q
  store: {s3: {endpoint: "http://%[5]s", bucket: bucket, access_key: key, secret_key: secret}, cache: {dir: %[6]s/node}}
  upstreams: {production: {urls: ["http://%[3]s"], ledger: %[7]s}}
origin:
  listen: %[3]q
  store: {dir: %[6]s/origin}
  ledger: file://%[6]s/ledger
  webhooks: {chat: {url: "http://%[5]s"}}
router:
  listen: %[4]q
  upstreams: {production: {ledger: %[7]s}}
  mirrors: [{name: here, urls: ["http://%[2]s"], tier: origin, country: DE, lat: 50, lon: 8}]
`, admin, node, origin, router, nobody, dir, ledger)
	if err := os.WriteFile(dir+"/entrepot.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Start(t, testenv.ProcessConfig{
		Path: binary, Args: []string{"serve", "--config", dir + "/entrepot.yaml"},
		Ready: func(ctx context.Context) error { return testenv.WaitHTTP(ctx, "http://"+admin+"/readyz") },
	})
	get(t, "http://"+node+"/v2/production/library/app/manifests/1.0")
	get(t, "http://"+router+"/v2/production/library/app/manifests/1.0")
	types := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) (\w+)$`).FindAllStringSubmatch(get(t, "http://"+admin+"/metrics"), -1) {
		types[m[1]] = m[2]
	}
	if len(types) < 50 {
		t.Fatalf("%d metrics", len(types))
	}
	return types
}

// get is what a GET is answered with, whatever the status.
func get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
