package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"entrepot/blobstore"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

func verifyReads(c *Config) { c.VerifyReads = true }

// rot flips a bit at an offset of a stored blob, as a disk may.
func rot(t *testing.T, dir string, d digest.Digest, offset int64) {
	t.Helper()
	path := filepath.Join(dir, "blobs", string(d.Algorithm()), d.Encoded()[:2], d.Encoded(), "data")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := file.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
}

// forgetVerified has ranges verified anew, as they are ten minutes later.
func (n *testNode) forgetVerified() { n.reads.verified.Purge() }

func TestRotInALargeBlobIsNeverACompleteBlobAndIsFetchedAgain(t *testing.T) {
	for name, offset := range map[string]int64{"first byte": 0, "middle": 1500000, "last byte": 3*mib - 1} {
		t.Run(name, func(t *testing.T) {
			up := newScript(t)
			d, body := up.blob(3*mib, 1)
			dir := t.TempDir()
			n := startNode(t, dir, []string{up.URL}, verifyReads)
			n.get(t, blobPath(d)).wantBytes(t, 200, body)
			n.stored(t, d)
			n.get(t, blobPath(d)).wantBytes(t, 200, body) // from the store
			if up.gets() != 1 {
				t.Fatalf("upstream was asked %d times", up.gets())
			}
			rot(t, dir, d, offset)
			n.get(t, blobPath(d)).wantCut(t)
			n.get(t, blobPath(d)).wantBytes(t, 200, body)
			if !n.stored(t, d) || up.gets() != 2 {
				t.Errorf("it is not stored again, or upstream was asked %d times", up.gets())
			}
			if u := n.dir.Usage(); u.Quarantined != 1 {
				t.Errorf("the usage is %+v", u)
			}
		})
	}
}

func TestRangeOfARottenBlobIsFetchedAgainWithoutTheClientNoticing(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(3*mib, 1)
	dir := t.TempDir()
	n := startNode(t, dir, []string{up.URL}, verifyReads)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	n.stored(t, d)
	rot(t, dir, d, 100)
	n.forgetVerified()
	// The range itself is right; the blob is not.
	n.get(t, blobPath(d), "Range", "bytes=1000000-1999999").wantBytes(t, 206, body[1000000:2000000])
	if !n.stored(t, d) || n.dir.Usage().Quarantined != 1 || up.gets() != 2 {
		t.Errorf("after it: usage %+v, %d requests", n.dir.Usage(), up.gets())
	}
	n.get(t, blobPath(d), "Range", "bytes=0-199").wantBytes(t, 206, body[:200])
	n.get(t, blobPath(d), "Range", "bytes=0-9,3000000-3000009") // several parts
	if up.gets() != 2 {
		t.Errorf("upstream was asked %d times", up.gets())
	}
}

// Without waiting for ten minutes: a file that was written to is another.
func TestRotIsFoundInABlobThatWasJustVerified(t *testing.T) {
	for name, whole := range map[string]bool{"as it was stored": false, "as it was read whole": true} {
		t.Run(name, func(t *testing.T) {
			up := newScript(t)
			d, body := up.blob(3*mib, 1)
			dir := t.TempDir()
			n := startNode(t, dir, []string{up.URL}, verifyReads)
			n.get(t, blobPath(d)).wantBytes(t, 200, body)
			n.stored(t, d)
			if whole {
				n.get(t, blobPath(d)).wantBytes(t, 200, body)
			}
			rot(t, dir, d, 2000000)
			n.get(t, blobPath(d), "Range", "bytes=1000000-").wantBytes(t, 206, body[1000000:])
			if n.dir.Usage().Quarantined != 1 || up.gets() != 2 {
				t.Errorf("usage %+v, %d requests", n.dir.Usage(), up.gets())
			}
		})
	}
}

func TestManyRangesOfABlobReadItWholeOnce(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(3*mib, 1)
	n := startNode(t, t.TempDir(), []string{up.URL}, verifyReads)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	n.stored(t, d)
	n.forgetVerified()
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			from := i * 100000
			got := n.get(t, blobPath(d), "Range", "bytes="+strconv.Itoa(from)+"-"+strconv.Itoa(from+99999))
			if got.err != nil || !bytes.Equal(got.body, body[from:from+100000]) {
				t.Errorf("range %d: %v", i, got)
			}
		})
	}
	clients.Wait()
	if seen, ok := n.reads.verified.Get(d); !ok || time.Since(seen.at) > time.Minute {
		t.Errorf("verified at %v, %v", seen.at, ok)
	}
}

func TestRotInASmallBlobIsFetchedAgainWithoutTheClientNoticing(t *testing.T) {
	for _, options := range [][]nodeOption{nil, {verifyReads}} {
		up := newScript(t)
		d, body := up.blob(1000, 1)
		m := up.manifest("app", "v1", `{"schemaVersion":2}`)
		dir := t.TempDir()
		n := startNode(t, dir, []string{up.URL}, options...)
		n.get(t, blobPath(d)).wantBytes(t, 200, body)
		n.get(t, "/v2/app/manifests/"+string(m)).wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
		n.stored(t, d)
		n.close()
		rot(t, dir, d, 500)
		rot(t, dir, m, 5)
		n = startNode(t, dir, []string{up.URL}, options...)
		n.get(t, blobPath(d)).wantBytes(t, 200, body)
		n.get(t, "/v2/app/manifests/"+string(m)).wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
		if !n.stored(t, d) || !n.stored(t, m) || n.dir.Usage().Quarantined != 2 {
			t.Errorf("the usage is %+v", n.dir.Usage())
		}
	}
}

func TestRottenBlobWhileUpstreamIsGoneIsAnErrorAndNotWrongBytes(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(mib, 1)
	dir := t.TempDir()
	n := startNode(t, dir, []string{up.URL}, verifyReads)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	n.stored(t, d)
	rot(t, dir, d, 7)
	up.Close()
	n.forgetVerified()
	if got := n.get(t, blobPath(d), "Range", "bytes=500000-500999"); got.err == nil && got.status == 206 {
		t.Errorf("got %v", got)
	}
	if got := n.get(t, blobPath(d)); got.err == nil && got.status == 200 {
		t.Errorf("got %v", got)
	}
}

func TestRottenBlobIsNotUploadedAndHoldsUpNoOther(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	d, body := up.blob(3*mib, 1)
	other, otherBody := up.blob(mib, 2)
	remote.down.Store(true)
	dir := t.TempDir()
	n := startNode(t, dir, []string{up.URL}, withRemote(remote))
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	n.get(t, blobPath(other)).wantBytes(t, 200, otherBody)
	n.stored(t, d)
	n.stored(t, other)
	n.close()
	rot(t, dir, d, 5)
	remote.down.Store(false)
	n = startNode(t, dir, []string{up.URL}, withRemote(remote))
	remote.uploaded(t, other)
	waitFor(t, "the rotten blob to be put aside", func() bool { return n.dir.Usage().Quarantined == 1 })
	waitFor(t, "its upload to be forgotten", func() bool {
		_, err := n.dir.Record(t.Context(), uploadRecords+"/"+string(d))
		return errors.Is(err, blobstore.ErrNotExist)
	})
	if !n.remote.up() {
		t.Error("the S3 store is blamed for it")
	}
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	remote.uploaded(t, d)
}

func FuzzHeadRecord(f *testing.F) {
	d := string(digest.FromString("x"))
	f.Add(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + d + `","size":1000,"checked":"2026-11-23T12:00:00Z"}`)
	f.Add(`{"digest":"` + d + `","size":-1}`)
	f.Add(`{"digest":"sha256:../../etc/passwd","size":4194305}`)
	f.Fuzz(func(t *testing.T, text string) {
		var r headRecord
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		h, ok := r.head()
		if ok && (h.Digest.Validate() != nil || h.Size < 0 || h.Size > registry.MaxManifestSize) {
			t.Errorf("%q is taken as %+v", text, h)
		}
		if ok && recordOf(h, r.Checked) != r {
			t.Errorf("%q comes back as %+v", text, recordOf(h, r.Checked))
		}
	})
}
