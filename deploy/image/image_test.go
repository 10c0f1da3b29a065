package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// makeImage builds the image in dir's copy of the source, and returns its layout and
// what the command said: its digest.
func makeImage(t *testing.T, source string, env ...string) (layout, said string) {
	t.Helper()
	layout = filepath.Join(t.TempDir(), "layout")
	cmd := exec.CommandContext(t.Context(), "go", "run", "./deploy/image", "-version", "v9.8.7", "-o", layout)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("making the image: %v\n%s", err, stderr.Bytes())
	}
	return layout, strings.TrimSpace(string(out))
}

// copySource copies what the image is made of to another place.
func copySource(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "LICENSE"} {
		content, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"blobstore", "cmd", "geo", "promote", "proxy", "registry", "deploy/image"} {
		if err := os.CopyFS(filepath.Join(to, dir), os.DirFS(filepath.Join("..", "..", dir))); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestTwoBuildsInTwoPlacesGiveOneDigest(t *testing.T) {
	here, first := makeImage(t, "../..", "SOURCE_DATE_EPOCH=1700000000", "TZ=Asia/Tokyo")
	there, second := makeImage(t, copySource(t), "SOURCE_DATE_EPOCH=1700000000", "TZ=UTC", "GOFLAGS=-ldflags=-w")
	if first != second || digest.Digest(first).Validate() != nil {
		t.Errorf("the first build is %q, the second %q", first, second)
	}
	for _, name := range []string{ocispec.ImageIndexFile, ocispec.ImageLayoutFile} {
		if a, b := read(t, here, name), read(t, there, name); !bytes.Equal(a, b) {
			t.Errorf("%s differs:\n%s\n%s", name, a, b)
		}
	}
	index := checkLayout(t, here)
	if len(index.Manifests) != 2 {
		t.Fatalf("the index has %d platforms, not amd64 and arm64", len(index.Manifests))
	}
	for _, m := range index.Manifests {
		t.Run(m.Platform.Architecture, func(t *testing.T) { checkPlatform(t, here, m) })
	}
}

// checkLayout verifies each blob's digest, and returns the image's index.
func checkLayout(t *testing.T, layout string) ocispec.Index {
	t.Helper()
	blobs, err := os.ReadDir(filepath.Join(layout, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if got := digest.FromBytes(read(t, layout, "blobs/sha256/"+b.Name())); got.Encoded() != b.Name() {
			t.Errorf("blob %s has digest %s", b.Name(), got)
		}
	}
	var top, index ocispec.Index
	parse(t, read(t, layout, ocispec.ImageIndexFile), &top)
	if len(top.Manifests) != 1 || top.Manifests[0].Annotations[ocispec.AnnotationRefName] != "v9.8.7" {
		t.Fatalf("the layout names %v, not one image v9.8.7", top.Manifests)
	}
	parse(t, blob(t, layout, top.Manifests[0]), &index)
	return index
}

// checkPlatform holds an image to what it promises: static, not root, nothing
// but what it needs, and one time for everything.
func checkPlatform(t *testing.T, layout string, m ocispec.Descriptor) {
	var manifest ocispec.Manifest
	var image ocispec.Image
	parse(t, blob(t, layout, m), &manifest)
	parse(t, blob(t, layout, manifest.Config), &image)
	if image.Config.User != "65532:65532" || image.Created.Unix() != 1700000000 || image.Architecture != m.Platform.Architecture {
		t.Errorf("the configuration is %+v", image)
	}
	var names []string
	files := map[string][]byte{}
	for i, l := range manifest.Layers {
		plain, err := gzip.NewReader(bytes.NewReader(blob(t, layout, l)))
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		if digest.FromBytes(content) != image.RootFS.DiffIDs[i] {
			t.Errorf("layer %d has another diff id", i)
		}
		for archive := tar.NewReader(bytes.NewReader(content)); ; {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
			if files[h.Name], err = io.ReadAll(archive); err != nil {
				t.Fatal(err)
			}
			if h.ModTime.Unix() != 1700000000 || h.Mode&0o6000 != 0 {
				t.Errorf("%s has time %v and mode %o", h.Name, h.ModTime, h.Mode)
			}
			if own := h.Name == "var/lib/entrepot/"; own != (h.Uid == userID) || own != (h.Gid == userID) {
				t.Errorf("%s belongs to %d:%d", h.Name, h.Uid, h.Gid)
			}
		}
	}
	want := []string{
		"etc/", "etc/entrepot/", "etc/group", "etc/passwd", "etc/ssl/", "etc/ssl/certs/", "etc/ssl/certs/ca-certificates.crt",
		"tmp/", "usr/", "usr/share/", "usr/share/licenses/", "usr/share/licenses/entrepot/", "usr/share/licenses/entrepot/LICENSE",
		"var/", "var/lib/", "var/lib/entrepot/", "usr/", "usr/bin/", "usr/bin/entrepot",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("the image has other files (-want +got):\n%s", diff)
	}
	if n := bytes.Count(files["etc/ssl/certs/ca-certificates.crt"], []byte("BEGIN CERTIFICATE")); n < 100 {
		t.Errorf("%d certificates", n)
	}
	program, err := elf.NewFile(bytes.NewReader(files["usr/bin/entrepot"]))
	if err != nil {
		t.Fatal(err)
	}
	wantMachine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[m.Platform.Architecture]
	if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 || program.Machine != wantMachine {
		t.Errorf("the binary is for %v and wants %v, %v", program.Machine, libraries, err)
	}
}

func TestWhatIsInTheDirectoryIsNotTakenForTheImage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), []string{"-o", dir}, os.Getenv, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "is not empty: it has old") {
		t.Errorf("the directory was taken: %v", err)
	}
}

func TestWrongArgumentsAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		epoch string
		want  string
	}{
		"nothing":       {nil, "", "one of -o DIR and -rootfs FILE"},
		"both":          {[]string{"-o", "a", "-rootfs", "b"}, "", "one of -o DIR and -rootfs FILE"},
		"two platforms": {[]string{"-rootfs", "b"}, "", "-rootfs is of one platform"},
		"a platform":    {[]string{"-o", "b", "-platforms", "plan9/mips"}, "", `"plan9/mips" is no platform`},
		"a date":        {[]string{"-o", "b"}, "yesterday", `SOURCE_DATE_EPOCH is "yesterday"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), c.args, func(string) string { return c.epoch }, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("said %v, not %q", err, c.want)
			}
		})
	}
}

func read(t *testing.T, layout, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(layout, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func blob(t *testing.T, layout string, d ocispec.Descriptor) []byte {
	t.Helper()
	return read(t, layout, "blobs/"+d.Digest.Algorithm().String()+"/"+d.Digest.Encoded())
}

func parse(t *testing.T, content []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
}
