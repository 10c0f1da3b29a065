package proxy

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// withPrivate adds a private upstream, "private.test".
func withPrivate(url string) nodeOption {
	return func(c *Config) {
		up := c.Upstreams[0]
		up.Config, up.Private = upstream.Config{
			Name: "private.test", URLs: []string{url},
			ConnectTimeout: 2 * time.Second, ResponseTimeout: 5 * time.Second, StallTimeout: time.Minute,
		}, true
		c.Upstreams = append(c.Upstreams, up)
	}
}

// secret is content of the repository team/app of a private upstream.
type secret struct {
	upstream *script
	body     []byte
	digest   digest.Digest
}

func newSecret(t *testing.T, size int) secret {
	t.Helper()
	s := secret{upstream: newScript(t), body: randomBytes(size, 7)}
	s.digest = digest.FromBytes(s.body)
	s.upstream.put(s.at("team/app"), served{s.body, "application/octet-stream", s.digest})
	return s
}

func (s secret) at(repo string) string { return "/v2/" + repo + "/blobs/" + string(s.digest) }

// path is that of the content at a node.
func (s secret) path(upstream, repo string) string { return s.at(upstream + "/" + repo) }

// wantHidden checks that none of the content is had, in whichever way.
func (s secret) wantHidden(t *testing.T, n *testNode, path string) {
	t.Helper()
	n.get(t, path).wantError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	n.get(t, path, "Range", "bytes=0-9").wantError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	n.get(t, path, "Range", "bytes=-9").wantError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	n.get(t, path, "If-None-Match", `"`+string(s.digest)+`"`).wantError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	if g := n.head(t, path); g.status != http.StatusNotFound || g.header.Get("Docker-Content-Digest") != "" {
		t.Errorf("HEAD %s: %v; want 404", path, g)
	}
}

// CVE-2024-39897, CVE-2026-35172, CVE-2022-46463: content that is in the store, and
// whose digest a manifest of one's own may name.
func TestPrivateBlobIsServedOnlyThroughARepositoryThatHoldsIt(t *testing.T) {
	for _, size := range []int{1000, 2 * mib} { // in memory, on the disk
		s, public := newSecret(t, size), newScript(t)
		for _, up := range []*script{public, s.upstream} {
			up.manifest("evil/app", "1", `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[`+
				`{"digest":"`+string(s.digest)+`","size":`+itoa(size)+`,"urls":["https://example.org/"]}]}`)
		}
		dir := t.TempDir()
		n := startNode(t, dir, []string{public.URL}, withPrivate(s.upstream.URL))
		hidden := func() {
			t.Helper()
			for _, path := range []string{
				s.path("docker.io", "evil/app"), s.path("docker.io", "app"), s.at("evil/app"),
				s.path("private.test", "evil/app"), s.path("private.test", "team/other"), s.at("team/app") + "?ns=docker.io",
			} {
				s.wantHidden(t, n, path)
			}
		}
		for _, upstream := range []string{"docker.io", "private.test"} {
			if g := n.get(t, "/v2/"+upstream+"/evil/app/manifests/1"); g.status != 200 {
				t.Fatal(g)
			}
		}
		hidden()
		n.get(t, s.path("private.test", "team/app")).wantBytes(t, 200, s.body)
		if !n.stored(t, s.digest) {
			t.Fatal("it was not stored")
		}
		hidden()
		n.close()
		n = startNode(t, dir, []string{public.URL}, withPrivate(s.upstream.URL))
		hidden()
		n.get(t, s.path("private.test", "team/app")).wantBytes(t, 200, s.body)
	}
}

// GHSA-4j4m-fchf-gr9r: a fill in flight is the store of what is yet to come.
func TestFillOfAPrivateBlobIsNotJoinedFromElsewhere(t *testing.T) {
	s, public, g := newSecret(t, 2*mib), newScript(t), newGate()
	s.upstream.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Method == http.MethodHead || r.URL.Path != s.at("team/app") {
			return false
		}
		g.hold(w, r, s.body, mib)
		return true
	})
	n := startNode(t, t.TempDir(), []string{public.URL}, withPrivate(s.upstream.URL))
	first := n.open(t, s.path("private.test", "team/app"))
	s.wantHidden(t, n, s.path("docker.io", "evil/app"))
	s.wantHidden(t, n, s.path("private.test", "team/other"))
	g.open()
	var body bytes.Buffer
	if _, err := body.ReadFrom(first.Body); err != nil || !bytes.Equal(body.Bytes(), s.body) {
		t.Errorf("the reader of the fill got %d bytes, %v", body.Len(), err)
	}
}

// GHSA-qg67-7m6v-qg25: what is kept at a distance, and where clients are sent for it.
func TestPrivateBlobInTheSharedStoreIsHidden(t *testing.T) {
	for name, redirect := range map[string]time.Duration{"sent": 0, "redirected": time.Minute} {
		t.Run(name, func(t *testing.T) {
			s, public, remote := newSecret(t, 2*mib), newScript(t), newFakeRemote(t)
			if err := remote.Dir.Put(t.Context(), s.digest, int64(len(s.body)), bytes.NewReader(s.body)); err != nil {
				t.Fatal(err)
			}
			n := startNode(t, t.TempDir(), []string{public.URL}, withPrivate(s.upstream.URL), withRemote(remote), func(c *Config) { c.RedirectExpiry = redirect })
			s.wantHidden(t, n, s.path("docker.io", "evil/app"))
			s.wantHidden(t, n, s.path("private.test", "team/other"))
			if redirect == 0 {
				n.get(t, s.path("private.test", "team/app")).wantBytes(t, 200, s.body)
			} else if resp := n.open(t, s.path("private.test", "team/app")); resp.StatusCode != http.StatusTemporaryRedirect {
				t.Errorf("who may have it gets %s", resp.Status)
			}
		})
	}
}

// CVE-2026-41888: manifests are private, too, by digest and by what a tag is said to
// lead to.
func TestPrivateManifestIsServedOnlyFromItsRepository(t *testing.T) {
	public, private := newScript(t), newScript(t)
	const body = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"secret"}}`
	d := private.manifest("team/app", "1", body)
	public.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Method != http.MethodHead || !strings.HasSuffix(r.URL.Path, "/manifests/stolen") {
			return false
		}
		w.Header().Set("Docker-Content-Digest", string(d))
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Content-Length", itoa(len(body)))
		return true
	})
	n := startNode(t, t.TempDir(), []string{public.URL}, withPrivate(private.URL))
	n.get(t, "/v2/private.test/team/app/manifests/1").wantBytes(t, 200, []byte(body))
	for _, path := range []string{
		"/v2/docker.io/evil/app/manifests/" + string(d), "/v2/private.test/team/other/manifests/" + string(d),
		"/v2/docker.io/evil/app/blobs/" + string(d), "/v2/docker.io/team/app/manifests/1",
	} {
		if g := n.get(t, path); g.status != http.StatusNotFound || bytes.Contains(g.body, []byte("secret")) {
			t.Errorf("GET %s: %v", path, g)
		}
		if g := n.head(t, path); g.status != http.StatusNotFound {
			t.Errorf("HEAD %s: %v", path, g)
		}
	}
	n.head(t, "/v2/docker.io/evil/app/manifests/stolen") // the name is known to lead there
	if g := n.get(t, "/v2/docker.io/evil/app/manifests/stolen"); g.status != http.StatusNotFound {
		t.Errorf("a tag whose upstream only says that it leads there: %v", g)
	}
	if g := n.get(t, "/v2/docker.io/evil/app/referrers/"+string(d)); g.status != 200 || bytes.Contains(g.body, []byte("secret")) {
		t.Errorf("referrers: %v", g)
	}
}

func TestUpstreamIsAskedOnceWhetherARepositoryHoldsABlobThatIsThere(t *testing.T) {
	s, public, dir := newSecret(t, 2*mib), newScript(t), t.TempDir()
	public.put(s.at("copy/app"), served{s.body, "application/octet-stream", s.digest})
	n := startNode(t, dir, []string{public.URL}, withPrivate(s.upstream.URL))
	n.get(t, s.path("private.test", "team/app")).wantBytes(t, 200, s.body)
	if got := s.upstream.log(); !slices.Equal(got, []string{"GET " + s.at("team/app")}) {
		t.Errorf("upstream was asked %q: what it sends needs no HEAD", got)
	}
	for range 3 {
		n.get(t, s.path("docker.io", "copy/app")).wantBytes(t, 200, s.body)
	}
	if got := public.log(); !slices.Equal(got, []string{"HEAD " + s.at("copy/app")}) {
		t.Errorf("upstream was asked %q; want one HEAD, as the bytes are there", got)
	}
	n.close()
	public.Close()
	s.upstream.Close()
	n = startNode(t, dir, []string{public.URL}, withPrivate(s.upstream.URL))
	n.get(t, s.path("docker.io", "copy/app")).wantBytes(t, 200, s.body)
	n.get(t, s.path("private.test", "team/app")).wantBytes(t, 200, s.body)
	if g := n.get(t, s.path("private.test", "team/other")); g.status != http.StatusServiceUnavailable {
		t.Errorf("with upstream down, nobody can say whether another repository holds it: %v", g)
	}
}

func TestServerThatHasAnAnswerForEveryPathVouchesForNothing(t *testing.T) {
	s, public := newSecret(t, 2*mib), newScript(t)
	public.do(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		_, _ = w.Write([]byte("<html>welcome</html>"))
		return true
	})
	n := startNode(t, t.TempDir(), []string{public.URL}, withPrivate(s.upstream.URL))
	evil := s.path("docker.io", "evil/app")
	if g := n.get(t, evil); g.status == 200 && g.err == nil { // as if it had it
		t.Errorf("the answer for every path as a blob: %v", g)
	}
	n.get(t, s.path("private.test", "team/app")).wantBytes(t, 200, s.body)
	n.get(t, evil).wantError(t, http.StatusNotFound, "BLOB_UNKNOWN") // by the fill that is ending, or from the store
	if !n.stored(t, s.digest) {
		t.Fatal("it was not stored")
	}
	s.wantHidden(t, n, evil)
}

func TestPrivateContentIsNotHadAsAFile(t *testing.T) {
	s, files := newSecret(t, 2*mib), newFileServer(t)
	n := startFiles(t, t.TempDir(), []string{files.URL}, withPrivate(s.upstream.URL), func(c *Config) { c.DefaultFiles = "up" })
	api := registry.NewHandler(registry.Config{Backend: n.Node})
	byName := n.Server.Config.Handler
	n.Server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if registry.IsAPI(r.URL.Path) {
			api.ServeHTTP(w, r)
			return
		}
		byName.ServeHTTP(w, r)
	})
	n.get(t, s.path("private.test", "team/app")).wantBytes(t, 200, s.body)
	if !n.stored(t, s.digest) {
		t.Fatal("it was not stored")
	}
	for _, path := range []string{"/blobs/" + string(s.digest), "/up/blobs/" + string(s.digest)} {
		for _, header := range [][]string{nil, {"Range", "bytes=0-9"}} {
			if g := n.get(t, path, header...); g.status != http.StatusNotFound {
				t.Errorf("%s: %v", path, g)
			}
		}
		if g := n.head(t, path); g.status != http.StatusNotFound {
			t.Errorf("HEAD %s: %v", path, g)
		}
	}
	// A server that only says that its file has that digest is not believed either.
	other := files.file("/stolen", len(s.body), 9, "Repr-Digest", reprDigest(s.digest))
	if g := n.get(t, "/up/stolen"); bytes.Equal(g.body, s.body) {
		t.Error("a file server was given the content of a private repository by naming its digest")
	} else if bytes.Equal(g.body, other.body) && g.err == nil {
		t.Errorf("a file that is not what its digest says: %v", g)
	}
	// Nor what a file server that is asked by digest really has is kept from anybody.
	files.file("/blobs/"+string(digest.FromBytes(other.body)), len(other.body), 9)
	n.get(t, "/blobs/"+string(digest.FromBytes(other.body))).wantBytes(t, 200, other.body)
	n.get(t, "/up/blobs/"+string(digest.FromBytes(other.body))).wantBytes(t, 200, other.body)
}

func itoa(n int) string { return strconv.Itoa(n) }
