package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"

	"go.yaml.in/yaml/v3"
)

// A whole system at work: Prometheus has an answer to the query of each panel. Those of
// the first row show a number although nothing has gone wrong, and the others when it has.
func TestEachPanelOfTheDashboardShowsSomething(t *testing.T) {
	s3 := testenv.StartMinIO(t)
	bucket := s3.NewBucket(t)
	w := testenv.StartWorld(t, testenv.WorldConfig{
		Here: "eu",
		Node: func(region string) testenv.NodeConfig {
			n := testenv.NodeConfig{
				Store:     map[string]any{"dir": t.TempDir(), "max_size": "1GiB"},
				Upstreams: map[string][]string{"gone.example.org": {"http://127.0.0.1:1"}},
			}
			switch region {
			case "jp":
				n.Extra = map[string]any{"limits": map[string]any{"max_connections": 1}}
			case "us":
				n.Store = map[string]any{
					"s3":    map[string]any{"endpoint": s3.Endpoint, "bucket": bucket, "region": s3.Region, "access_key": s3.AccessKey, "secret_key": s3.SecretKey},
					"cache": map[string]any{"dir": t.TempDir(), "max_size": "1GiB"},
				}
			}
			return n
		},
	})
	app := testenv.PushIndex(t, w.Staging.Host(), "library/app", "1.0")
	w.Promote(testenv.Release{Images: []testenv.Artifact{app}, Files: map[string]string{"v1.0.0/bin/tool": strings.Repeat("a tool\n", 1<<16)}})
	prometheus := startPrometheus(t, w)

	all := queries(t)
	first := map[string]string{}
	for _, panel := range []string{"Processes up", "Requests", "From the store", "Failed", "Sent", "Received"} {
		first[panel+" A"] = all[panel+" A"]
	}
	wantShown(t, prometheus, first, func() { work(t, w, app) })
	wantShown(t, prometheus, all, func() { work(t, w, app); fail(t, w) })
}

// wantShown does something until Prometheus has an answer to each query.
func wantShown(t *testing.T, prometheus string, panels map[string]string, do func()) {
	t.Helper()
	pending := maps.Clone(panels)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(pending) > 0 && ctx.Err() == nil {
		do()
		maps.DeleteFunc(pending, func(_, expr string) bool { return shows(t, prometheus, expr) })
	}
	for panel, expr := range pending {
		t.Errorf("the panel %s shows nothing: %s", panel, expr)
	}
}

// work is a little of everything that a system is for.
func work(t *testing.T, w *testenv.World, app testenv.Artifact) {
	t.Helper()
	testenv.Crane{}.Pull(t, w.Router.Source(testenv.WorldImages), app)
	for _, r := range w.Regions[:2] {
		get(t, r.Node.URL()+"/v2/library/app/manifests/1.0")
		get(t, r.Node.URL()+"/v2/library/app/blobs/"+string(app.Blobs[0].Digest))
		get(t, r.Node.URL()+"/release/v1.0.0/bin/tool")
	}
	get(t, w.Router.URL()+"/release/v1.0.0/bin/tool")
}

// fail is a little of what goes wrong: an upstream that is not there, a path that is
// none, and more connections than a node takes.
func fail(t *testing.T, w *testenv.World) {
	t.Helper()
	get(t, w.Regions[0].Node.URL()+"/v2/gone.example.org/app/manifests/1.0")
	get(t, w.Router.URL()+"/v2/library/app/manifests/"+url.PathEscape("no tag"))
	for range 2 {
		conn, err := net.DialTimeout("tcp", w.Regions[2].Node.Address(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
}

// startPrometheus has Prometheus ask every process of a system, and returns its base
// URL.
func startPrometheus(t *testing.T, w *testenv.World) string {
	t.Helper()
	var targets []string
	for _, admin := range []string{w.Origin.AdminURL(), w.Router.AdminURL(), w.Regions[0].Node.AdminURL(), w.Regions[1].Node.AdminURL(), w.Regions[2].Node.AdminURL()} {
		targets = append(targets, strings.TrimPrefix(admin, "http://"))
	}
	config, err := yaml.Marshal(map[string]any{
		"global": map[string]string{"scrape_interval": "500ms", "scrape_timeout": "500ms"},
		"scrape_configs": []map[string]any{{
			"job_name": "entrepot", "static_configs": []map[string]any{{"targets": targets}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	testenv.Start(t, testenv.ProcessConfig{
		Path:  testenv.Debian(t, "prometheus", "prometheus"),
		Args:  []string{"--config.file", file, "--storage.tsdb.path", dir, "--web.listen-address", address, "--log.level", "warn"},
		Ready: testenv.Answers("http://" + address + "/-/ready"),
	})
	return "http://" + address
}

// shows says whether Prometheus has a number for a query, with Grafana's variables
// filled in.
func shows(t *testing.T, prometheus, expr string) bool {
	t.Helper()
	query := strings.NewReplacer("$__rate_interval", "10s", "$instance", ".*").Replace(expr)
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(get(t, prometheus+"/api/v1/query?query="+url.QueryEscape(query))), &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %v, %s", query, err, answer.Error)
	}
	for _, series := range answer.Data.Result {
		if series.Value[1] != "NaN" {
			return true
		}
	}
	return false
}
