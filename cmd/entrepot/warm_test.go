package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/cmd/internal/clientconf"
)

// runWarm runs warm with a list on its standard input.
func runWarm(t *testing.T, list string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	root := rootCommand()
	root.SetArgs(append([]string{"warm"}, args...))
	var out, told bytes.Buffer
	root.SetIn(strings.NewReader(list))
	root.SetOut(&out)
	root.SetErr(&told)
	return statusOf(root.ExecuteContext(t.Context()), &told), out.String(), told.String()
}

func TestWarmIsToldWhatIsWrongWithItsUse(t *testing.T) {
	for want, args := range map[string][]string{
		"warm needs --node URL":   {"--list", "-"},
		"--list FILE or names":    {"--node", "http://a"},
		"write it with http://":   {"--node", "a:5000", "nginx"},
		"is no platform":          {"--node", "http://a", "--platform", "amd64", "nginx"},
		"--jobs 0":                {"--node", "http://a", "--jobs", "0", "nginx"},
		"want auto, text or json": {"--node", "http://a", "--output", "xml", "nginx"},
	} {
		if status, out, told := runWarm(t, "", args...); status != exitUsage || !strings.Contains(told, want) {
			t.Errorf("%v: status %d, %s%s, want %q", args, status, out, told, want)
		}
	}
}

func TestWarmSaysWhatFailedAndWhatItCouldNotRead(t *testing.T) {
	surface, err := withDescription(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dl.k8s.io/a" {
			http.Error(w, "not here", http.StatusNotFound)
			return
		}
		fmt.Fprint(w, "content")
	}), &clientconf.Description{Role: "node", Files: []clientconf.Upstream{{Name: "dl.k8s.io"}}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(surface)
	defer server.Close()
	list := "dl.k8s.io/a\nquay.io/A\nquay.io/gone:1\n"
	status, out, told := runWarm(t, list, "--node", server.URL, "--list", "-")
	for _, want := range []string{
		`{"event":"fetched","name":"dl.k8s.io/a","bytes":7,`,
		`{"event":"failed","name":"quay.io/A","bytes":0,"error":"line 2: `,
		`"error":"manifest 1: 404: not here"`,
		`"summary":{"names":2,"failed":2,`,
	} {
		if status != exitFailed || !strings.Contains(out, want) {
			t.Errorf("status %d, %s%s, want %q", status, out, told, want)
		}
	}
	status, out, told = runWarm(t, list, "--node", server.URL, "--list", "-", "--output", "text")
	if status != exitFailed || !strings.Contains(told, "failed: quay.io/gone:1: manifest 1: 404: not here\n") || !strings.HasPrefix(out, "2 names, 2 failed") {
		t.Errorf("status %d, %s%s", status, out, told)
	}
	if status, _, told = runWarm(t, "# nothing\n", "--node", server.URL, "--list", "-"); status != exitFailed || !strings.Contains(told, "names no image") {
		t.Errorf("status %d, %s", status, told)
	}
	if status, _, told = runWarm(t, list, "--node", "http://127.0.0.1:1", "--list", "-"); status != exitFailed || !strings.Contains(told, "refused") {
		t.Errorf("status %d, %s", status, told)
	}
}

func TestWarmLogsInAtTheServerAndNowhereElse(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the password was sent to where the server redirects")
		}
		fmt.Fprint(w, "content")
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, elsewhere.URL+"/a", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	docker := t.TempDir()
	t.Setenv("DOCKER_CONFIG", docker)
	if status, _, _ := runWarm(t, "", "--node", server.URL, server.URL+"/a"); status != exitFailed {
		t.Errorf("without a login: status %d", status)
	}
	config := fmt.Sprintf(`{"auths": {%q: {"auth": "bWU6c2VjcmV0"}}}`, strings.TrimPrefix(server.URL, "http://"))
	if err := os.WriteFile(filepath.Join(docker, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, told := runWarm(t, "", "--node", server.URL, server.URL+"/a"); status != exitDone {
		t.Errorf("with a login: status %d, %s%s", status, out, told)
	}
}
