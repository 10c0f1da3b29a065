package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"
	"entrepot/geo"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"
)

const (
	// composeImage tells the test, on the machine of its own, where the layout of
	// the image is that releases have.
	composeImage = "ENTREPOT_TEST_COMPOSE_IMAGE"
	// What deploy/compose.yaml says of its services.
	composeOrigin   = "localhost:5001"
	composeRouter   = "localhost:8080"
	composePassword = "entrepot-on-this-machine"
)

// composeDoors are where the system may be pulled from.
func composeDoors() map[string]string {
	return map[string]string{"router": composeRouter, "node-1": "localhost:5011", "node-2": "localhost:5012"}
}

// The compose file as it stands, by docker compose: everything becomes healthy, what
// is promoted is had from every door, also after a crash and without a node, and
// nothing is left of it in the end.
func TestComposeFileStartsAWholeSystem(t *testing.T) {
	if !testenv.Alone(t, func() []string { return composeNeeds(t) }) {
		return
	}
	c := startComposed(t)
	app, tool := c.promote("1.0")
	c.pull(app, tool, composeDoors())
	c.wantInBucket(app)

	// The engine brings back what crashed, and not what a person stopped.
	c.crash("node-1")
	output(t, c.docker("kill", "entrepot-node-2-1"))
	becomes(t, c, "", aBlob, func(e geo.Explanation) bool {
		return slices.ContainsFunc(e.Mirrors, func(m geo.MirrorPlace) bool { return m.Name == "node-2" && m.Rank == 0 })
	})
	next, tool := c.promote("1.1")
	doors := composeDoors()
	delete(doors, "node-2")
	c.pull(next, tool, doors)

	output(t, c.compose(t.Context(), "down", "--volumes"))
	for what, list := range map[string][]string{
		"containers": {"ps", "--all", "--quiet"}, "volumes": {"volume", "ls", "--quiet"},
		"networks": {"network", "ls", "--quiet", "--filter", "label=com.docker.compose.project"},
	} {
		if left := output(t, c.docker(list...)); len(left) > 0 {
			t.Errorf("%s are left: %s", what, left)
		}
	}
}

// composeNeeds has everything there that the system is made of.
func composeNeeds(t *testing.T) (env []string) {
	t.Helper()
	testenv.BuildEntrepot(t)
	for _, tool := range []string{"docker-compose", "minio", "crane", "registry"} {
		testenv.Tool(t, tool)
	}
	for program, pkg := range map[string]string{"dockerd": "docker.io", "docker": "docker.io", "curl": "curl", "skopeo": "skopeo", "busybox": "busybox-static"} {
		testenv.Debian(t, program, pkg)
	}
	layout := filepath.Join(t.TempDir(), "layout")
	image(t, "-platforms", "linux/amd64", "-version", "v9.8.7", "-o", layout)
	return []string{composeImage + "=" + layout}
}

// composed is the system of the compose file.
type composed struct {
	t       *testing.T
	socket  string
	docker  func(args ...string) *exec.Cmd
	staging *testenv.Registry
	login   string // docker's configuration, with the promoter's password
}

// URL is where the router is.
func (c *composed) URL() string { return "http://" + composeRouter }

// compose is a command of docker compose on the file.
func (c *composed) compose(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, testenv.Tool(c.t, "docker-compose"), append([]string{"--file", "../deploy/compose.yaml"}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+c.socket, "DOCKER_CONFIG="+c.login)
	return cmd
}

// startComposed starts an engine that has the images, and the system in it.
func startComposed(t *testing.T) *composed {
	t.Helper()
	socket, _ := testenv.StartDockerd(t)
	c := &composed{t: t, socket: socket, docker: dockerClient(t, socket), staging: testenv.StartRegistry(t), login: t.TempDir()}
	runClient(t, t.TempDir(), testenv.Debian(t, "skopeo", "skopeo"), "--insecure-policy", "copy", "--quiet", "--dest-daemon-host", "unix://"+socket,
		"oci:"+os.Getenv(composeImage)+":v9.8.7", "docker-daemon:entrepot:latest")
	load := c.docker("import", "--change", "ENV PATH=/usr/bin:/bin", "-", "minio/minio:latest")
	load.Stdin = minioFiles(t)
	output(t, load)

	t.Cleanup(func() {
		if t.Failed() {
			said, err := c.compose(context.WithoutCancel(t.Context()), "logs", "--tail", "30").CombinedOutput()
			t.Logf("the system said, at the end (%v):\n%s", err, said)
		}
	})
	output(t, c.compose(t.Context(), "up", "--detach", "--no-build", "--wait", "--wait-timeout", "60"))
	c.wantHealthy()
	login := exec.CommandContext(t.Context(), testenv.Tool(t, "crane"), "auth", "login", "--insecure", composeOrigin, "-u", testenv.Promoter, "-p", composePassword)
	login.Env = append(os.Environ(), "DOCKER_CONFIG="+c.login)
	output(t, login)
	return c
}

// minioFiles are those of an image with what the compose file uses of MinIO's own: the
// server and a shell.
func minioFiles(t *testing.T) io.Reader {
	t.Helper()
	shell := testenv.Debian(t, "busybox", "busybox-static")
	programs := map[string]string{"usr/bin/minio": testenv.Tool(t, "minio"), "bin/sh": shell, "bin/mkdir": shell}
	from, to := io.Pipe()
	go func() {
		archive := tar.NewWriter(to)
		var failed error
		for _, dir := range []string{"bin/", "usr/", "usr/bin/"} {
			failed = errors.Join(failed, archive.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}))
		}
		for name, program := range programs {
			content, err := os.ReadFile(program)
			if err == nil {
				err = archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))})
			}
			if err == nil {
				_, err = archive.Write(content)
			}
			failed = errors.Join(failed, err)
		}
		_ = to.CloseWithError(errors.Join(failed, archive.Close())) // which docker import then tells
	}()
	t.Cleanup(func() { _ = from.Close() }) // ends the goroutine, whatever was read
	return from
}

// service is what docker compose says about a service.
type service struct {
	Service string `json:"Service"`
	State   string `json:"State"`
	Health  string `json:"Health"`
}

func (c *composed) services() (all []service) {
	c.t.Helper()
	for lines := json.NewDecoder(bytes.NewReader(output(c.t, c.compose(c.t.Context(), "ps", "--all", "--format", "json")))); ; {
		var s service
		err := lines.Decode(&s)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			c.t.Fatalf("reading what docker compose says: %v", err)
		}
		all = append(all, s)
	}
}

func (c *composed) wantHealthy() {
	c.t.Helper()
	all := c.services()
	for _, s := range all {
		if s.State != "running" || s.Health != "healthy" && s.Service != "minio" {
			c.t.Errorf("%s is %s, and %q", s.Service, s.State, s.Health)
		}
	}
	if len(all) != 5 {
		c.t.Errorf("there are %d services, want 5", len(all))
	}
}

// promote promotes a new image and a new file.
func (c *composed) promote(version string) (app testenv.Artifact, tool file) {
	c.t.Helper()
	app = testenv.PushIndex(c.t, c.staging.Host(), "library/app-"+version, version)
	tool = file{"v" + version + "/bin/tool", strings.Repeat("the tool of "+version+"\n", 1<<16)}
	release := testenv.Release{Images: []testenv.Artifact{app}, Files: map[string]string{tool.name: tool.content}}
	roots := release.Roots(c.t, c.t.TempDir(), c.staging.Host(), "http://"+composeOrigin)
	if got := testenv.Entrepot(c.t, c.login, append([]string{"promote", "apply"}, roots...)...); got.Status != 0 {
		c.t.Fatalf("promoting: status %d", got.Status)
	}
	return app, tool
}

// file is one below /release of the origin.
type file struct{ name, content string }

// pull has clients fetch what was promoted from each door.
func (c *composed) pull(app testenv.Artifact, tool file, doors map[string]string) {
	c.t.Helper()
	for name, address := range doors {
		from := testenv.Source{Address: address, Upstream: "production"}
		if got := (testenv.Crane{}).Pull(c.t, from, app); !slices.Contains(app.Manifests, got) {
			c.t.Errorf("crane has %s from the %s, want one of %v", got, name, app.Manifests)
		}
		if got := output(c.t, exec.CommandContext(c.t.Context(), testenv.Debian(c.t, "curl", "curl"), "-fsSL", "http://"+address+"/release/"+tool.name)); string(got) != tool.content {
			c.t.Errorf("curl has %d bytes from the %s that are not the tool, want %d", len(got), name, len(tool.content))
		}
		reference := address + "/" + app.Name()
		output(c.t, c.docker("pull", "--quiet", reference))
		if got := string(output(c.t, c.docker("inspect", "--format", "{{.RepoDigests}}", reference))); !strings.Contains(got, string(app.Root.Digest)) {
			c.t.Errorf("docker has %s from the %s, want %s", got, name, app.Root.Digest)
		}
		output(c.t, c.docker("rmi", "--force", reference)) // so that the next one fetches it, too
	}
}

// wantInBucket waits until the nodes have put the blobs of an image into their bucket,
// which they do after they have served them.
func (c *composed) wantInBucket(app testenv.Artifact) {
	c.t.Helper()
	s3, err := minio.New("127.0.0.1:9000", &minio.Options{Creds: credentials.NewStaticV4("entrepot", composePassword, "")})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	for _, blob := range app.Blobs {
		key := blobKey(blob.Digest)
		for {
			_, err := s3.StatObject(ctx, "mirror", key, minio.StatObjectOptions{})
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				c.t.Fatalf("the bucket has no %s: %v", key, err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// blobKey is where stores have a blob.
func blobKey(d digest.Digest) string {
	return fmt.Sprintf("blobs/%s/%s/%s/data", d.Algorithm(), d.Encoded()[:2], d.Encoded())
}

// crash kills the process of a service, and waits until the engine has started it
// again and it is healthy.
func (c *composed) crash(service string) {
	c.t.Helper()
	container := "entrepot-" + service + "-1"
	pid := strings.TrimSpace(string(output(c.t, c.docker("inspect", "--format", "{{.State.Pid}}", container))))
	output(c.t, exec.CommandContext(c.t.Context(), "kill", "-KILL", pid))
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	for {
		got := strings.TrimSpace(string(output(c.t, c.docker("inspect", "--format", "{{.RestartCount}} {{.State.Health.Status}}", container))))
		if got == "1 healthy" {
			return
		}
		if ctx.Err() != nil {
			c.t.Fatalf("%s was killed, and has restarts and health %s", service, got)
		}
	}
}
