package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// startFilePair starts two nodes with one upstream of files, the first of which brings
// /up/path.
func startFilePair(t *testing.T, up *fileServer, path string, options ...nodeOption) (owner, other *testNode) {
	t.Helper()
	first, second := turns(digest.Digest("/up/" + path))
	options = append([]nodeOption{withFiles(patientFiles)}, options...)
	owner = startFiles(t, t.TempDir(), []string{up.URL}, append(options, withPeers(first))...)
	other = startFiles(t, t.TempDir(), []string{up.URL}, append(options, withPeers(second, owner.Server.URL))...)
	other.awaitPeers(t, 1)
	return owner, other
}

func TestRegionAsksUpstreamOnceForAFileOfWhichNothingIsKnown(t *testing.T) {
	for size, headers := range map[int][]string{
		0:         {"Last-Modified", "Sun, 22 Nov 2026 01:02:03 GMT"},
		100:       {"Content-Type", "text/x-one", "Cache-Control", "max-age=60"},
		3*mib + 1: {"Content-Disposition", "attachment"},
	} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			up := newFileServer(t)
			f := up.file("/a", size, 1, headers...)
			owner, other := startFilePair(t, up, "a")
			getAll(t, []*testNode{other, owner}, 3, "/up/a", f.body)
			up.wantLog(t, "GET /a")
			owner.settled(t, "a")
			other.settled(t, "a")
			g := other.get(t, "/up/a")
			g.wantBytes(t, http.StatusOK, f.body)
			g.wantHeaders(t, map[string]string{headers[0]: headers[1], "Etag": f.etag, "Repr-Digest": reprDigest(digest.FromBytes(f.body))})
			up.wantLog(t, "GET /a")
		})
	}
}

// A server without entity tags: what a node makes up for its clients is not taken for
// upstream's by another.
func TestVersionOfAPeerIsCheckedByWhatUpstreamSaidOfIt(t *testing.T) {
	up := newFileServer(t)
	f := hosted{body: randomBytes(mib, 1), modified: time.Now().Add(-time.Hour)}
	up.put("/a", f)
	owner, other := startFilePair(t, up, "a", withFiles(func(c *FileUpstreamConfig) { c.Policy.TTL = time.Nanosecond }))
	owner.get(t, "/up/a").wantBytes(t, http.StatusOK, f.body)
	owner.settled(t, "a")
	up.do(nil)
	other.get(t, "/up/a").wantBytes(t, http.StatusOK, f.body)
	other.settled(t, "a")
	if log := up.log(); len(log) != 1 || !strings.HasPrefix(log[0], "HEAD /a If-Modified-Since:") { // by the owner
		t.Errorf("upstream was asked %q; want one check", log)
	}
	up.do(nil)
	other.get(t, "/up/a").wantBytes(t, http.StatusOK, f.body)
	if log := up.log(); len(log) != 1 || !strings.HasPrefix(log[0], "HEAD /a If-Modified-Since:") {
		t.Errorf("upstream was asked %q; want one check", log)
	}
}

func TestChangedFileIsNotTakenFromAPeerToWhichTheOldOneIsFresh(t *testing.T) {
	up := newFileServer(t)
	old := up.file("/a", mib, 1)
	owner, other := startFilePair(t, up, "a")
	for _, n := range []*testNode{owner, other} {
		n.get(t, "/up/a").wantBytes(t, http.StatusOK, old.body)
		n.settled(t, "a")
	}
	changed := up.file("/a", mib, 2)
	other.files.change(nameKey{up: other.fileUpstreams["up"], repo: "a"}, func(*fileVersion) bool { return true }, nil, false, time.Time{}, nil)
	other.get(t, "/up/a").wantBytes(t, http.StatusOK, old.body) // as fresh as it is to the peer
	v := other.settled(t, "a")
	other.files.put(nameKey{up: other.fileUpstreams["up"], repo: "a"}, &fileVersion{meta: v.meta, digest: v.digest, described: v.described, said: true})
	other.get(t, "/up/a").wantBytes(t, http.StatusOK, changed.body)
}

// standIn is a peer that answers files as told, behind the greetings of a node.
func standIn(t *testing.T, node *testNode, files http.HandlerFunc) (base string) {
	t.Helper()
	target, err := url.Parse(node.Server.URL)
	if err != nil {
		t.Fatal(err)
	}
	behind := httputil.NewSingleHostReverseProxy(target)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/up/") {
			files(w, r)
			return
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestWhatAPeerDoesNotGiveOfAFileUpstreamDoes(t *testing.T) {
	f := hosted{body: randomBytes(4*mib, 1), etag: `"v1"`, header: http.Header{}}
	wrong := hosted{body: randomBytes(4*mib, 2), etag: `"v1"`, header: http.Header{"Repr-Digest": {reprDigest(digest.FromBytes(f.body))}}}
	for name, c := range map[string]struct {
		peer http.HandlerFunc
		want []string
	}{
		"it has none":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, []string{"GET /a"}},
		"its upstream fails":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, []string{"GET /a"}},
		"it breaks off":       {func(w http.ResponseWriter, _ *http.Request) { f.breakAt(w, 3*mib) }, []string{"GET /a Range:bytes="}},
		"it gives nothing":    {func(w http.ResponseWriter, _ *http.Request) { f.breakAt(w, 0) }, []string{"GET /a"}},
		"it sends wrong ones": {wrong.serve, []string{"GET /a"}},
	} {
		t.Run(name, func(t *testing.T) {
			up := newFileServer(t)
			up.put("/a", f)
			first, second := turns("/up/a")
			greets := startFiles(t, t.TempDir(), []string{up.URL}, withPeers(first))
			n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(patientFiles), withPeers(second, standIn(t, greets, c.peer)))
			n.awaitPeers(t, 1)
			if strings.Contains(name, "wrong") { // who had some of them is cut off
				if g := n.get(t, "/up/a"); g.err == nil || len(g.body) >= len(f.body) {
					t.Errorf("got %v; want a transfer that is cut", g)
				}
			}
			n.get(t, "/up/a").wantBytes(t, http.StatusOK, f.body)
			up.wantLog(t, c.want...)
		})
	}
}

// The age that a version has at a peer counts: a region is no slower to see a change
// than its nodes.
func TestVersionOfAPeerIsAsOldHereAsThere(t *testing.T) {
	rules, err := newFileRules(&FileUpstreamConfig{
		Policy: Policy{TTL: 5 * time.Minute}, MaxTTL: time.Hour, Moving: []string{"stable.txt"}, MovingTTL: 30 * time.Second, Immutable: []string{"v*/**"},
	})
	if err != nil {
		t.Fatal(err)
	}
	up := newFileServer(t)
	for _, c := range []struct {
		name, control string
		age           string
		want          time.Duration
	}{
		{"a", "", "60", 4 * time.Minute},
		{"a", "", "600", 0},
		{"a", "max-age=90", "60", 30 * time.Second},
		{"a", "max-age=86400", "60", 59 * time.Minute},
		{"stable.txt", "max-age=3600", "10", 20 * time.Second},
		{"v1/a", "", "600", forever},
	} {
		f := hosted{body: []byte("content"), etag: `"v1"`, header: http.Header{"Age": {c.age}}}
		if c.control != "" {
			f.header.Set("Cache-Control", c.control)
		}
		first, second := turns(digest.Digest("/up/" + c.name))
		greets := startFiles(t, t.TempDir(), []string{up.URL}, withPeers(first))
		n := startFiles(t, t.TempDir(), []string{up.URL}, withPeers(second, standIn(t, greets, f.serve)))
		n.awaitPeers(t, 1)
		g := n.get(t, "/up/"+c.name)
		g.wantBytes(t, http.StatusOK, f.body)
		g.wantHeaders(t, map[string]string{"Age": c.age})
		v := n.settled(t, c.name)
		if rule := rules.rule(v, rules.policy(c.name)); rule.TTL != c.want {
			t.Errorf("%s with Cache-Control %q, %s s old at a peer, is fresh for %v; want %v", c.name, c.control, c.age, rule.TTL, c.want)
		}
	}
}
