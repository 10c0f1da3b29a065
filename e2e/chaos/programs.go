package main

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// program is a real client: how it is called to pull an artifact or a file from a
// server, host:port, into a directory.
type program struct {
	name, path string
	args       func(host, dir string, a testenv.Artifact) []string
	blobs      func(dir string, d digest.Digest) string // where it puts blobs
}

func toolFinder(name string) func(testing.TB) string {
	return func(t testing.TB) string { return testenv.Tool(t, name) }
}

func debianFinder(binary, pkg string) func(testing.TB) string {
	return func(t testing.TB) string { return testenv.Debian(t, binary, pkg) }
}

// programs are those that can be had here.
func (w *world) programs() []program {
	upstream := testenv.WorldImages
	candidates := []struct {
		program
		find func(testing.TB) string
	}{
		{program{
			name: "crane",
			args: func(host, dir string, a testenv.Artifact) []string {
				return []string{"pull", "--insecure", "--format", "oci", "--platform", "linux/amd64", host + "/" + upstream + "/" + a.Name(), dir}
			},
			blobs: func(dir string, d digest.Digest) string { return filepath.Join(dir, "blobs", "sha256", d.Encoded()) },
		}, toolFinder("crane")},
		{program{
			name: "skopeo",
			args: func(host, dir string, a testenv.Artifact) []string {
				return []string{
					"copy", "--insecure-policy", "--src-tls-verify=false", "--override-os", "linux", "--override-arch", "amd64",
					"docker://" + host + "/" + upstream + "/" + a.Name(), "dir:" + dir,
				}
			},
			blobs: func(dir string, d digest.Digest) string { return filepath.Join(dir, d.Encoded()) },
		}, debianFinder("skopeo", "skopeo")},
		{program{
			name: "curl",
			args: func(host, dir string, a testenv.Artifact) []string {
				return []string{
					"-fsSL", "--retry", "2", "--retry-all-errors", "-o", filepath.Join(dir, a.Blobs[0].Digest.Encoded()),
					"http://" + host + "/v2/" + upstream + "/" + a.Repository + "/blobs/" + string(a.Blobs[0].Digest),
				}
			},
			blobs: func(dir string, d digest.Digest) string { return filepath.Join(dir, d.Encoded()) },
		}, debianFinder("curl", "curl")},
	}
	var found []program
	for _, c := range candidates {
		path, missing := harness.Program(w.t, c.find)
		if missing != "" {
			w.lack("the client " + c.name + ": " + missing)
			continue
		}
		c.path = path
		found = append(found, c.program)
	}
	return found
}

// runPrograms pulls with one real client after the other.
func (w *world) runPrograms(ctx context.Context, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2000))
	images := w.releases[0].Images
	for n := 0; len(w.real) > 0 && ctx.Err() == nil; n++ {
		p, a := w.real[n%len(w.real)], images[random.IntN(len(images))]
		r := w.Regions[random.IntN(len(w.Regions))]
		w.pull(ctx, p, w.links[r.Name+"-clients"].Address(), a)
		_ = pause.For(ctx, 300*time.Millisecond)
	}
}

// pull pulls once. A client may fail, and say so; what it says it has must be
// right.
func (w *world) pull(ctx context.Context, p program, host string, a testenv.Artifact) {
	dir, err := os.MkdirTemp(w.scratch, "pull")
	if err != nil {
		w.t.Errorf("pulling with %s: %v", p.name, err)
		return
	}
	defer os.RemoveAll(dir)
	limited, cancel := context.WithTimeout(ctx, stuckAfter)
	defer cancel()
	cmd := exec.CommandContext(limited, p.path, p.args(host, dir, a)...)
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + w.scratch}
	said, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return
	case limited.Err() != nil:
		w.tally.add(stuck, 1)
		w.t.Errorf("%s does not end: %s", p.name, said)
		return
	case err != nil:
		w.tally.add(pullsBad, 1)
		return
	}
	w.tally.add(pulls, 1)
	for _, b := range a.Blobs {
		content, err := os.ReadFile(p.blobs(dir, b.Digest))
		if p.name == "curl" && os.IsNotExist(err) {
			continue // it takes the first
		}
		if err != nil || digest.FromBytes(content) != b.Digest {
			w.tally.add(wrongBytes, 1)
			w.t.Errorf("%s says that it has %s, and has %d bytes of %s (%v)\n%s", p.name, b.Digest, len(content), digest.FromBytes(content), err, said)
		}
	}
}
