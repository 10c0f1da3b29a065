package testenv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"entrepot/blobstore/filelock"
)

// pin is a program of a Go module, at the version that tests are run with.
type pin struct {
	pkg     string // import path
	version string
	as      string // the binary's name; empty is the last element of pkg
	// within is the module of pkg where go install refuses it, because of
	// directives in its go.mod that count in the main module only.
	within string
}

func (p pin) name() string { return cmp.Or(p.as, path.Base(p.pkg)) }

// pins are the programs that tests run, from quick to slow to build. MinIO and
// the conformance suite have no recent release tags: theirs are commits.
func pins() []pin {
	return []pin{
		{pkg: "github.com/opencontainers/distribution-spec/conformance", version: "v0.0.0-20260831232431-97274622c111"},
		{pkg: "github.com/google/go-containerregistry/cmd/crane", version: "v0.22.1"},
		{pkg: "oras.land/oras/cmd/oras", version: "v1.3.6"},
		{pkg: "github.com/distribution/distribution/v3/cmd/registry", version: "v3.1.2"},
		{pkg: "github.com/containerd/containerd/v2/cmd/ctr", version: "v2.4.2"},
		{pkg: "github.com/containerd/containerd/v2/cmd/containerd", version: "v2.4.2"},
		{pkg: "github.com/docker/compose/v5/cmd", version: "v5.6.0", as: "docker-compose", within: "github.com/docker/compose/v5"},
		{pkg: "sigs.k8s.io/cri-tools/cmd/crictl", version: "v1.37.0"},
		{pkg: "helm.sh/helm/v3/cmd/helm", version: "v3.22.0"},
		{pkg: "github.com/sigstore/cosign/v3/cmd/cosign", version: "v3.1.3"},
		{pkg: "github.com/versity/versitygw/cmd/versitygw", version: "v1.8.0"},
		{pkg: "github.com/minio/minio", version: "v0.0.0-20260212201848-7aac2a2c5b7c"},
	}
}

// ToolNames lists what [Tool] knows, in the order in which to build it.
func ToolNames() []string {
	var names []string
	for _, p := range pins() {
		names = append(names, p.name())
	}
	return names
}

// Tool returns the path of a program from a pinned Go module: minio,
// versitygw, registry (distribution's), containerd, ctr, crictl,
// docker-compose, crane, oras, helm, cosign or conformance. It is built once for all tests of this working tree. When it
// cannot be, the test ends as [Missing] says.
func Tool(t testing.TB, name string) string {
	t.Helper()
	binary, err := BuildTool(t.Context(), name)
	if err != nil {
		Missing(t, "%v", err)
	}
	return binary
}

// BuildTool is [Tool] outside of a test.
func BuildTool(ctx context.Context, name string) (string, error) {
	all := pins()
	i := slices.IndexFunc(all, func(p pin) bool { return p.name() == name })
	if i < 0 {
		return "", fmt.Errorf("building %s: no such tool; there are %s", name, strings.Join(ToolNames(), ", "))
	}
	root, err := findModuleRoot()
	if err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	binary, err := all[i].build(ctx, filepath.Join(root, ".tools"))
	if err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	return binary, nil
}

// build installs the program below dir, unless it is there.
func (p pin) build(ctx context.Context, dir string) (string, error) {
	place := filepath.Join(dir, "bin", p.name()+"@"+p.version)
	binary := filepath.Join(place, p.name())
	if exists(binary) {
		return binary, nil
	}
	// One build at a time, over all processes: packages are tested in
	// parallel, and the large programs fill every core and much memory.
	unlock, err := lockFile(filepath.Join(dir, "build.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(binary) {
		return binary, nil
	}
	scratch, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	compile, err := p.command(ctx, scratch)
	if err != nil {
		return "", err
	}
	if output, err := compile.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(compile.Args, " "), err, tail(output, 4<<10))
	}
	if err := os.MkdirAll(place, 0o755); err != nil {
		return "", err
	}
	// Whoever finds the binary at its place may run it at once.
	if err := os.Rename(filepath.Join(scratch, p.name()), binary); err != nil {
		return "", err
	}
	return binary, nil
}

// command compiles the program into a folder.
func (p pin) command(ctx context.Context, into string) (*exec.Cmd, error) {
	compile := func(verb, flags string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "go", append([]string{verb, "-trimpath", "-ldflags=-s -w"}, args...)...)
		cmd.Env = append(os.Environ(), "GOBIN="+into, "GOFLAGS=-buildvcs=false "+flags, "CGO_ENABLED=0")
		return cmd
	}
	if p.within == "" {
		return compile("install", "", p.pkg+"@"+p.version), nil
	}
	mod := fmt.Sprintf("module tool\n\ngo 1.26\n\nrequire %s %s\n", p.within, p.version)
	if err := os.WriteFile(filepath.Join(into, "go.mod"), []byte(mod), 0o600); err != nil {
		return nil, err
	}
	cmd := compile("build", "-mod=mod", "-o", p.name(), p.pkg)
	cmd.Dir = into
	return cmd, nil
}

// Missing ends a test that needs a real client or server which is not here and
// cannot be installed: the test is skipped, but fails where CI is true, so
// that the build that everyone trusts leaves nothing out.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("with CI=true every test must run: "+format, args...)
	}
	t.Skipf("skipped for want of a program: "+format, args...)
}

// Debian returns the path of a program from a Debian package, and installs the
// package first when the program is not here and the test runs as root. When
// it cannot be installed, the test ends as [Missing] says.
func Debian(t testing.TB, binary, pkg string) string {
	t.Helper()
	if found := lookPath(binary); found != "" {
		return found
	}
	if os.Geteuid() != 0 {
		Missing(t, "%s is not installed, and installing Debian's %s takes root", binary, pkg)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		Missing(t, "%s is not installed, and there is no apt-get to install Debian's %s with", binary, pkg)
	}
	if err := aptInstall(t.Context(), binary, pkg); err != nil {
		Missing(t, "installing Debian's %s: %v", pkg, err)
	}
	found := lookPath(binary)
	if found == "" {
		t.Fatalf("Debian's %s is installed, but has no %s", pkg, binary)
	}
	return found
}

// lookPath finds a program, also where daemons lie that the PATH of users
// leaves out.
func lookPath(binary string) string {
	if found, err := exec.LookPath(binary); err == nil {
		return found
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if found, err := exec.LookPath(filepath.Join(dir, binary)); err == nil {
			return found
		}
	}
	return ""
}

// aptInstall installs a package without starting the services in it.
func aptInstall(ctx context.Context, binary, pkg string) error {
	unlock, err := lockFile(filepath.Join(os.TempDir(), "entrepot-apt.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if lookPath(binary) != "" {
		return nil // by another package's tests, while this one waited
	}
	allow, err := denyServices("/usr/sbin/policy-rc.d")
	if err != nil {
		return err
	}
	defer allow()
	install := []string{"install", "-y", "--no-install-recommends", pkg}
	if aptGet(ctx, install...) == nil {
		return nil
	}
	// The lists of packages are old, or were never fetched.
	if err := aptGet(ctx, "update"); err != nil {
		return err
	}
	return aptGet(ctx, install...)
}

func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, tail(output, 4<<10))
	}
	return nil
}

// denyServices keeps packages from starting their services, through the
// script that Debian asks about it, until allow is called. A script that is
// there already is the administrator's, and stays.
func denyServices(script string) (allow func(), err error) {
	file, err := os.OpenFile(script, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	const forbidden = 101 // invoke-rc.d(8): action not allowed
	_, err = fmt.Fprintf(file, "#!/bin/sh\nexit %d\n", forbidden)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(script))
	}
	return func() { _ = os.Remove(script) }, nil
}

// lockFile takes a lock that other processes respect, waiting for it. It ends
// with the process, however that ends.
func lockFile(name string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := filelock.Wait(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// moduleRoot is the directory of this module's go.mod.
func moduleRoot(t testing.TB) string {
	t.Helper()
	root, err := findModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// findModuleRoot walks up from the working directory, which for a test is its
// package's. Modules within this one, which only tests need, are passed over.
func findModuleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module's root: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module entrepot\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("finding the module's root: no go.mod of entrepot in %s or above", start)
		}
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// tail is the end of b, of at most n bytes.
func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
