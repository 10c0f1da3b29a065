package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

// fakeRemote is a shared store whose server can be stopped, and whose bytes can
// be damaged. Its content lies in a directory.
type fakeRemote struct {
	*blobstore.Dir
	down   atomic.Bool
	damage atomic.Bool
	cutAt  atomic.Int64 // when positive, reads break there
	opens  atomic.Int32
	put    chan digest.Digest
}

var errDown = errors.New("connection refused")

func newFakeRemote(t *testing.T) *fakeRemote {
	t.Helper()
	dir, err := blobstore.OpenDir(t.TempDir(), blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return &fakeRemote{Dir: dir, put: make(chan digest.Digest, 100)}
}

func (f *fakeRemote) Open(ctx context.Context, d digest.Digest, offset, length int64) (io.ReadCloser, blobstore.Info, error) {
	f.opens.Add(1)
	if f.down.Load() {
		return nil, blobstore.Info{}, errDown
	}
	r, info, err := f.Dir.Open(ctx, d, offset, length)
	if err != nil {
		return nil, info, err
	}
	if cut := f.cutAt.Load(); cut > 0 {
		return readCloser{io.MultiReader(io.LimitReader(r, cut-offset), brokenReader{}), r}, info, nil
	}
	if f.damage.Load() {
		return readCloser{flipped{r}, r}, info, nil
	}
	return r, info, nil
}

func (f *fakeRemote) Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) error {
	if f.down.Load() {
		return errDown
	}
	err := f.Dir.Put(ctx, d, size, r)
	if err == nil {
		f.put <- d
	}
	return err
}

func (f *fakeRemote) Record(ctx context.Context, key string) ([]byte, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.Dir.Record(ctx, key)
}

func (f *fakeRemote) PutRecord(ctx context.Context, key string, value []byte) error {
	if f.down.Load() {
		return errDown
	}
	return f.Dir.PutRecord(ctx, key, value)
}

func (f *fakeRemote) Presign(_ context.Context, d digest.Digest, _ time.Duration) (string, error) {
	return "https://bucket.example.org/" + string(d) + "?signature=1", nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errDown }

type flipped struct{ io.Reader }

func (f flipped) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	for i := range p[:n] {
		p[i] ^= 1
	}
	return n, err
}

func withRemote(r RemoteStore) nodeOption { return func(c *Config) { c.Remote = r } }

// uploaded waits until the remote store has the blob.
func (f *fakeRemote) uploaded(t *testing.T, d digest.Digest) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-f.put:
			if got == d {
				return
			}
		case <-timeout:
			t.Fatalf("%s was not uploaded", d)
		}
	}
}

func TestBlobIsUploadedAndAnotherNodeServesItWithUpstreamGone(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	d, body := up.blob(3*mib, 1)
	m := up.manifest("app", "v1", `{"schemaVersion":2}`)
	first := startNode(t, t.TempDir(), []string{up.URL}, withRemote(remote))
	first.get(t, blobPath(d)).wantBytes(t, 200, body)
	remote.uploaded(t, d)
	first.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
	remote.uploaded(t, m)
	waitFor(t, "the records to be uploaded", func() bool {
		_, err1 := remote.Dir.Record(t.Context(), "tags/docker.io/app/v1")
		_, err2 := remote.Dir.Record(t.Context(), "manifests/docker.io/app/"+string(m))
		return err1 == nil && err2 == nil
	})
	up.Close()
	second := startNode(t, t.TempDir(), []string{up.URL}, withRemote(remote))
	second.get(t, blobPath(d)).wantBytes(t, 200, body)
	second.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
	opens := remote.opens.Load()
	if !second.stored(t, d) {
		t.Error("the second node did not keep the blob on its disk")
	}
	second.get(t, blobPath(d)).wantBytes(t, 200, body)
	if remote.opens.Load() != opens {
		t.Error("the second read went to the remote store again")
	}
}

func TestRemoteStoreThatBreaksInMidBlobIsContinuedFromUpstream(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	d, body := up.blob(3*mib, 1)
	if err := remote.Dir.Put(t.Context(), d, int64(len(body)), strings.NewReader(string(body))); err != nil {
		t.Fatal(err)
	}
	remote.cutAt.Store(mib)
	n := startNode(t, t.TempDir(), []string{up.URL}, withRemote(remote))
	remoteDown := func(http.ResponseWriter, *http.Request, int) bool {
		remote.down.Store(true)
		return false
	}
	up.do(remoteDown)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestWrongBytesInTheRemoteStoreAreRemovedAndMadeGood(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	d, body := up.blob(40<<10, 1)
	if err := remote.Dir.Put(t.Context(), d, int64(len(body)), strings.NewReader(string(body))); err != nil {
		t.Fatal(err)
	}
	remote.damage.Store(true)
	n := startNode(t, t.TempDir(), []string{up.URL}, withRemote(remote))
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	remote.uploaded(t, d)
}

func TestRemoteStoreThatIsDownCostsNothingAndGetsItsBlobsLater(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	d, body := up.blob(3*mib, 1)
	remote.down.Store(true)
	dir := t.TempDir()
	n := startNode(t, dir, []string{up.URL}, withRemote(remote))
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if !n.stored(t, d) {
		t.Fatal("not stored locally")
	}
	n.close()
	remote.down.Store(false)
	startNode(t, dir, []string{up.URL}, withRemote(remote))
	remote.uploaded(t, d)
}

func TestWhatTheRemoteStoreHasIsEvictedBeforeWhatItIsToGet(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	has, hasBody := up.blob(8*mib, 1)
	lacks, lacksBody := up.blob(3*mib, 2)
	more, moreBody := up.blob(19*mib, 3)
	n := startLimitedNode(t, t.TempDir(), 32*mib, []string{up.URL}, withRemote(remote))
	n.get(t, blobPath(has)).wantBytes(t, 200, hasBody)
	remote.uploaded(t, has)
	waitFor(t, "the upload to be forgotten", func() bool {
		_, err := n.dir.Record(t.Context(), uploadRecords+"/"+string(has))
		return errors.Is(err, blobstore.ErrNotExist)
	})
	remote.down.Store(true)
	n.get(t, blobPath(lacks)).wantBytes(t, 200, lacksBody)
	n.get(t, blobPath(has)).wantBytes(t, 200, hasBody) // used last
	n.get(t, blobPath(more)).wantBytes(t, 200, moreBody)
	waitFor(t, "the uploaded blob to be evicted", func() bool { return !n.stored(t, has) })
	if !n.stored(t, lacks) {
		t.Error("what nobody else has was evicted")
	}
	remote.down.Store(false)
	remote.uploaded(t, lacks)
}

func TestClientsAreSentToTheRemoteStoreWhereThatIsWanted(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	d, body := up.blob(3*mib, 1)
	if err := remote.Dir.Put(t.Context(), d, int64(len(body)), strings.NewReader(string(body))); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, t.TempDir(), []string{up.URL}, withRemote(remote), func(c *Config) { c.RedirectExpiry = time.Minute })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.Server.URL+blobPath(d), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if want := "https://bucket.example.org/" + string(d) + "?signature=1"; resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") != want {
		t.Errorf("status %d, Location %q; want 307 to %s", resp.StatusCode, resp.Header.Get("Location"), want)
	}
	other, body2 := up.blob(1000, 2)
	n.get(t, blobPath(other)).wantBytes(t, 200, body2)
}

// waitFor polls for what another goroutine will bring about.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
