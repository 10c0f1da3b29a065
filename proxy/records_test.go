package proxy

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"entrepot/promote/ledger"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
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

func TestWhatRepositoriesHoldHasABoundWhereUpstreamCanBeAskedAgain(t *testing.T) {
	s := newScript(t)
	for _, offline := range []bool{false, true} {
		n := startNode(t, t.TempDir(), []string{s.URL}, func(c *Config) {
			c.MaxNames, c.Upstreams[0].Private, c.Upstreams[0].Offline = 10, true, offline
		})
		up := n.upstreams["docker.io"]
		for i := range 40 {
			n.holders.learn(nameKey{up: up, repo: fmt.Sprint("app/", i), ref: string(digest.FromString("a"))}, 1)
		}
		kept := func() (count int64) {
			for _, r := range n.keeper.kinds {
				if r.kind == holderRecords {
					n.trim(t.Context(), r)
					count = r.count.Load()
				}
			}
			return count
		}
		waitFor(t, "records to be written and trimmed", func() bool {
			count := kept()
			return offline && count == 40 || !offline && count > 0 && count <= 10
		})
	}
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
	follows := &Node{
		upstreams: map[string]*upstreamState{"docker.io": {ledger: LedgerConfig{Ledger: new(ledger.Follower)}}},
		manifests: newLRU[nameKey, *registry.ManifestHead](1),
	}
	if !follows.needsManifest(key) || follows.needsManifest("manifests/none/app/"+string(d)) || follows.needsManifest("manifests/x") {
		t.Error("what the upstream of a ledger has is not told from all other")
	}
}

func TestOfAnUpstreamsHeadersThoseOfContentArePassedOn(t *testing.T) {
	up := newFileServer(t)
	up.file("/a", 100, 1, "Set-Cookie", "id=1", "Location", "http://evil.example/", "Www-Authenticate", "Basic", "Access-Control-Allow-Origin", "*",
		"Strict-Transport-Security", "max-age=1", "X-Anything", "x", "Content-Disposition", "attachment", "Alt-Svc", "h3", "Clear-Site-Data", "*", "Oci-Namespace", "x")
	n := startFiles(t, t.TempDir(), []string{up.URL})
	g := n.get(t, "/up/a")
	for _, key := range []string{
		"Set-Cookie", "Location", "Www-Authenticate", "Access-Control-Allow-Origin", "Strict-Transport-Security", "X-Anything", "Alt-Svc", "Clear-Site-Data", "Oci-Namespace",
	} {
		if g.header.Get(key) != "" {
			t.Errorf("upstream's %s is passed on: %v", key, g.header[key])
		}
	}
	if g.header.Get("Content-Disposition") != "attachment" || g.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("what belongs to the content is not: %v", g.header)
	}
}

func TestRecordsInTheBucketAreBoundedButForWhatThisNodeUses(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	up.manifest("app", "used", `{"schemaVersion":2}`)
	n := startNode(t, t.TempDir(), []string{up.URL}, withRemote(remote), func(c *Config) { c.MaxNames = 10 })
	n.get(t, "/v2/app/manifests/used").wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
	waitFor(t, "the record to be uploaded", func() bool {
		_, err := remote.Dir.Record(t.Context(), "tags/docker.io/app/used")
		return err == nil
	})
	for i := range 40 { // by nodes that are no more
		for _, name := range []string{"tags/docker.io/app/gone%d", "queries/docker.io/%d", "tags/other.example/app/theirs%d", "tags/app/of-an-origin%d"} {
			if err := remote.PutRecord(t.Context(), fmt.Sprintf(name, i), []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.sweepRemote(t.Context())
	count := func(prefix string) (n int) {
		for _, err := range remote.RecordKeys(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	for prefix, most := range map[string]int{"tags/docker.io": 10, "queries/docker.io": 10} {
		if got := count(prefix); got > most || got == 0 {
			t.Errorf("%d records of %s are left, want at most %d", got, prefix, most)
		}
	}
	for _, prefix := range []string{"tags/other.example", "tags/app"} {
		if got := count(prefix); got != 40 {
			t.Errorf("%d records of %s are left, which are none of this node's", got, prefix)
		}
	}
	if _, err := remote.Dir.Record(t.Context(), "tags/docker.io/app/used"); err != nil {
		t.Errorf("what this node uses: %v", err)
	}
}

// Who invents names while the bucket is down leaves notes of what it lacks.
func TestNotesOfWhatTheBucketLacksAreBoundedButForContent(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	d, body := up.blob(1000, 1)
	n := startNode(t, t.TempDir(), []string{up.URL}, withRemote(remote), func(c *Config) { c.MaxNames = 10 })
	remote.down.Store(true)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if !n.stored(t, d) {
		t.Fatal("not stored")
	}
	for i := range 40 {
		n.remote.send(fmt.Sprintf("queries/docker.io/%d", i))
	}
	n.trimAll(t.Context())
	notes := 0
	for _, err := range n.local.RecordKeys(t.Context(), uploadRecords) {
		if err != nil {
			t.Fatal(err)
		}
		notes++
	}
	if notes > 11 {
		t.Errorf("%d notes are left", notes)
	}
	if _, err := n.local.Record(t.Context(), uploadRecords+"/"+string(d)); err != nil {
		t.Errorf("the note of content: %v", err)
	}
}
