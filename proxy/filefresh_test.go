package proxy

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestFreshnessOfAFileIsWhatUpstreamSaysWithinBounds(t *testing.T) {
	date := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	rules, err := newFileRules(&FileUpstreamConfig{
		Policy: Policy{TTL: 5 * time.Minute, StaleWhileRevalidate: time.Hour}, MinTTL: 10 * time.Second, MaxTTL: time.Hour,
		Immutable: []string{"release/v*/**"}, Moving: []string{"**/stable.txt"}, MovingTTL: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, control, expires, age string
		want                        time.Duration
	}{
		{"a", "", "", "", 5 * time.Minute},
		{"a", "public", "", "", 5 * time.Minute},
		{"a", "max-age=60", "", "", time.Minute},
		{"a", "max-age=60", "", "20", 40 * time.Second},
		{"a", "max-age=60, s-maxage=90", "", "", 90 * time.Second},
		{"a", "Max-Age=60", "Mon, 23 Nov 2026 12:30:00 GMT", "", time.Minute},
		{"a", "", "Mon, 23 Nov 2026 12:30:00 GMT", "", 30 * time.Minute},
		{"a", "", "0", "", 10 * time.Second},
		{"a", "max-age=5", "", "", 10 * time.Second},
		{"a", "max-age=99999999999999999999", "", "", 10 * time.Second},
		{"a", "max-age=86400", "", "", time.Hour},
		{"a", "no-cache, max-age=60", "", "", 10 * time.Second},
		{"a", "no-store", "", "", 10 * time.Second},
		{"release/v1.36.0/bin/kubectl", "no-cache", "", "", forever},
		{"release/stable.txt", "", "", "", 30 * time.Second},
		{"release/stable.txt", "max-age=3600", "", "", 30 * time.Second},
		{"release/stable.txt", "max-age=20", "", "", 20 * time.Second},
		{"release/v1/stable.txt", "", "", "", forever},
	} {
		h := http.Header{}
		if c.control != "" {
			h.Set("Cache-Control", c.control)
		}
		if c.expires != "" {
			h.Set("Expires", c.expires)
		}
		v := &fileVersion{}
		v.fresh, v.said, _ = freshness(h, c.age, date)
		rule := rules.rule(v, rules.policy(c.name))
		if rule.TTL != c.want {
			t.Errorf("%s with Cache-Control %q, Expires %q and Age %q is fresh for %v; want %v", c.name, c.control, c.expires, c.age, rule.TTL, c.want)
		}
		if moving := strings.HasSuffix(c.name, "stable.txt") && c.want != forever; moving != (rule.StaleWhileRevalidate == 0) {
			t.Errorf("%s may be answered %v before it is checked", c.name, rule.StaleWhileRevalidate)
		}
	}
}

func TestFileIsRevalidatedWithItsValidatorsAndFetchedWhenItChanged(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", mib, 1, "Cache-Control", "no-cache", "Last-Modified", "Sun, 22 Nov 2026 01:02:03 GMT")
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.settled(t, "a")
	g := n.get(t, "/up/a")
	g.wantBytes(t, 200, f.body)
	if status := g.header.Get("Cache-Status"); !strings.HasSuffix(status, "detail=revalidated") {
		t.Errorf("Cache-Status is %q", status)
	}
	up.wantLog(t, "GET /a", `HEAD /a If-None-Match:"v1" If-Modified-Since:Sun, 22 Nov 2026 01:02:03 GMT`)
	f = up.file("/a", mib, 2, "Cache-Control", "no-cache")
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	up.wantLog(t, "GET /a", "HEAD /a", "HEAD /a", "GET /a")
	v := n.settled(t, "a")
	if v.digest != digest.FromBytes(f.body) {
		t.Errorf("the name leads to %s", v.digest)
	}
}

func TestServerThatRefusesHEADIsAskedWithGET(t *testing.T) {
	for _, refusal := range []int{http.StatusMethodNotAllowed, http.StatusForbidden, http.StatusNotFound} {
		up := newFileServer(t)
		f := up.file("/a", 1000, 1, "Cache-Control", "no-cache")
		up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(refusal)
				return true
			}
			return false
		})
		n := startFiles(t, t.TempDir(), []string{up.URL})
		for range 2 {
			n.get(t, "/up/a").wantBytes(t, 200, f.body)
			n.settled(t, "a")
		}
		up.wantLog(t, "GET /a", "HEAD /a", `GET /a If-None-Match:"v1"`)
	}
}

func TestFileThatIsGoneUpstreamIsGoneHere(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 1000, 1, "Cache-Control", "no-cache")
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.settled(t, "a")
	up.put("/a", hosted{})
	for range 2 {
		if g := n.get(t, "/up/a"); g.status != 404 {
			t.Errorf("got %v; want 404", g)
		}
	}
	up.wantLog(t, "GET /a", "HEAD /a", "GET /a")
}

func TestFileWithoutValidatorsIsFetchedAnewWhenItIsNotFresh(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 1000, 1, "Cache-Control", "no-cache")
	f.etag = ""
	up.put("/a", f)
	n := startFiles(t, t.TempDir(), []string{up.URL})
	for range 2 {
		n.get(t, "/up/a").wantBytes(t, 200, f.body)
		n.settled(t, "a")
	}
	n.head(t, "/up/a").wantHeaders(t, map[string]string{"Content-Length": "1000", "ETag": ""})
	up.wantLog(t, "GET /a", "GET /a", "HEAD /a")
}

func TestFileWithoutAnEntityTagHasItsDigestForOne(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 1000, 1)
	f.etag = ""
	up.put("/a", f)
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	n.settled(t, "a")
	tag := `"` + string(digest.FromBytes(f.body)) + `"`
	n.head(t, "/up/a").wantHeaders(t, map[string]string{"ETag": tag})
	n.get(t, "/up/a", "If-None-Match", tag).wantBytes(t, 304, nil)
	n.get(t, "/up/a", "If-Range", tag, "Range", "bytes=0-1").wantBytes(t, 206, f.body[:2])
}

func TestImmutableFilesAreNeverCheckedAndPointersAlways(t *testing.T) {
	up := newFileServer(t)
	fixed := up.file("/release/v1/kubectl", 1000, 1, "Cache-Control", "no-cache")
	pointer := up.file("/release/stable.txt", 10, 2)
	n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) { c.MovingTTL = 0 }))
	for range 3 {
		n.get(t, "/up/release/v1/kubectl").wantBytes(t, 200, fixed.body)
		n.settled(t, "release/v1/kubectl")
	}
	up.wantLog(t, "GET /release/v1/kubectl")
	up.do(nil)
	for range 3 {
		n.get(t, "/up/release/stable.txt").wantBytes(t, 200, pointer.body)
		n.settled(t, "release/stable.txt")
		pointer = up.file("/release/stable.txt", 10, uint64(len(up.log())+10))
	}
}

func TestStaleFileIsAnsweredAtOnceWhileItIsChecked(t *testing.T) {
	up := newFileServer(t)
	old := up.file("/a", 1000, 1)
	asked := make(chan struct{})
	gate := make(chan struct{})
	n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) {
		c.Policy.TTL, c.Policy.StaleWhileRevalidate = time.Nanosecond, time.Hour
	}))
	n.get(t, "/up/a").wantBytes(t, 200, old.body)
	n.settled(t, "a")
	changed := up.file("/a", 1000, 2)
	up.do(func(_ http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			close(asked)
			<-gate
		}
		return false
	})
	g := n.get(t, "/up/a")
	g.wantBytes(t, 200, old.body)
	if status := g.header.Get("Cache-Status"); !strings.Contains(status, "detail=revalidating") {
		t.Errorf("Cache-Status is %q", status)
	}
	<-asked
	close(gate)
	for deadline := time.Now().Add(10 * time.Second); ; {
		if v, known := n.files.peek(nameKey{up: n.fileUpstreams["up"], repo: "a"}); known && v.digest == digest.FromBytes(changed.body) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the name never led to the new version")
		}
		n.get(t, "/up/a")
	}
	n.get(t, "/up/a").wantBytes(t, 200, changed.body)
}

func TestCheckThatEndsAfterTheFillLosesNothing(t *testing.T) {
	up, g := newFileServer(t), newGate()
	f := up.file("/a", 2*mib, 1, "Cache-Control", "no-cache")
	checking, checked := make(chan struct{}), make(chan struct{})
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		switch {
		case r.Method == http.MethodHead:
			close(checking)
			<-checked
			return false
		case n == 1:
			f.describe(w.Header())
			g.hold(w, r, f.body, mib)
			return true
		}
		return false
	})
	n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(patientFiles))
	first := n.open(t, "/up/a")
	defer first.Body.Close()
	second := make(chan got)
	go func() { second <- n.get(t, "/up/a") }() // which has the version checked
	<-checking
	g.open()
	if _, err := io.Copy(io.Discard, first.Body); err != nil {
		t.Fatal(err)
	}
	n.settled(t, "a") // it has arrived
	close(checked)
	(<-second).wantBytes(t, 200, f.body)
	if v := n.settled(t, "a"); v == nil || v.digest != digest.FromBytes(f.body) {
		t.Errorf("the name leads to %+v", v)
	}
}

func TestNewVersionThatCannotBeFetchedLeavesTheOldOne(t *testing.T) {
	up := newFileServer(t)
	old := up.file("/a", mib, 1, "Cache-Control", "no-cache")
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, old.body)
	n.settled(t, "a")
	changed := up.file("/a", mib, 2, "Cache-Control", "no-cache")
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Method == http.MethodHead {
			return false
		}
		if r.Header.Get("Range") == "" {
			changed.breakAt(w, mib/2)
		}
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return true
	})
	n.get(t, "/up/a").wantCut(t)
	n.settled(t, "a")
	g := n.get(t, "/up/a")
	g.wantBytes(t, 200, old.body)
	if status := g.header.Get("Cache-Status"); !strings.Contains(status, "detail=upstream-error") {
		t.Errorf("Cache-Status is %q", status)
	}
}

func TestFileThatUpstreamDoesNotWantKeptIsNot(t *testing.T) {
	for _, control := range []string{"no-store", "private, max-age=60"} {
		up := newFileServer(t)
		f := up.file("/a", mib, 1, "Cache-Control", control)
		n := startFiles(t, t.TempDir(), []string{up.URL})
		for range 2 {
			n.get(t, "/up/a").wantBytes(t, 200, f.body)
			n.settled(t, "a")
		}
		if n.stored(t, digest.FromBytes(f.body)) {
			t.Error("it was kept")
		}
		up.wantLog(t, "GET /a", "GET /a")
		n = startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) { c.MinTTL = time.Hour }))
		up.do(nil)
		for range 2 {
			n.get(t, "/up/a").wantBytes(t, 200, f.body)
			n.settled(t, "a")
		}
		up.wantLog(t, "GET /a")
	}
}

func TestDigestThatUpstreamTellsIsVerified(t *testing.T) {
	body := randomBytes(2*mib, 1)
	for _, c := range []struct{ header, right, wrong string }{
		{"Repr-Digest", reprDigest(digest.FromBytes(body)), reprDigest(digest.FromString("x"))},
		{"Repr-Digest", reprDigest(digest.SHA512.FromBytes(body)), reprDigest(digest.SHA512.FromString("x"))},
		{"Digest", "SHA-256=" + strings.Trim(strings.TrimPrefix(reprDigest(digest.FromBytes(body)), "sha-256="), ":"), "SHA-256=LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="},
		{"Content-MD5", "", "rL0Y20zC+Fzt72VPzMSk2A=="},
	} {
		t.Run(c.header+" "+c.wrong, func(t *testing.T) {
			up := newFileServer(t)
			n := startFiles(t, t.TempDir(), []string{up.URL})
			if c.right != "" {
				up.put("/right", hosted{body: body, etag: `"v1"`, header: http.Header{c.header: {c.right}}})
				n.get(t, "/up/right").wantBytes(t, 200, body)
				n.settled(t, "right")
			}
			other := randomBytes(2*mib, 2)
			up.put("/wrong", hosted{body: other, etag: `"v2"`, header: http.Header{c.header: {c.wrong}}})
			n.get(t, "/up/wrong").wantCut(t)
			if n.settled(t, "wrong") != nil || n.stored(t, digest.FromBytes(other)) {
				t.Error("it was stored")
			}
		})
	}
}

func TestContentThatUpstreamTellsToBeHereIsNotFetchedAgain(t *testing.T) {
	up := newFileServer(t)
	body := randomBytes(8*mib, 1)
	told := http.Header{"Repr-Digest": {reprDigest(digest.FromBytes(body))}}
	up.put("/a", hosted{body: body, etag: `"v1"`, header: told})
	up.put("/b", hosted{body: body, etag: `"v2"`, header: told})
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, body)
	n.settled(t, "a")
	g := n.get(t, "/up/b")
	g.wantBytes(t, 200, body)
	g.wantHeaders(t, map[string]string{"ETag": `"v2"`, "Repr-Digest": told.Get("Repr-Digest")})
	if v, known := n.files.peek(nameKey{up: n.fileUpstreams["up"], repo: "b"}); !known || v.fill != nil {
		t.Error("it was fetched again")
	}
}

func TestFileIsVerifiedByWhatLiesBesideIt(t *testing.T) {
	body := randomBytes(2*mib, 1)
	right256, right512 := digest.FromBytes(body).Encoded(), digest.SHA512.FromBytes(body).Encoded()
	wrong := digest.FromString("x").Encoded()
	for _, c := range []struct {
		name, path, content string
		right               bool
	}{
		{"digest alone", "/d/a.sha256", right256 + "\n", true},
		{"as sha256sum writes it", "/d/a.sha256", right256 + "  a\n", true},
		{"with the path it had", "/d/a.sha256", right256 + " *out/a\n", true},
		{"by sha512", "/d/a.sha512", right512, true},
		{"in the folder's list", "/d/SHA256SUMS", wrong + "  b\n" + right256 + "  ./a\n", true},
		{"in a list without it", "/d/SHA256SUMS", wrong + "  b\n", true},
		{"none", "/d/other", "x", true},
		{"not a digest", "/d/a.sha256", "<html>", true},
		{"that disagrees", "/d/a.sha256", wrong, false},
		{"that disagrees in a list", "/d/SHA256SUMS", wrong + "  a\n", false},
		{"that disagrees by sha512", "/d/a.sha512", digest.SHA512.FromString("x").Encoded() + "  a\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newFileServer(t)
			up.put("/d/a", hosted{body: body, etag: `"v1"`})
			up.put(c.path, hosted{body: []byte(c.content), etag: `"s"`})
			n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) {
				c.Verify = []string{".sha256", ".sha512", "SHA256SUMS"}
			}))
			g := n.get(t, "/up/d/a")
			if c.right {
				g.wantBytes(t, 200, body)
				n.settled(t, "d/a")
				n.get(t, "/up"+c.path).wantBytes(t, 200, []byte(c.content))
				return
			}
			g.wantCut(t)
			if n.settled(t, "d/a") != nil || n.stored(t, digest.FromBytes(body)) {
				t.Error("it was stored")
			}
		})
	}
}

func TestFileIsNotPassedOnUnverifiedWhileItsSidecarCannotBeHad(t *testing.T) {
	up := newFileServer(t)
	up.file("/a", mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) { c.Verify = []string{".sha256"} }))
	if g := n.get(t, "/up/a"); g.status != 503 {
		t.Errorf("got %v; want 503", g)
	}
}

// RFC 9111, section 4.2.3: what caches before this node had it for counts, also after a
// restart.
func TestAgeOfAFileCountsWhatCachesUpstreamHadItFor(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", mib, 1, "Cache-Control", "max-age=4000", "Age", "1000")
	dir := t.TempDir()
	n := startFiles(t, dir, []string{up.URL})
	n.get(t, "/up/a").wantHeaders(t, map[string]string{"Age": "1000"})
	n.settled(t, "a")
	for range 2 {
		g := n.get(t, "/up/a")
		g.wantBytes(t, http.StatusOK, f.body)
		if age, err := strconv.Atoi(g.header.Get("Age")); err != nil || age < 1000 || age > 1100 || !strings.Contains(g.header.Get("Cache-Status"), "hit; ttl=29") {
			t.Errorf("Age is %q, Cache-Status %q; want 1000 s of age, and 3000 s left", g.header.Get("Age"), g.header.Get("Cache-Status"))
		}
		n.close()
		n = startFiles(t, dir, []string{up.URL})
	}
	up.wantLog(t, "GET /a")
}
