package proxy

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"entrepot/blobstore/storetest"
)

// The spool is tried again spoolPause after it failed: the test moves that
// time instead of waiting.
func (s *fillSet) tryTheSpoolAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noSpool = time.Time{}
}

func TestFullDiskServesHitsStreamsMissesVerifiedAndRecovers(t *testing.T) {
	const size = 32 * mib
	disk := storetest.Tmpfs(t, size)
	up := newScript(t)
	hit, hitBody := up.blob(2*mib, 1)
	miss, missBody := up.blob(8*mib, 2)
	rotten, rottenBody := up.blob(8*mib, 3)
	n := startNode(t, filepath.Join(disk, "store"), []string{up.URL})
	n.get(t, blobPath(hit)).wantBytes(t, 200, hitBody)
	if !n.stored(t, hit) {
		t.Fatal("not stored")
	}
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, size-5*mib), 0o600); err != nil { // 3 MiB are left
		t.Fatal(err)
	}

	asked := up.gets()
	n.get(t, blobPath(hit)).wantBytes(t, 200, hitBody)
	if up.gets() != asked {
		t.Error("a hit on a full disk asked upstream")
	}
	// The first miss meets the full disk in its middle, the second knows of it.
	n.get(t, blobPath(miss)).wantBytes(t, 200, missBody)
	n.get(t, blobPath(miss)).wantBytes(t, 200, missBody)
	n.get(t, blobPath(miss), "Range", "bytes=5000000-5000099").wantBytes(t, 206, missBody[5000000:5000100])
	if n.stored(t, miss) {
		t.Error("the miss is said to be stored")
	}
	if litter, err := os.ReadDir(filepath.Join(disk, "store", "spool")); err != nil || len(litter) > 0 {
		t.Errorf("left in the spool: %v, %v", litter, err)
	}
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		wrong := bytes.Clone(rottenBody)
		wrong[7*mib] ^= 1
		up.serve(w, r, served{body: wrong})
		return true
	})
	n.get(t, blobPath(rotten)).wantCut(t)
	up.do(nil)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n.fills.tryTheSpoolAgain()
	n.get(t, blobPath(miss)).wantBytes(t, 200, missBody)
	if !n.stored(t, miss) {
		t.Error("with room again, the miss is not stored")
	}
}
