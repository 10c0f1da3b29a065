package folder_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

func sums(t testing.TB, l folder.Lister, path, query string) string {
	t.Helper()
	d, err := folder.Sums(t.Context(), l, &folder.Request{Root: root, Path: path, Query: query})
	if err != nil {
		t.Fatal(err)
	}
	if d.Header.Get(folder.GeneratedHeader) != "true" || d.Header.Get("Content-Type") != "text/plain; charset=utf-8" || d.ETag() == "" {
		t.Errorf("sent with %v", d.Header)
	}
	return string(d.Body)
}

// run runs a program in a directory, with something to read.
func run(t testing.TB, dir, stdin string, command ...string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSumsAreWhatSha256sumChecksAndWrites(t *testing.T) {
	var s shelf
	dir := t.TempDir()
	for _, name := range oddNames() {
		s.set("f/"+name, "content of "+name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := sums(t, &s, "f", "")
	if out, err := run(t, dir, list, "sha256sum", "--strict", "-c"); err != nil || strings.Count(out, ": OK\n") != len(oddNames()) {
		t.Errorf("sha256sum -c: %v\n%s", err, out)
	}
	for _, name := range oddNames() {
		if name == "-" {
			continue // of which it writes what it does not check
		}
		line, err := run(t, dir, "", "sha256sum", "--", name)
		if err != nil || !strings.Contains(list, line) {
			t.Errorf("sha256sum writes %q, %v; that is not in\n%s", line, err, list)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, dir, list, "sha256sum", "-c"); err == nil || !strings.Contains(out, "plain: FAILED") {
		t.Errorf("of other content: %v\n%s", err, out)
	}
}

func TestSumsAreOfOneFolderUnlessAskedForAll(t *testing.T) {
	s := shelf{few: 2}
	for _, name := range []string{"v1/a", "v1/b", "v1/c", "v1/bin/x", "v1/bin/arm/x", "v1/lib/y/z", "v2/a", "top"} {
		s.set(name, name)
	}
	s.Set("v1/unknown", folder.Entry{Size: -1})
	line := func(path, name string) string { return digest.FromString(path).Encoded() + "  " + name + "\n" }
	for _, test := range []struct{ path, query, want string }{
		{"v1", "", line("v1/a", "a") + line("v1/b", "b") + line("v1/c", "c")},
		{"v1", "recursive=0", line("v1/a", "a") + line("v1/b", "b") + line("v1/c", "c")},
		{"v1", "recursive=1", line("v1/a", "a") + line("v1/b", "b") + line("v1/bin/arm/x", "bin/arm/x") + line("v1/bin/x", "bin/x") + line("v1/c", "c") + line("v1/lib/y/z", "lib/y/z")},
		{"", "", line("top", "top")},
		{"v1/lib", "recursive=1", line("v1/lib/y/z", "y/z")},
	} {
		if got := sums(t, &s, test.path, test.query); got != test.want {
			t.Errorf("%s?%s: got\n%swant\n%s", test.path, test.query, got, test.want)
		}
	}
	for _, test := range []struct {
		path, query string
		err         error
		text        string
	}{
		{"v1/lib", "", folder.ErrNotExist, "it has folders only, of which SHA256SUMS?recursive=1 tells"},
		{"v3", "", folder.ErrNotExist, "v3/"},
		{"v1", "recursive=yes", folder.ErrRequest, "want 0 or 1"},
		{"v1", "%zz", folder.ErrRequest, "the query"},
	} {
		_, err := folder.Sums(t.Context(), &s, &folder.Request{Path: test.path, Query: test.query})
		if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s?%s: %v; want %q", test.path, test.query, err, test.text)
		}
	}
	if _, err := folder.Sums(t.Context(), &shelf{}, &folder.Request{}); !errors.Is(err, folder.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestSumsEndSomewhere(t *testing.T) {
	var s shelf
	for i := range 100001 {
		s.Set(fmt.Sprintf("%d/%d", i%100, i), folder.Entry{SHA256: strings.Repeat("0", 64)})
	}
	_, err := folder.Sums(t.Context(), &s, &folder.Request{Query: "recursive=1"})
	if !errors.Is(err, folder.ErrRequest) || !strings.Contains(err.Error(), "more than 100000 files") {
		t.Errorf("got %v", err)
	}
	s.Remove("0/0")
	if got := strings.Count(sums(t, &s, "", "recursive=1"), "\n"); got != 100000 {
		t.Errorf("%d lines", got)
	}
}

// TestCommandsOfAPageDoWhatTheySay runs what a reader copies, in a shell.
func TestCommandsOfAPageDoWhatTheySay(t *testing.T) {
	var s shelf
	for _, name := range oddNames() {
		s.set("o&d <d>'/"+name, name)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/files/")
		if _, ok := s.Get(path); !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(path[strings.LastIndexByte(path, '/')+1:]))
	}))
	defer server.Close()
	d, err := folder.List(t.Context(), &s, &folder.Request{Root: server.URL + "/files/", Path: "o&d <d>'", Accept: []string{"text/html"}})
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := parsePage(t, d.Body)
	items, _, _ := s.Page("o&d <d>'", "", 1000)
	for i, item := range items {
		dir := t.TempDir()
		shell := "bash" // which spells out control characters as POSIX has it since 2024
		if !strings.Contains(rows[i].commands, "$'") {
			shell = "sh"
		}
		out, err := run(t, dir, "", shell, "-ec", rows[i].commands)
		content, readErr := os.ReadFile(filepath.Join(dir, item.Name))
		if err != nil || readErr != nil || string(content) != item.Name || !strings.Contains(out, ": OK") {
			t.Errorf("%q: %v, %v, %q\n%s\n%s", item.Name, err, readErr, content, rows[i].commands, out)
		}
		for _, c := range rows[i].commands {
			if c < ' ' && c != '\n' || c >= 0x7f && c < 0xa0 {
				t.Errorf("%q: the commands have the character %U: %s", item.Name, c, rows[i].commands)
			}
		}
		if strings.Count(rows[i].commands, "\n") != 1 {
			t.Errorf("%q: the commands are\n%s", item.Name, rows[i].commands)
		}
	}
}
