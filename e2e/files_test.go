package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"
)

// fileSize is the size of the file that clients download: large enough that
// those which split files do.
const fileSize = 48 << 20

// startNginx starts a server of the files in a directory.
func startNginx(t *testing.T, root string) string {
	t.Helper()
	dir, address := t.TempDir(), fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	config := filepath.Join(dir, "nginx.conf")
	writeFile(t, config, fmt.Sprintf(`
daemon off;
user root;
pid %[1]s/pid;
error_log stderr crit;
events {}
http {
  access_log off;
  default_type application/octet-stream;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  scgi_temp_path %[1]s/scgi;
  uwsgi_temp_path %[1]s/uwsgi;
  server {
    listen %[2]s;
    root %[3]s;
  }
}
`, dir, address, root))
	testenv.Start(t, testenv.ProcessConfig{
		Name: "nginx", Path: testenv.Debian(t, "nginx", "nginx"), Args: []string{"-c", config, "-e", "stderr"},
		Ready: func(ctx context.Context) error { return testenv.WaitHTTP(ctx, "http://"+address) },
	})
	return "http://" + address
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// startFilesNode starts a node with one file server, called files. With race, it
// ends when it races.
func startFilesNode(t *testing.T, upstream string, race bool, more map[string]any) *testenv.Node {
	t.Helper()
	up := map[string]any{"urls": []string{upstream}}
	maps.Copy(up, more)
	return testenv.StartNode(t, testenv.NodeConfig{Race: race, Extra: map[string]any{"files": map[string]any{"files": up}}})
}

// clientTimeout bounds one run of a client.
const clientTimeout = 2 * time.Minute

// runClient runs a client in a directory that is its home too, and returns what
// it printed.
func runClient(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "GNUPGHOME=" + dir, "LC_ALL=C"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", filepath.Base(program), args, err, &stdout, &stderr)
	}
	return stdout.String()
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("%s has %d bytes, not the right %d", filepath.Base(path), len(got), len(want))
	}
}

// downloader is a client that downloads a file in one of its ways.
type downloader struct {
	name     string
	download func(t *testing.T, url, dir string, content []byte)
}

func downloaders() []downloader {
	half := func(t *testing.T, path string, content []byte) {
		t.Helper()
		writeFile(t, path, string(content[:len(content)/2]))
	}
	return []downloader{
		{"curl", func(t *testing.T, url, dir string, content []byte) {
			runClient(t, dir, testenv.Debian(t, "curl", "curl"), "-fsSLO", url)
			wantFile(t, filepath.Join(dir, "tool"), content)
		}},
		{"curl, resumed", func(t *testing.T, url, dir string, content []byte) {
			half(t, filepath.Join(dir, "tool"), content)
			runClient(t, dir, testenv.Debian(t, "curl", "curl"), "-fsSL", "-C", "-", "-O", url)
			wantFile(t, filepath.Join(dir, "tool"), content)
		}},
		{"curl, ranges", func(t *testing.T, url, dir string, content []byte) {
			curl := testenv.Debian(t, "curl", "curl")
			for spec, want := range map[string][]byte{
				"0-99": content[:100], "1000000-": content[1000000:], "-5": content[len(content)-5:], "7000000-7999999": content[7000000:8000000],
			} {
				runClient(t, dir, curl, "-fsSL", "-r", spec, "-o", "part", url)
				wantFile(t, filepath.Join(dir, "part"), want)
			}
			said := runClient(t, dir, curl, "-fsSL", "-r", "0-1,5-6", "-o", "part", "-w", "%{http_code} %{content_type}", url)
			if !strings.HasPrefix(said, "206 multipart/byteranges") {
				t.Errorf("several ranges: %s", said)
			}
		}},
		{"curl, if newer", func(t *testing.T, url, dir string, content []byte) {
			curl := testenv.Debian(t, "curl", "curl")
			runClient(t, dir, curl, "-fsSLRO", url)
			wantFile(t, filepath.Join(dir, "tool"), content)
			said := runClient(t, dir, curl, "-fsSL", "-z", "tool", "-o", "again", "-w", "%{http_code}", url)
			if said != "304" {
				t.Errorf("if newer than itself: %s, want 304", said)
			}
		}},
		{"wget", func(t *testing.T, url, dir string, content []byte) {
			runClient(t, dir, testenv.Debian(t, "wget", "wget"), "-q", url)
			wantFile(t, filepath.Join(dir, "tool"), content)
			runClient(t, dir, testenv.Debian(t, "wget", "wget"), "-q", "-N", url)
		}},
		{"wget, resumed", func(t *testing.T, url, dir string, content []byte) {
			half(t, filepath.Join(dir, "tool"), content)
			runClient(t, dir, testenv.Debian(t, "wget", "wget"), "-q", "-c", url)
			wantFile(t, filepath.Join(dir, "tool"), content)
		}},
		{"aria2", func(t *testing.T, url, dir string, content []byte) {
			runClient(t, dir, testenv.Debian(t, "aria2c", "aria2"), "-q", "-x", "8", "-s", "8", "-k", "1M", url)
			wantFile(t, filepath.Join(dir, "tool"), content)
		}},
	}
}

func TestRealClientsDownloadFilesThroughNode(t *testing.T) {
	root := t.TempDir()
	content := make([]byte, fileSize)
	_, _ = rand.Read(content)
	const path = "release/v1.0.0/bin/tool"
	writeFile(t, filepath.Join(root, path), string(content))
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(root, path), old, old); err != nil {
		t.Fatal(err)
	}
	server := startNginx(t, root)
	for _, client := range downloaders() {
		t.Run(client.name, func(t *testing.T) {
			upstream := testenv.StartTap(t, server)
			node := startFilesNode(t, upstream.URL(), true, map[string]any{"ttl": "0s", "stale_while_revalidate": "0s"})
			url := node.URL() + "/files/" + path
			gets := func() (n int) {
				for _, r := range upstream.Requests() {
					if r.Method == http.MethodGet {
						n++
					}
				}
				return n
			}
			t.Run("first download comes from upstream once", func(t *testing.T) {
				client.download(t, url, t.TempDir(), content)
				if n := gets(); n != 1 {
					t.Errorf("upstream was asked %v; want one GET", upstream.Requests())
				}
			})
			t.Run("second download comes from the store", func(t *testing.T) {
				upstream.Reset()
				client.download(t, url, t.TempDir(), content)
				if n := gets(); n != 0 {
					t.Errorf("upstream was asked %v; want checks only", upstream.Requests())
				}
			})
			t.Run("third download needs no upstream", func(t *testing.T) {
				upstream.Close()
				client.download(t, url, t.TempDir(), content)
			})
			t.Run("nor does a node that starts without it", func(t *testing.T) {
				node.Stop()
				node.Start()
				client.download(t, url, t.TempDir(), content)
			})
		})
	}
}
