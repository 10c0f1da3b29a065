package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

func patientFiles(c *FileUpstreamConfig) { c.StallTimeout = time.Minute }

func TestFillOfAFileThatARestartInterruptsIsTakenUpWithIfRange(t *testing.T) {
	up, g := newFileServer(t), newGate()
	f := up.file("/a", 4*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			f.describe(w.Header())
			g.hold(w, r, f.body, 3*mib)
			return true
		}
		return false
	})
	dir := t.TempDir()
	n := startFiles(t, dir, []string{up.URL}, withFiles(patientFiles))
	resp := n.open(t, "/up/a")
	if _, err := io.ReadFull(resp.Body, make([]byte, 2*mib)); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	n.close()
	g.open()

	n = startFiles(t, dir, []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	log := up.log()
	if last := log[len(log)-1]; !strings.Contains(last, "Range:bytes=") || !strings.Contains(last, `If-Range:"v1"`) {
		t.Errorf("upstream was asked %q; want the rest last", log)
	}
	n.settled(t, "a")

	other := up.file("/a", 4*mib, 2)
	n.close()
	n = startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, other.body)
}

func TestFileThatNobodyWaitsForIsGivenUpAndItsBytesAreKept(t *testing.T) {
	up, g := newFileServer(t), newGate()
	defer g.open()
	f := up.file("/a", 8*mib, 1)
	stopped := make(chan struct{})
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 1 {
			return false
		}
		f.describe(w.Header())
		g.hold(w, r, f.body, 2*mib)
		close(stopped)
		return true
	})
	n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(patientFiles))
	resp := n.open(t, "/up/a")
	if _, err := io.ReadFull(resp.Body, make([]byte, mib)); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	<-stopped
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	log := up.log()
	if last := log[len(log)-1]; !strings.Contains(last, "Range:bytes=") {
		t.Errorf("upstream was asked %q; want the rest last", log)
	}
}

func TestEvictedFileIsFetchedAgainUnlessItChanged(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 3*mib, 1)
	n := startFiles(t, t.TempDir(), []string{up.URL})
	evict := func(d digest.Digest) {
		n.settled(t, "a")
		if !n.stored(t, d) {
			t.Fatal("it is not stored")
		}
		if err := n.dir.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	evict(digest.FromBytes(f.body))
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	up.wantLog(t, "GET /a", "GET /a")
	evict(digest.FromBytes(f.body))
	changed := up.file("/a", 3*mib, 2)
	n.get(t, "/up/a").wantBytes(t, 200, changed.body)
	evict(digest.FromBytes(changed.body))
	up.do(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	if g := n.get(t, "/up/a"); g.status != 404 {
		t.Errorf("got %v; want 404", g)
	}
}

func TestRottenFileIsFetchedAgain(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 3*mib, 1)
	small := up.file("/small", 1000, 2)
	dir := t.TempDir()
	n := startFiles(t, dir, []string{up.URL}, verifyReads)
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.get(t, "/up/small").wantBytes(t, 200, small.body)
	n.settled(t, "a")
	n.settled(t, "small")
	n.close()
	rot(t, dir, digest.FromBytes(f.body), 100)
	rot(t, dir, digest.FromBytes(small.body), 100)
	n = startFiles(t, dir, []string{up.URL}, verifyReads)
	n.get(t, "/up/a", "Range", "bytes=1000000-1999999").wantBytes(t, 206, f.body[1000000:2000000])
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.get(t, "/up/small").wantBytes(t, 200, small.body)
	up.wantLog(t, "GET /a", "GET /small", "GET /a", "GET /small")
}

func TestFileIsSharedThroughTheBucketWithUpstreamGone(t *testing.T) {
	up, remote := newFileServer(t), newFakeRemote(t)
	f := up.file("/release/v1/a", 3*mib, 1, "Content-Type", "text/x-a")
	first := startFiles(t, t.TempDir(), []string{up.URL}, withRemote(remote))
	first.get(t, "/up/release/v1/a").wantBytes(t, 200, f.body)
	remote.uploaded(t, digest.FromBytes(f.body))
	first.settled(t, "release/v1/a")
	deadline := time.Now().Add(10 * time.Second)
	key := fileRecordKey(nameKey{up: first.fileUpstreams["up"], repo: "release/v1/a"})
	for {
		if _, err := remote.Record(t.Context(), key); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the record was not uploaded")
		}
	}
	up.Close()
	second := startFiles(t, t.TempDir(), []string{up.URL}, withRemote(remote))
	g := second.get(t, "/up/release/v1/a")
	g.wantBytes(t, 200, f.body)
	g.wantHeaders(t, map[string]string{"Content-Type": "text/x-a", "ETag": `"v1"`})
}

func TestStoreThatFailsCostsCachingAndNotFiles(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 3*mib, 1, "Repr-Digest", reprDigest(digest.FromBytes(randomBytes(3*mib, 1))))
	plain := up.file("/plain", 3*mib, 3)
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.fills.spoolFailed()
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.get(t, "/up/plain", "Range", "bytes=5-").wantBytes(t, 206, plain.body[5:])
	if n.stored(t, digest.FromBytes(f.body)) {
		t.Error("it was stored")
	}
	n.fills.mu.Lock()
	n.fills.noSpool = time.Time{}
	n.fills.mu.Unlock()
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.settled(t, "a")
	if !n.stored(t, digest.FromBytes(f.body)) {
		t.Error("it was not stored when the store was well again")
	}
}

// limitedDir is a store of its own, with a size limit.
func limitedDir(t *testing.T, limit int64) *blobstore.Dir {
	t.Helper()
	dir, err := blobstore.OpenDir(t.TempDir(), blobstore.DirConfig{MaxSize: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

func TestFileLargerThanTheStoreIsStreamed(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 3*mib, 1)
	n := startFiles(t, t.TempDir(), []string{up.URL}, func(c *Config) { c.Local = limitedDir(t, 2*mib) })
	for range 2 {
		n.get(t, "/up/a").wantBytes(t, 200, f.body)
	}
	n.get(t, "/up/a", "Range", "bytes=3000000-3000009").wantBytes(t, 206, f.body[3000000:3000010])
}
