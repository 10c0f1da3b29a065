package proxy

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"entrepot/promote/ledger"
)

func TestInventedQueriesPushNoOtherNameOutAndHaveABound(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 1000, 1)
	dir := t.TempDir()
	few := func(c *Config) { c.MaxNames = 50 }
	n := startFiles(t, dir, []string{up.URL}, few)
	n.get(t, "/up/a").wantBytes(t, http.StatusOK, f.body)
	n.settled(t, "a")
	for i := range 120 {
		n.get(t, fmt.Sprintf("/up/a?invented=%d", i)).wantBytes(t, http.StatusOK, f.body)
	}
	var queries *keptRecords
	for _, r := range n.keeper.kinds {
		if r.kind == queryRecords {
			queries = r
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C { // records are written behind the requests
		n.trim(t.Context(), queries)
		if count := queries.count.Load(); count > 0 && count <= 50 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records of names with queries are kept, and 50 may be", queries.count.Load())
		}
	}
	n.close()

	up.Close()
	n = startFiles(t, dir, []string{up.URL}, few)
	n.get(t, "/up/a").wantBytes(t, http.StatusOK, f.body)
}

func TestARecordOfAManifestStaysWhereALedgerOrARecentPullNeedsIt(t *testing.T) {
	s := newScript(t)
	d := s.manifest("app", "v1", `{"schemaVersion":2}`)
	n := startNode(t, t.TempDir(), []string{s.URL})
	key := "manifests/docker.io/app/" + string(d)
	if n.needsManifest(key) {
		t.Error("a manifest that nobody asked for is needed")
	}
	n.get(t, "/v2/app/manifests/v1")
	if !n.needsManifest(key) {
		t.Error("a manifest that was asked for just now is not needed")
	}
	n.manifests.Purge()
	if n.needsManifest(key) {
		t.Error("a manifest that was asked for long ago is needed")
	}
	n.upstreams["docker.io"].ledger = LedgerConfig{Ledger: new(ledger.Follower)}
	if !n.needsManifest(key) || n.needsManifest("manifests/none/app/"+string(d)) || n.needsManifest("manifests/x") {
		t.Error("what the upstream of a ledger has is not told from all other")
	}
}
