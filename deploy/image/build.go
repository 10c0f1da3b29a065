package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// spec is the image that is wanted.
type spec struct {
	version   string
	created   time.Time
	platforms []ocispec.Platform
}

// parsePlatform reads linux/ARCHITECTURE.
func parsePlatform(text string) (ocispec.Platform, error) {
	system, arch, ok := strings.Cut(text, "/")
	if !ok || system != "linux" || arch == "" || strings.Contains(arch, "/") {
		return ocispec.Platform{}, fmt.Errorf("%q is no platform: write linux/amd64, linux/arm64 or another of Go's", text)
	}
	return ocispec.Platform{OS: system, Architecture: arch}, nil
}

// moduleRoot is the directory of the source: that of go.mod, from where
// go run was started.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("finding the source: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("finding the source: there is no go.mod here or above")
	}
	return filepath.Dir(mod), nil
}

// compile builds the binary for a platform. What could differ between two
// machines is left out: paths (-trimpath), the state of a working copy
// (-buildvcs), a C compiler, and the builder's own settings.
func (s spec) compile(ctx context.Context, root string, p ocispec.Platform) ([]byte, error) {
	dir, err := os.MkdirTemp("", "entrepot-image")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is among the temporary files
	out := filepath.Join(dir, "entrepot")
	//nolint:gosec // the version is an argument, and no shell reads it
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -buildid= -X main.version="+s.version, "-o", out, "./cmd/entrepot")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=",
		"GOOS="+p.OS, "GOARCH="+p.Architecture, "GOAMD64=v1", "GOARM64=v8.0")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building for %s/%s: %w\n%s", p.OS, p.Architecture, err, output)
	}
	return os.ReadFile(out)
}

// layers are the files of the image, what changes seldom first.
func (s spec) layers(ctx context.Context, p ocispec.Platform) ([][]file, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	licence, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	compiled, err := s.compile(ctx, root, p)
	if err != nil {
		return nil, err
	}
	return [][]file{base(licence), program(compiled)}, nil
}

// writeRootfs writes the files of the image as one archive. An archive, because
// only root could give files of a directory to who runs in the image.
func (s spec) writeRootfs(ctx context.Context, name string) (err error) {
	layers, err := s.layers(ctx, s.platforms[0])
	if err != nil {
		return err
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return writeTar(out, slices.Concat(layers...), s.created)
}
