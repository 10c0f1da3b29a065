package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

// storeRun runs entrepot store, and returns what it says.
func storeRun(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	o := entrepot(t, append([]string{"store"}, args...)...)
	return o.stdout, o.stderr, o.status
}

func TestStoreCheckRepairAndScrubOnTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	right, wrong := bytes.Repeat([]byte("right"), 1000), bytes.Repeat([]byte("wrong"), 1000)
	storeWith(t, dir, right, wrong)
	stdout, _, status := storeRun(t, "check", dir)
	if status != 0 || !strings.Contains(stdout, "2 blobs of 10KB") || !strings.Contains(stdout, "all right") {
		t.Errorf("check of a store that is right: status %d, %s", status, stdout)
	}
	writeFile(t, filepath.Join(dir, "spool"), "tmp-left", "half")
	rot(t, dir, digest.FromBytes(wrong))

	stdout, _, status = storeRun(t, "check", "--deep", "--output", "json", dir)
	var report blobstore.CheckReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || status != 1 || report.Blobs != 2 || len(report.Findings) != 2 ||
		report.Findings[0].Kind != "rotten" || report.Findings[1].Path != "spool/tmp-left" {
		t.Errorf("check --deep: status %d, %v, %s", status, err, stdout)
	}

	stdout, _, status = storeRun(t, "repair", dir)
	if status != 0 || !strings.Contains(stdout, "would remove") {
		t.Errorf("repair: status %d, %s", status, stdout)
	}
	if _, err := os.Stat(filepath.Join(dir, "spool", "tmp-left")); err != nil {
		t.Errorf("repair without --confirm removed it: %v", err)
	}
	stdout, stderr, status := storeRun(t, "repair", "--confirm", dir)
	if status != 0 || strings.Contains(stdout, "would") {
		t.Errorf("repair --confirm: status %d, %s%s", status, stdout, stderr)
	}
	if stdout, _, status := storeRun(t, "check", dir); status != 0 {
		t.Errorf("check after the repair: status %d, %s", status, stdout)
	}

	stdout, stderr, status = storeRun(t, "scrub", "--rate", "100MB/s", dir)
	if status != 1 || !strings.Contains(stdout, "1 blobs are right, 1 are wrong") || !strings.Contains(stderr, string(digest.FromBytes(wrong))) {
		t.Errorf("scrub: status %d, %s%s", status, stdout, stderr)
	}
	stdout, _, status = storeRun(t, "scrub", dir)
	if status != 0 || !strings.Contains(stdout, "0 are wrong") {
		t.Errorf("scrub again: status %d, %s", status, stdout)
	}
	if stdout, _, _ := storeRun(t, "check", "--deep", dir); !strings.Contains(stdout, "1 in quarantine") {
		t.Errorf("check: %s", stdout)
	}
}

func TestStoreCommandsBesideARunningNode(t *testing.T) {
	dir := t.TempDir()
	blob := bytes.Repeat([]byte("blob"), 100_000)
	storeWith(t, dir, blob)
	p := start(t, newGatedUpstream(t).config(dir, ""))
	p.waitFor(t, "scrubbed the store")
	rot(t, dir, digest.FromBytes(blob))
	stdout, _, status := storeRun(t, "check", dir)
	if status != 0 || !strings.Contains(stdout, "a process has it open") {
		t.Errorf("check: status %d, %s", status, stdout)
	}
	if _, stderr, status := storeRun(t, "repair", "--confirm", dir); status != 1 || !strings.Contains(stderr, "another process has it open") {
		t.Errorf("repair: status %d, %s", status, stderr)
	}
	if stdout, _, status := storeRun(t, "scrub", dir); status != 1 || !strings.Contains(stdout, "1 are wrong") {
		t.Errorf("scrub: status %d, %s", status, stdout)
	}
	if status, body := get(t, "http://"+p.node+"/v2/up.example/app/blobs/"+string(digest.FromBytes(blob))); status == 200 {
		t.Errorf("what was put aside is served: %d bytes", len(body))
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestStoreCommandsRefuseWrongUsageAndNewerStores(t *testing.T) {
	dir := t.TempDir()
	storeWith(t, dir)
	for _, args := range [][]string{{}, {"check"}, {"check", dir, dir}, {"check", "--rate", "fast", dir}, {"scrub", "--after", "x", dir}, {"check", "--output", "xml", dir}} {
		if _, stderr, status := storeRun(t, args...); status != 2 {
			t.Errorf("store %v: status %d, %s", args, status, stderr)
		}
	}
	writeFile(t, dir, "version", "2\nentrepot 2.0 or later reads it\n")
	for _, verb := range []string{"check", "repair", "scrub"} {
		_, stderr, status := storeRun(t, verb, dir)
		if status != 1 || !strings.Contains(stderr, "format 2") || !strings.Contains(stderr, "entrepot 2.0 or later") {
			t.Errorf("store %s of a newer store: status %d, %s", verb, status, stderr)
		}
	}
}

func TestRecordsOfNodesAndOriginsAreTold(t *testing.T) {
	d := string(digest.FromString("x"))
	for _, r := range []struct {
		key, value string
		ok         bool
	}{
		{"tags/docker.io/app/v1", `{"digest":"` + d + `"}`, true},
		{"tags/app/v1", d, true},
		{"tags/app/v1", "sha256:", false},
		{"manifests/docker.io/app/" + d, "{", false},
		{"manifests/docker.io/app/" + d, "{}", true},
		{"upload/" + d, "", true},
		{"blobs/app/" + d, "2026-11-23T12:00:00Z", true},
		{"lists/docker.io/app/tags", "", false},
	} {
		if err := checkRecord(r.key, []byte(r.value)); (err == nil) != r.ok {
			t.Errorf("%s with %q: %v", r.key, r.value, err)
		}
	}
}
