package proxy

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestFileGoesOnAtTheByteWhereUpstreamBrokeWithIfRange(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*hosted)
		ifRange string
	}{
		"by a strong tag":  {func(*hosted) {}, `If-Range:"v1"`},
		"by a strong date": {func(f *hosted) { f.etag, f.modified = "", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }, "If-Range:Fri, 02 Jan 2026 03:04:05 GMT"},
	} {
		t.Run(name, func(t *testing.T) {
			up := newFileServer(t)
			f := up.file("/a", 4*mib, 1)
			c.change(&f)
			up.put("/a", f)
			up.do(func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 1 {
					f.breakAt(w, 2*mib)
				}
				return false
			})
			n := startFiles(t, t.TempDir(), []string{up.URL})
			n.get(t, "/up/a").wantBytes(t, 200, f.body)
			if log := up.log(); len(log) != 2 || !strings.HasSuffix(log[1], c.ifRange) || !strings.HasPrefix(log[1], "GET /a Range:bytes=") {
				t.Errorf("upstream was asked %q", log)
			}
		})
	}
}

func TestFileThatUpstreamReplacesMidDownloadIsCutAndNeverMixed(t *testing.T) {
	for name, change := range map[string]func(old, replaced *hosted){
		"told by the tag": func(_, _ *hosted) {},
		"told by the date": func(a, b *hosted) {
			a.etag, b.etag = "", ""
			a.modified, b.modified = time.Unix(1e9, 0), time.Unix(1.1e9, 0)
		},
		"with a weak tag":       func(a, b *hosted) { a.etag, b.etag = `W/"1"`, `W/"1"` },
		"with a fresh date":     func(a, b *hosted) { a.etag, b.etag = "", ""; a.modified, b.modified = time.Now(), time.Now() },
		"without any validator": func(a, b *hosted) { a.etag, b.etag = "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			up := newFileServer(t)
			old, replaced := up.file("/a", 4*mib, 1), up.file("/a", 4*mib, 2)
			change(&old, &replaced)
			up.put("/a", replaced)
			gate := make(chan struct{})
			up.do(func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 1 {
					old.describe(w.Header())
					if !old.modified.IsZero() {
						w.Header().Set("Last-Modified", old.modified.UTC().Format(http.TimeFormat))
					}
					w.Header().Set("Content-Length", "4194304")
					_, _ = w.Write(old.body[:2*mib])
					_ = http.NewResponseController(w).Flush()
					<-gate
					panic(http.ErrAbortHandler)
				}
				return false
			})
			n := startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) { c.StallTimeout = time.Minute }))
			resp := n.open(t, "/up/a")
			defer resp.Body.Close()
			sent := make([]byte, mib)
			if _, err := io.ReadFull(resp.Body, sent); err != nil {
				t.Fatal(err)
			}
			close(gate)
			rest, err := io.ReadAll(resp.Body)
			if err == nil {
				t.Error("the download was completed")
			}
			if sent = append(sent, rest...); !bytes.Equal(sent, old.body[:len(sent)]) {
				t.Error("the client was sent a mix")
			}
			n.settled(t, "a")
			n.get(t, "/up/a").wantBytes(t, 200, replaced.body)
		})
	}
}

func TestServerThatAnswersARangeWithTheWholeOfAnotherVersionIsFoundOut(t *testing.T) {
	up := newFileServer(t)
	old, replaced := up.file("/a", 4*mib, 1), up.file("/a", 4*mib, 2)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			old.breakAt(w, 2*mib)
		}
		r.Header.Del("Range") // as a server that knows no ranges
		return false
	})
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantCut(t)
	n.settled(t, "a")
	n.get(t, "/up/a").wantBytes(t, 200, replaced.body)
}

func TestNextURLGoesOnOnlyWithTheSameVersion(t *testing.T) {
	first, other, same := newFileServer(t), newFileServer(t), newFileServer(t)
	f := first.file("/a", 4*mib, 1)
	other.file("/a", 4*mib, 2)
	same.put("/a", f)
	first.do(func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			f.breakAt(w, 2*mib)
		}
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	n := startFiles(t, t.TempDir(), []string{first.URL, other.URL, same.URL})
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
}

func TestLyingContentLengthOfAFile(t *testing.T) {
	t.Run("too long", func(t *testing.T) {
		up := newFileServer(t)
		f := up.file("/a", mib, 1)
		up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Header.Get("Range") != "" {
				return false
			}
			f.describe(w.Header())
			w.Header().Set("Content-Length", "1050000")
			_, _ = w.Write(f.body)
			return true
		})
		n := startFiles(t, t.TempDir(), []string{up.URL})
		if g := n.get(t, "/up/a"); g.err == nil && g.status == 200 {
			t.Errorf("got %v; want a transfer that is cut", g)
		}
		if n.stored(t, digest.FromBytes(f.body)) {
			t.Error("it was stored")
		}
	})
	t.Run("too short, which a digest tells", func(t *testing.T) {
		up := newFileServer(t)
		f := up.file("/a", mib, 1, "Repr-Digest", reprDigest(digest.FromBytes(randomBytes(mib, 1))))
		up.do(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			f.describe(w.Header())
			w.Header().Set("Content-Length", "1000000")
			_, _ = w.Write(f.body[:1000000])
			return true
		})
		n := startFiles(t, t.TempDir(), []string{up.URL})
		n.get(t, "/up/a").wantCut(t)
		if n.stored(t, digest.FromBytes(f.body[:1000000])) {
			t.Error("it was stored")
		}
	})
}

func TestFileRedirectedOffTheListIsRefused(t *testing.T) {
	up, other := newFileServer(t), newFileServer(t)
	f := other.file("/elsewhere", mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		http.Redirect(w, r, other.URL+"/elsewhere", http.StatusFound)
		return true
	})
	n := startFiles(t, t.TempDir(), []string{up.URL})
	if g := n.get(t, "/up/a"); g.status != 502 {
		t.Errorf("got %v; want 502", g)
	}
	other.wantLog(t)
	n = startFiles(t, t.TempDir(), []string{up.URL}, withFiles(func(c *FileUpstreamConfig) {
		c.RedirectHosts = []string{strings.TrimPrefix(other.URL, "http://")}
	}))
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
}

func TestAnswersOfAFileServerReachTheClientForWhatTheyAre(t *testing.T) {
	status := func(code int, header ...string) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	for name, c := range map[string]struct {
		act        func(http.ResponseWriter, *http.Request, int) bool
		status     int
		retryAfter string
	}{
		"404":                            {status(404), 404, ""},
		"410":                            {status(410), 404, ""},
		"403":                            {status(403), 403, ""},
		"401":                            {status(401, "WWW-Authenticate", `Basic realm="x"`), 403, ""},
		"429":                            {status(429, "Retry-After", "7"), 429, "7"},
		"500":                            {status(500), 503, ""},
		"503":                            {status(503, "Retry-After", "7"), 503, "7"},
		"400":                            {status(400), 502, ""},
		"a part where all was asked for": {status(206, "Content-Range", "bytes 0-0/9"), 502, ""},
		"redirect loop": {func(w http.ResponseWriter, r *http.Request, _ int) bool {
			http.Redirect(w, r, "/a", http.StatusFound)
			return true
		}, 502, ""},
	} {
		t.Run(name, func(t *testing.T) {
			up := newFileServer(t)
			up.do(c.act)
			n := startFiles(t, t.TempDir(), []string{up.URL})
			for _, g := range []got{n.get(t, "/up/a"), n.get(t, "/up/a"), n.head(t, "/up/a")} {
				if g.err != nil || g.status != c.status || c.retryAfter != "" && g.header.Get("Retry-After") == "" {
					t.Errorf("got %v; want status %d", g, c.status)
				}
			}
		})
	}
}

func TestFileWhoseServerStallsIsBrokenOffAndResumed(t *testing.T) {
	up := newFileServer(t)
	f := up.file("/a", 2*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 1 {
			return false
		}
		f.describe(w.Header())
		w.Header().Set("Content-Length", "2097152")
		_, _ = w.Write(f.body[:mib])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	n := startFiles(t, t.TempDir(), []string{up.URL})
	n.get(t, "/up/a").wantBytes(t, 200, f.body)
	up.wantLog(t, "GET /a", "GET /a Range:bytes=1048576-")
}
