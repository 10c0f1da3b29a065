package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/e2e/testenv"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/mod/module"
)

// builtImage is what one way of building made.
type builtImage struct {
	Config ocispec.ImageConfig
	Files  map[string]string // name: type, mode, owner and digest
}

// compileInside has the Containerfile compile, too, instead of being given what was
// compiled: two minutes, for make containerfile.
const compileInside = "ENTREPOT_TEST_COMPILE_INSIDE"

// The image is described twice: in the Containerfile, for who has a container
// engine, and in deploy/image, for releases. Both are built, compared, and run.
func TestContainerfileGivesTheImageThatReleasesHave(t *testing.T) {
	const version = "v9.8.7"
	driver := "vfs" // works everywhere
	if os.Getenv(compileInside) != "" {
		driver = "overlay2" // does not copy a toolchain for each step
	}
	socket, stop := testenv.StartDockerd(t, "--storage-driver", driver)
	defer stop()
	docker := dockerClient(t, socket)
	build := []string{"build", "-f", "../deploy/Containerfile", "--network", "none", "--build-arg", "VERSION=" + version, "-t", "entrepot"}
	if os.Getenv(compileInside) != "" {
		importBuilder(t, docker)
		build = append(build, "..")
	} else {
		prepared := t.TempDir()
		if err := os.Mkdir(filepath.Join(prepared, "build"), 0o755); err != nil {
			t.Fatal(err)
		}
		image(t, "-platforms", "linux/amd64", "-version", version, "-rootfs", filepath.Join(prepared, "build", "rootfs.tar"))
		build = append(build, "--build-arg", "ROOT=prepared", prepared)
	}
	output(t, docker(build...))

	layout := filepath.Join(t.TempDir(), "layout")
	image(t, "-platforms", "linux/amd64", "-version", version, "-o", layout)
	var inspected []struct {
		Config ocispec.ImageConfig `json:"Config"`
	}
	if err := json.Unmarshal(output(t, docker("inspect", "entrepot")), &inspected); err != nil {
		t.Fatal(err)
	}
	container := strings.TrimSpace(string(output(t, docker("create", "--network", "host", "entrepot"))))
	inspected[0].Config.ArgsEscaped = false //nolint:staticcheck // an engine sets it, and it means nothing on Linux
	engine := builtImage{inspected[0].Config, map[string]string{}}
	listTar(t, bytes.NewReader(output(t, docker("export", container))), engine.Files)
	// What an engine puts into every container.
	for _, name := range []string{".dockerenv", "dev/", "dev/console", "dev/pts/", "dev/shm/", "proc/", "sys/", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"} {
		delete(engine.Files, name)
	}
	if diff := cmp.Diff(readImage(t, layout), engine); diff != "" {
		t.Errorf("the Containerfile gives another image than deploy/image (-deploy/image +Containerfile):\n%s", diff)
	}
	runImage(t, docker)
}

// importBuilder makes the image that the Containerfile compiles in. Nothing has to be
// fetched in it.
func importBuilder(t *testing.T, docker func(...string) *exec.Cmd) {
	t.Helper()
	text, err := os.ReadFile("../deploy/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "ARG BUILDER=")
	name, _, _ := strings.Cut(rest, "\n")
	files := exec.CommandContext(t.Context(), "tar", "--create", "--dereference", "--directory", builderFiles(t), ".")
	load := docker("import", "--change", "ENV PATH=/usr/local/go/bin:/bin", "--change", "ENV GOPROXY=file:///modules", "--change", "ENV GOTOOLCHAIN=local", "-", name)
	if load.Stdin, err = files.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := files.Start(); err != nil {
		t.Fatal(err)
	}
	output(t, load)
	if err := files.Wait(); err != nil {
		t.Fatalf("archiving the builder: %v", err)
	}
}

// builderFiles is a folder with links to what that image is made of: this machine's Go,
// a shell, and the modules that go.sum has.
func builderFiles(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := func(at, target string) {
		at = filepath.Join(root, at)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, at); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	goCommand := func(args ...string) string {
		return strings.TrimSpace(string(output(t, exec.CommandContext(t.Context(), "go", args...))))
	}
	for _, applet := range []string{"sh", "mkdir", "tar"} {
		link("bin/"+applet, testenv.Debian(t, "busybox", "busybox-static"))
	}
	link("usr/local/go", goCommand("env", "GOROOT"))

	goCommand("mod", "download")
	cache := filepath.Join(goCommand("env", "GOMODCACHE"), "cache", "download")
	sums, err := os.ReadFile("../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sums)) {
		fields := strings.Fields(line)
		path, err := module.EscapePath(fields[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{".info", ".mod", ".zip"} {
			name := path + "/@v/" + strings.TrimSuffix(fields[1], "/go.mod") + kind
			if _, err := os.Stat(filepath.Join(cache, name)); err == nil { // else nothing needs it
				link("modules/"+name, filepath.Join(cache, name))
			}
		}
	}
	return root
}

// dockerClient is docker's command for the engine at a socket.
func dockerClient(t *testing.T, socket string) func(args ...string) *exec.Cmd {
	config := t.TempDir()
	return func(args ...string) *exec.Cmd {
		// Debian's own: others leave BuildKit to a plugin.
		cmd := exec.CommandContext(t.Context(), filepath.Join("/usr/bin", filepath.Base(testenv.Debian(t, "docker", "docker.io"))), args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket, "DOCKER_BUILDKIT=1", "DOCKER_CONFIG="+config)
		return cmd
	}
}

// runImage serves from the image, as Kubernetes would run it: no capability, no
// new privileges, nothing writable but a volume.
func runImage(t *testing.T, docker func(...string) *exec.Cmd) {
	t.Helper()
	port, admin := testenv.FreePort(t), testenv.FreePort(t)
	config := filepath.Join(t.TempDir(), "entrepot.yaml")
	text := fmt.Sprintf(`admin: {listen: "127.0.0.1:%d"}
node:
  listen: "127.0.0.1:%d"
  store: {dir: /var/lib/entrepot/store}
  upstreams: {docker.io: {}}
`, admin, port)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	output(t, docker("run", "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--mount", "type=volume,dst=/var/lib/entrepot", "--mount", "type=bind,ro,src="+config+",dst=/etc/entrepot/entrepot.yaml",
		"--name", "node", "entrepot", "serve", "--config", "/etc/entrepot/entrepot.yaml"))
	ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
	defer cancel()
	if err := testenv.WaitHTTP(ctx, fmt.Sprintf("http://127.0.0.1:%d/readyz", admin)); err != nil {
		t.Errorf("the image does not serve: %v\n%s", err, logs(docker))
	}
	output(t, docker("stop", "node"))
	if status := strings.TrimSpace(string(output(t, docker("inspect", "--format", "{{.State.ExitCode}}", "node")))); status != "0" {
		t.Errorf("asked to stop, it ended with status %s\n%s", status, logs(docker))
	}
}

// logs is what the container said, to explain a failure.
func logs(docker func(...string) *exec.Cmd) []byte {
	said, err := docker("logs", "node").CombinedOutput()
	return append(said, fmt.Sprint(err)...)
}

// image runs deploy/image.
func image(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "./deploy/image"}, args...)...)
	cmd.Dir = ".."
	output(t, cmd)
}

// output runs a command, whose words explain a failure.
func output(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.Bytes())
	}
	return out
}

// readImage reads the only image of a layout.
func readImage(t *testing.T, layout string) builtImage {
	t.Helper()
	read := func(d ocispec.Descriptor, into any) {
		if err := json.Unmarshal(layoutBlob(t, layout, d), into); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	if err != nil {
		t.Fatal(err)
	}
	var top, index ocispec.Index
	var manifest ocispec.Manifest
	var config ocispec.Image
	if err := json.Unmarshal(content, &top); err != nil {
		t.Fatal(err)
	}
	read(top.Manifests[0], &index)
	read(index.Manifests[0], &manifest)
	read(manifest.Config, &config)
	built := builtImage{config.Config, map[string]string{}}
	for _, l := range manifest.Layers {
		plain, err := gzip.NewReader(bytes.NewReader(layoutBlob(t, layout, l)))
		if err != nil {
			t.Fatal(err)
		}
		listTar(t, plain, built.Files)
	}
	return built
}

func layoutBlob(t *testing.T, layout string, d ocispec.Descriptor) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(layout, "blobs", "sha256", d.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// listTar says what is in an archive.
func listTar(t *testing.T, r io.Reader, files map[string]string) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		d, err := digest.FromReader(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = fmt.Sprintf("%c %o %d:%d %s", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, d)
	}
}
