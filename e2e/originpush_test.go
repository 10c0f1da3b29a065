package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/blobstore"
	"entrepot/e2e/testenv"
	"entrepot/registry"
	"entrepot/registry/access"
	"entrepot/registry/origin"

	"golang.org/x/crypto/bcrypt"
)

// guardedOrigin is an origin in which ann, with the password secret, may write,
// and its host:port.
func guardedOrigin(t *testing.T) string {
	t.Helper()
	place := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	htpasswd := filepath.Join(place, "htpasswd")
	if err := os.WriteFile(htpasswd, append([]byte("ann:"), hash...), 0o600); err != nil {
		t.Fatal(err)
	}
	identities, err := access.New(access.Config{File: htpasswd})
	if err != nil {
		t.Fatal(err)
	}
	store, err := blobstore.OpenDir(filepath.Join(place, "store"), blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	o, err := origin.New(origin.Config{Store: store, Uploads: filepath.Join(place, "uploads")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	server := httptest.NewServer(registry.NewHandler(registry.Config{Backend: o, Authorizer: identities.Repositories()}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// Clients read without a password, and send theirs when they push: some at
// once, some when they are asked for it, some because /v2/ said how.
func TestRealClientsPushToAnOriginThatWantsAPassword(t *testing.T) {
	staging := testenv.StartRegistry(t)
	image := testenv.PushIndex(t, staging.Host(), "project/image", "v1")
	from := staging.Host() + "/" + image.Name()
	for _, client := range []struct {
		name string
		push func(t *testing.T, config, to string) (program string, args []string)
	}{
		{"skopeo", func(t *testing.T, config, to string) (string, []string) {
			policy := filepath.Join(t.TempDir(), "policy.json")
			if err := os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600); err != nil {
				t.Fatal(err)
			}
			return testenv.Debian(t, "skopeo", "skopeo"), []string{
				"copy", "--all", "--policy", policy, "--authfile", config, "--src-tls-verify=false", "--dest-tls-verify=false", "docker://" + from, "docker://" + to,
			}
		}},
		{"crane", func(t *testing.T, _, to string) (string, []string) {
			return testenv.Tool(t, "crane"), []string{"copy", "--insecure", from, to}
		}},
		{"oras", func(t *testing.T, config, to string) (string, []string) {
			return testenv.Tool(t, "oras"), []string{
				"copy", "--recursive", "--no-tty", "--from-plain-http", "--to-plain-http", "--to-registry-config", config, from, to,
			}
		}},
	} {
		t.Run(client.name, func(t *testing.T) {
			host := guardedOrigin(t)
			to := host + "/team/image:v1"
			push := func(password string) (string, error) {
				home := t.TempDir()
				config := dockerConfig(t, home, host, password)
				program, args := client.push(t, config, to)
				cmd := exec.CommandContext(t.Context(), program, args...)
				cmd.Env = []string{"HOME=" + home, "DOCKER_CONFIG=" + home, "XDG_RUNTIME_DIR=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
				var output bytes.Buffer
				cmd.Stdout, cmd.Stderr = &output, &output
				err := cmd.Run()
				return output.String(), err
			}
			if output, err := push("wrong"); err == nil {
				t.Errorf("pushing with a wrong password succeeded: %s", output)
			}
			if status := statusOf(t, "http://"+host+"/v2/team/image/manifests/v1"); status != http.StatusNotFound {
				t.Errorf("after it, the image is answered with %d", status)
			}
			if output, err := push("secret"); err != nil {
				t.Fatalf("pushing: %v\n%s", err, output)
			}
			wanted := []string{"manifests/v1"}
			for _, manifest := range image.Manifests {
				wanted = append(wanted, "manifests/"+manifest.String())
			}
			for _, blob := range image.Blobs {
				wanted = append(wanted, "blobs/"+blob.Digest.String())
			}
			for _, path := range wanted {
				if status := statusOf(t, "http://"+host+"/v2/team/image/"+path); status != http.StatusOK {
					t.Errorf("%s is answered with %d", path, status)
				}
			}
		})
	}
}

// statusOf asks for a URL without a password.
func statusOf(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// dockerConfig writes ann's password for a host where clients look for it.
func dockerConfig(t *testing.T, home, host, password string) string {
	t.Helper()
	config, err := json.Marshal(map[string]any{"auths": map[string]any{
		host: map[string]string{"auth": base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "ann:%s", password))},
	}})
	path := filepath.Join(home, "config.json")
	if err == nil {
		err = os.WriteFile(path, config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}
