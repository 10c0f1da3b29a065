package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

// storeWith makes a store that holds contents.
func storeWith(t *testing.T, dir string, contents ...[]byte) {
	t.Helper()
	d, err := blobstore.OpenDir(dir, blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range contents {
		if err := d.Put(t.Context(), digest.FromBytes(b), int64(len(b)), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// dataFile is where a store keeps a blob.
func dataFile(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", string(d.Algorithm()), d.Encoded()[:2], d.Encoded(), "data")
}

// rot changes the first byte of a blob on the disk.
func rot(t *testing.T, dir string, d digest.Digest) {
	t.Helper()
	file, err := os.OpenFile(dataFile(dir, d), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte{0xff}, 0); err != nil {
		t.Fatal(err)
	}
}

func TestANodeFindsRotByItselfAndTellsOperators(t *testing.T) {
	dir := t.TempDir()
	right, wrong := bytes.Repeat([]byte("right"), 100_000), bytes.Repeat([]byte("wrong"), 100_000)
	storeWith(t, dir, right, wrong)
	rot(t, dir, digest.FromBytes(wrong))
	p := start(t, newGatedUpstream(t).config(dir, ""))
	p.waitFor(t, "scrubbed the store")
	_, metrics := get(t, "http://"+p.admin+"/metrics")
	for _, want := range []string{
		`entrepot_scrub_rotten_total{role="node"} 1`, `entrepot_scrub_blobs_total{role="node"} 1`,
		`entrepot_store_quarantined_total{role="node"} 1`, `entrepot_store_quarantine_bytes{role="node"} 500000`,
		`entrepot_scrub_progress_ratio{role="node"} 1`, `entrepot_store_blobs{role="node"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	status, body := get(t, "http://"+p.node+"/v2/up.example/app/blobs/"+string(digest.FromBytes(wrong)))
	if status == http.StatusOK {
		t.Errorf("the blob that has rotted is served: %d bytes", len(body))
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestAnOriginServesNothingThatHasRotted(t *testing.T) {
	dir := t.TempDir()
	storeWith(t, dir, []byte("an image's"))
	wrong := bytes.Repeat([]byte("file"), 1000)
	if err := os.Mkdir(filepath.Join(dir, "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	storeWith(t, filepath.Join(dir, "files"), wrong)
	rot(t, filepath.Join(dir, "files"), digest.FromBytes(wrong))
	p := start(t, fmt.Sprintf("admin: {listen: \"127.0.0.1:0\"}\norigin: {listen: \"127.0.0.1:0\", store: {dir: %q}}\n", dir))
	p.waitForMetrics(t,
		`entrepot_scrub_rotten_total{role="origin"} 1`, `entrepot_scrub_blobs_total{role="origin"} 1`,
		`entrepot_scrub_progress_ratio{role="origin"} 1`, `entrepot_scrub_running{role="origin"} 0`)
	if held, err := filepath.Glob(filepath.Join(dir, "files", "quarantine", "*")); err != nil || len(held) != 1 {
		t.Errorf("put aside: %v, %v", held, err)
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// waitForMetrics waits until /metrics has all of these.
func (p *served) waitForMetrics(t *testing.T, want ...string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		_, metrics := get(t, "http://"+p.admin+"/metrics")
		lacks := slices.IndexFunc(want, func(w string) bool { return !strings.Contains(metrics, w) })
		if lacks < 0 {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("/metrics lacks %s", want[lacks])
		}
	}
}
