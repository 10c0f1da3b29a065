package proxy

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestFileComesFromUpstreamOnceAndThenFromTheStore(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a/b.bin", 3*mib, 1)
	dir := t.TempDir()
	n := startFiles(t, dir, []string{up.URL})
	first := n.get(t, "/up/a/b.bin")
	first.wantBytes(t, 200, f.body)
	first.wantHeaders(t, map[string]string{"ETag": `"v1"`, "Repr-Digest": ""})
	if status := first.header.Get("Cache-Status"); !strings.HasPrefix(status, "entrepot; fwd=uri-miss; fwd-status=200; stored; ttl=") {
		t.Errorf("Cache-Status is %q", status)
	}
	n.settled(t, "a/b.bin")
	second := n.get(t, "/up/a/b.bin")
	second.wantBytes(t, 200, f.body)
	d := digest.FromBytes(f.body)
	if status := second.header.Get("Cache-Status"); !strings.HasPrefix(status, "entrepot; hit; ttl=") {
		t.Errorf("Cache-Status is %q", status)
	}
	second.wantHeaders(t, map[string]string{"Repr-Digest": reprDigest(d)})
	if !n.stored(t, d) {
		t.Error("the file is not stored by its digest")
	}
	up.wantLog(t, "GET /a/b.bin")
	up.Close()
	n.close()
	n = startFiles(t, dir, []string{up.URL})
	n.get(t, "/up/a/b.bin").wantBytes(t, 200, f.body)
	n.get(t, "/blobs/"+string(d)).wantBytes(t, 200, f.body)
	n.get(t, "/up/blobs/"+string(d), "Range", "bytes=1-2").wantBytes(t, 206, f.body[1:3])
}

func TestWhatUpstreamSaysOfAFileIsKept(t *testing.T) {
	up := newFileServer(t)
	said := map[string]string{
		"Content-Type": "application/x-thing", "Content-Disposition": `attachment; filename="x"`, "Content-Encoding": "gzip",
		"Content-Language": "de", "Cache-Control": "max-age=120", "ETag": `W/"weak"`, "Last-Modified": "Sun, 22 Nov 2026 01:02:03 GMT",
	}
	f := hosted{body: []byte("squeezed"), header: http.Header{}}
	for key, value := range said {
		f.header.Set(key, value)
	}
	up.put("/x", f)
	n := startFiles(t, t.TempDir(), []string{up.URL})
	for range 2 {
		g := n.get(t, "/up/x", "Accept-Encoding", "gzip")
		g.wantHeaders(t, said)
		n.settled(t, "x")
	}
	for _, g := range []got{n.head(t, "/up/x"), n.get(t, "/up/x", "Accept-Encoding", "br")} {
		g.wantHeaders(t, said)
	}
	up.wantLog(t, "GET /x")
	n.get(t, "/up/x", "If-Modified-Since", "Sun, 22 Nov 2026 01:02:03 GMT").wantBytes(t, 304, nil)
	n.get(t, "/up/x", "If-None-Match", `W/"weak"`).wantBytes(t, 304, nil)
}

func TestFiftyClientsOfAColdFileAreOneRequest(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", mib, 1)
	gate := make(chan struct{})
	up.do(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		f.describe(w.Header())
		w.Header().Set("Content-Length", "1048576")
		_, _ = w.Write(f.body[:mib/4])
		_ = http.NewResponseController(w).Flush()
		<-gate
		_, _ = w.Write(f.body[mib/4:])
		return true
	})
	n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) { c.StallTimeout = time.Minute }))
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			if i%2 == 0 {
				n.get(t, "/up/a").wantBytes(t, 200, f.body)
				return
			}
			n.get(t, "/up/a", "Range", "bytes=100-199,300-").check(t, 206)
			n.get(t, "/up/a", "Range", "bytes=1000-", "If-Range", `"v1"`).wantBytes(t, 206, f.body[1000:])
		})
	}
	early := n.get(t, "/up/a", "Range", "bytes=0-99") // while upstream waits
	early.wantBytes(t, 206, f.body[:100])
	close(gate)
	clients.Wait()
	up.wantLog(t, "GET /a")
}

func TestRangesOfAColdFileAreTakenFromItsOneDownload(t *testing.T) {
	up, g := newFileServer(t), newGate()
	f := up.file("/a", 32*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Header.Get("Range") != "" {
			return false
		}
		f.describe(w.Header())
		g.hold(w, r, f.body, mib)
		return true
	})
	n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) { c.StallTimeout = time.Minute }))
	var pieces sync.WaitGroup
	for i := range 8 { // as aria2 does
		first, last := i*4*mib, i*4*mib+3*mib-1
		pieces.Go(func() {
			got := n.get(t, "/up/a", "Range", fmt.Sprintf("bytes=%d-%d", first, last))
			if got.err != nil || !bytes.Equal(got.body, f.body[first:last+1]) {
				t.Errorf("piece %d: %d bytes, %v", i, len(got.body), got.err)
			}
		})
	}
	n.get(t, "/up/a", "Range", "bytes=0-99").wantBytes(t, 206, f.body[:100])
	g.open()
	pieces.Wait()
	up.wantLog(t, "GET /a")
}

// check is for goroutines: it reports and goes on.
func (g got) check(t *testing.T, status int) {
	if g.err != nil || g.status != status {
		t.Errorf("got %v; want status %d", g, status)
	}
}

func TestFileWhoseSizeUpstreamDoesNotTellIsStreamed(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", mib, 1)
	up.do(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		f.describe(w.Header())
		_, _ = w.Write(f.body[:mib/2])
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(f.body[mib/2:])
		return true
	})
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.settled(t, "a")
	n.get(t, "/up/a", "Range", "bytes=-5").wantBytes(t, 206, f.body[mib-5:])
	n.head(t, "/up/a").wantHeaders(t, map[string]string{"Content-Length": "1048576"})
}

func TestEmptyFile(t *testing.T) {
	up := newFileServer(t)
	up.put("/empty", hosted{body: []byte{}, etag: `"e"`})
	n := startFiles(t, t.TempDir(), []string{up.URL})
	for range 2 {
		n.get(t, "/up/empty").wantBytes(t, 200, nil)
		n.settled(t, "empty")
	}
	up.wantLog(t, "GET /empty")
}

func TestHeadOfAFileThatIsNotHereFetchesNothing(t *testing.T) {
	up := newFileServer(t)
	up.file("/a", mib, 1)
	n := startFiles(t, t.TempDir(), []string{up.URL})
	g := n.head(t, "/up/a")
	g.wantBytes(t, 200, nil)
	g.wantHeaders(t, map[string]string{"Content-Length": "1048576", "ETag": `"v1"`, "Accept-Ranges": "bytes"})
	if g := n.head(t, "/up/none"); g.status != 404 {
		t.Errorf("got %v", g)
	}
	up.wantLog(t, "HEAD /a", "HEAD /none")
}

func TestAbsentFileIsRememberedAsAbsent(t *testing.T) {
	up := newFileServer(t)
	n := startFiles(t, t.TempDir(), []string{up.URL})
	for range 3 {
		if g := n.get(t, "/up/none"); g.status != 404 || !strings.Contains(string(g.body), "none") {
			t.Errorf("got %v", g)
		}
	}
	up.wantLog(t, "GET /none")
}

func TestFileOfAnUpstreamThatIsDownIsServedStaleAndElseTold(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 1000, 1, "Cache-Control", "max-age=0")
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.settled(t, "a")
	up.do(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	g := n.get(t, "/up/a")
	g.wantBytes(t, 200, f.body)
	if status := g.header.Get("Cache-Status"); !strings.Contains(status, "hit; ttl=-") || !strings.HasSuffix(status, "detail=upstream-down") {
		t.Errorf("Cache-Status is %q", status)
	}
	if g := n.get(t, "/up/b"); g.status != 503 {
		t.Errorf("got %v; want 503", g)
	}
}

func TestPathReachesUpstreamAsItWasSentAndNeverLeavesItsBase(t *testing.T) {
	up := newFileServer(t)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		_, _ = w.Write([]byte(r.RequestURI))
		return true
	})
	n := startFiles(t, t.TempDir(), []string{up.URL + "/base"})
	for _, path := range []string{"a%2Fb/C", "A/b", "a%2fb", "x?y=%20z&Y", "folder/", "a+b%20c"} {
		n.get(t, "/up/"+path).wantBytes(t, 200, []byte("/base/"+path))
	}
	before := len(up.log())
	for _, path := range []string{"../secret", "%2e%2e/secret", "a/%2e%2e%2f..%2fsecret", "..%5csecret", "%252e%252e/secret"} {
		if g := n.get(t, "/up/"+path); g.status != 400 && g.status != 404 {
			t.Errorf("%s: %v; want it refused", path, g)
		}
	}
	if len(up.log()) != before {
		t.Errorf("upstream was asked %q", up.log()[before:])
	}
}

func TestUpstreamOfAFileIsNamedByPathByHostOrByDefault(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 100, 1)
	n := startFiles(t, t.TempDir(), []string{up.URL})
	if g := n.get(t, "/a"); g.status != 404 || !strings.Contains(string(g.body), "names no upstream") {
		t.Errorf("got %v", g)
	}
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n = startFiles(t, t.TempDir(), []string{up.URL}, func(c *Config) { c.DefaultFiles = "up" })
	n.get(t, "/a").wantBytes(t, 200, f.body)
	n = startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) { c.Name = "127.0.0.1" }))
	n.get(t, "/a").wantBytes(t, 200, f.body)
}
