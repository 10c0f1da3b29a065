package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
)

// The commands of a mirror do in a bucket what they do in a directory, also after the
// directory before it was lost.
func TestMirrorCommandsWorkOnABucket(t *testing.T) {
	p := publish(t, map[string]string{"release/one": "one", "release/two": "two"})
	server := testenv.StartMinIO(t)
	written := p.init(t, "--yes")
	if _, stderr, status := finish(t, written); status != 0 {
		t.Fatalf("status %d\n%s", status, stderr)
	}
	config := filepath.Join(written.Dir, "entrepot.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(written.Dir, "cache")
	store := fmt.Sprintf("store: {s3: {endpoint: %q, bucket: %q, region: %q, access_key: %q, secret_key: %q}, cache: {dir: %q, max_size: 1GiB}}",
		server.Endpoint, server.NewBucket(t), server.Region, server.AccessKey, server.SecretKey, cache)
	inBucket := strings.Replace(string(text), fmt.Sprintf("store: {dir: %q}", filepath.Join(written.Dir, "store")), store, 1)
	if inBucket == string(text) {
		t.Fatalf("the store is not where it was looked for:\n%s", text)
	}
	writeFile(t, written.Dir, "entrepot.yaml", inBucket)
	do := func(want string, args ...string) {
		t.Helper()
		stdout, stderr, status := finish(t, command(t, append(args, "--config", config)...))
		if status != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%v: status %d, %q is not in\n%s%s", args, status, want, stdout, stderr)
		}
	}
	do("2 of 2 names are held; fetched 6 B", "mirror", "sync")
	do("6 B in 2 blobs", "mirror", "status")
	do("2 of 2 names are right, 6 B in 2 blobs", "mirror", "verify")
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	do("2 of 2 names are held; fetched 0 B", "mirror", "sync") // which asks the bucket
	do("2 of 2 names are right, 6 B in 2 blobs", "mirror", "verify")
}
