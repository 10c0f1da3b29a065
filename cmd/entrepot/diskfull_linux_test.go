package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"entrepot/blobstore/storetest"

	"github.com/opencontainers/go-digest"
)

// A node whose disk is smaller than its configuration thinks serves what it can
// keep and what it cannot.
func TestANodeOnADiskThatIsTooSmallServesEverything(t *testing.T) {
	disk := storetest.Tmpfs(t, 32<<20)
	blobs := map[string][]byte{}
	for i := range 20 { // 80 MiB
		b := bytes.Repeat([]byte(fmt.Sprintf("blob %02d\n", i)), 4<<20/8)
		blobs[digest.FromBytes(b).String()] = b
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(blobs[path.Base(r.URL.Path)]) // a client that is gone is no failure
	}))
	defer upstream.Close()
	p := start(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
node:
  listen: 127.0.0.1:0
  store: {dir: %q, max_size: 1GiB}
  upstreams:
    up.example: {urls: [%q]}
`, filepath.Join(disk, "store"), upstream.URL))
	for range 2 {
		for d, want := range blobs {
			status, body := get(t, "http://"+p.node+"/v2/up.example/app/blobs/"+d)
			if status != http.StatusOK || body != string(want) {
				t.Fatalf("%s: status %d, %d bytes", d, status, len(body))
			}
		}
	}
	_, metrics := get(t, "http://"+p.admin+"/metrics")
	if strings.Contains(metrics, `entrepot_store_evictions_total{role="node"} 0`) || strings.Contains(metrics, `entrepot_store_blobs{role="node"} 0`) {
		t.Error("it evicted nothing, or keeps nothing")
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
