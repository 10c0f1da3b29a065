package proxy

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entrepot/promote/ledger"
	"entrepot/proxy/peers"
	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// deadline is that of peers under test: no machine is so busy that one that
	// lives misses it.
	deadline = 20 * time.Second
	// short is for peers that are to miss it.
	short = time.Second
)

const regionSecret = "a secret of the region under test"

// startRegion starts nodes with one upstream that are each other's peers, and waits
// until all know each other. Their ids are node-0, node-1 and so on.
func startRegion(t *testing.T, count int, up *script, options ...nodeOption) []*testNode {
	t.Helper()
	var servers []*httptest.Server
	var urls []string
	for range count {
		s := httptest.NewUnstartedServer(nil)
		servers, urls = append(servers, s), append(urls, "http://"+s.Listener.Addr().String())
	}
	var nodes []*testNode
	for i, s := range servers {
		nodes = append(nodes, startNodeOn(t, s, t.TempDir(), 0, []string{up.URL}, append([]nodeOption{patient, withPeers(i, urls...)}, options...)...))
	}
	for _, n := range nodes {
		n.awaitPeers(t, count-1)
	}
	return nodes
}

func withPeers(i int, urls ...string) nodeOption {
	return func(c *Config) {
		c.ID = fmt.Sprint("node-", i)
		c.Peers = &peers.Config{URLs: urls, Secret: regionSecret, Deadline: deadline, Interval: 50 * time.Millisecond}
	}
}

// hurried has peers miss the deadline soon.
func hurried(c *Config) { c.Peers.Deadline = short }

// awaitPeers waits until the node has so many peers that are up.
func (n *testNode) awaitPeers(t *testing.T, count int) {
	t.Helper()
	waitFor(t, fmt.Sprint(count, " peers to be up"), func() bool { return n.region.group.Count(true) == count })
}

// inOrder sorts nodes of a region by whose turn it is to bring content.
func inOrder(nodes []*testNode, d digest.Digest) []*testNode {
	before := func(n *testNode) int {
		b, _ := n.region.group.Order(string(d))
		return len(b)
	}
	return slices.SortedFunc(slices.Values(nodes), func(a, b *testNode) int { return cmp.Compare(before(a), before(b)) })
}

// sentOf counts the bytes that an upstream sends.
type sentOf struct{ bytes atomic.Int64 }

func (s *sentOf) count(up *script) {
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		up.mu.Lock()
		c := up.content[r.URL.Path]
		up.mu.Unlock()
		up.serve(countingResponse{w, s}, r, c)
		return true
	})
}

type countingResponse struct {
	http.ResponseWriter
	sent *sentOf
}

func (w countingResponse) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.sent.bytes.Add(int64(n))
	return n, err
}

// getAll has several clients of each node ask for a blob at once.
func getAll(t *testing.T, nodes []*testNode, clients int, path string, want []byte) {
	t.Helper()
	var running sync.WaitGroup
	for _, n := range nodes {
		for range clients {
			running.Go(func() {
				if g := n.get(t, path); g.err != nil || g.status != http.StatusOK || !bytes.Equal(g.body, want) {
					t.Errorf("got %v; want the blob", g)
				}
			})
		}
	}
	running.Wait()
}

func TestRegionAsksUpstreamOnce(t *testing.T) {
	for name, options := range map[string][]nodeOption{
		"with a shared store":         {withRemote(newFakeRemote(t))},
		"each with its own directory": nil,
	} {
		t.Run(name, func(t *testing.T) {
			up := newScript(t)
			nodes := startRegion(t, 3, up, options...)
			for seed := range uint64(4) {
				d, body := up.blob(3*mib, seed+1)
				var sent sentOf
				sent.count(up)
				getAll(t, nodes, 4, blobPath(d), body)
				if n := sent.bytes.Load(); n != int64(len(body)) {
					t.Errorf("upstream sent %d bytes in %q; want %d", n, up.log(), len(body))
				}
				for _, n := range nodes {
					if !n.stored(t, d) {
						t.Error("a node did not keep the blob")
					}
				}
			}
		})
	}
}

func TestPeerIsNamedWhereTheContentCameFromIt(t *testing.T) {
	up := newScript(t)
	nodes := startRegion(t, 2, up)
	d, body := up.blob(3*mib, 1)
	nodes = inOrder(nodes, d)
	for i, want := range []string{"entrepot; fwd=uri-miss; fwd-status=200; stored; detail=peer", "entrepot; hit"} {
		g := nodes[1].get(t, blobPath(d))
		g.wantBytes(t, 200, body)
		if got := g.header.Get("Cache-Status"); got != want {
			t.Errorf("request %d: Cache-Status %q; want %q", i, got, want)
		}
		nodes[1].stored(t, d)
	}
}

func TestContentPassesAPeerWhileItArrives(t *testing.T) {
	up, g := newScript(t), newGate()
	nodes := startRegion(t, 2, up)
	d, body := up.blob(4*mib, 1)
	nodes = inOrder(nodes, d)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		g.hold(w, r, body, 2*mib)
		return true
	})
	resp := nodes[1].open(t, blobPath(d))
	defer resp.Body.Close()
	first := make([]byte, mib)
	if _, err := io.ReadFull(resp.Body, first); err != nil || !bytes.Equal(first, body[:mib]) {
		t.Fatalf("the first MiB while upstream still sends: %v", err)
	}
	g.open()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(rest, body[mib:]) {
		t.Fatalf("the rest: %d bytes, %v", len(rest), err)
	}
}

func TestWhereTheOwnerIsDownTheNextAsksUpstreamForAll(t *testing.T) {
	up := newScript(t)
	nodes := startRegion(t, 3, up)
	d, body := up.blob(3*mib, 1)
	nodes = inOrder(nodes, d)
	nodes[0].close()
	getAll(t, nodes[1:], 4, blobPath(d), body)
	if asked := up.gets(); asked != 1 {
		t.Errorf("upstream was asked %q; want once by those that are left", up.log())
	}
}

// blackHole takes connections and says nothing.
func blackHole(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return "http://" + l.Addr().String()
}

func TestPeerThatNeverAnsweredIsNotAskedForContent(t *testing.T) {
	up := newScript(t)
	n := startNode(t, t.TempDir(), []string{up.URL}, withPeers(0, blackHole(t), "http://127.0.0.1:1"))
	d, body := up.blob(3*mib, 1)
	start := time.Now()
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if took := time.Since(start); took > deadline {
		t.Errorf("it took %v", took)
	}
}

// relay passes connections on, until it is told to hold what they carry.
type relay struct {
	net.Listener
	target string
	mu     sync.Mutex
	held   bool
	wake   *sync.Cond
	conns  []net.Conn
}

func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, target: target}
	r.wake = sync.NewCond(&r.mu)
	go r.accept()
	t.Cleanup(func() {
		_ = l.Close()
		r.hold(false)
		r.cut()
	})
	return r
}

func (r *relay) accept() {
	for {
		from, err := r.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = from.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, from, to)
		r.mu.Unlock()
		go r.pass(from, to)
		go r.pass(to, from)
	}
}

func (r *relay) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		for r.held {
			r.wake.Wait()
		}
		r.mu.Unlock()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// hold has everything stop, as a process that is stopped does, or go on.
func (r *relay) hold(held bool) {
	r.mu.Lock()
	r.held = held
	r.mu.Unlock()
	r.wake.Broadcast()
}

// cut closes every connection.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// turns says whose turn it is to bring content of two nodes, by their numbers.
func turns(d digest.Digest) (first, second int) {
	if peers.Weight(string(d), "node-0") > peers.Weight(string(d), "node-1") {
		return 0, 1
	}
	return 1, 0
}

// startPair starts two nodes, the first of which brings the content, while the second
// reaches it through a relay.
func startPair(t *testing.T, up *script, d digest.Digest, options ...nodeOption) (owner, other *testNode, between *relay) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	between = startRelay(t, s.Listener.Addr().String())
	first, second := turns(d)
	owner = startNodeOn(t, s, t.TempDir(), 0, []string{up.URL}, append([]nodeOption{patient, withPeers(first)}, options...)...)
	other = startNode(t, t.TempDir(), []string{up.URL}, append([]nodeOption{patient, withPeers(second, "http://"+between.Addr().String())}, options...)...)
	other.awaitPeers(t, 1)
	return owner, other, between
}

func TestPeerThatStopsInMidBlobCostsOneDeadline(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(4*mib, 1)
	owner, other, between := startPair(t, up, d, hurried)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			g.hold(w, r, body, 2*mib)
		}
		return n == 1
	})
	defer g.open()
	resp := other.open(t, blobPath(d))
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, mib); err != nil {
		t.Fatal(err)
	}
	between.hold(true)
	start := time.Now()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(rest, body[mib:]) {
		t.Fatalf("the rest: %d bytes, %v", len(rest), err)
	}
	if took := time.Since(start); took > 5*short {
		t.Errorf("it took %v", took)
	}
	var from int64
	log := up.log()
	if len(log) == 2 {
		_, _ = fmt.Sscanf(log[1], "GET "+blobPath(d)+" bytes=%d-", &from)
	}
	if from < mib {
		t.Errorf("upstream was asked %q; want the blob, and what was missing of it", log)
	}
	between.hold(false)
	g.open()
	owner.get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestPeerThatWaitsForUpstreamIsWaitedFor(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(4*mib, 1)
	_, other, _ := startPair(t, up, d, hurried)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		g.hold(w, r, body, 2*mib)
		return true
	})
	resp := other.open(t, blobPath(d))
	defer resp.Body.Close()
	asked := other.region.group.Count(true)
	done := make(chan error, 1)
	go func() {
		got, err := io.ReadAll(resp.Body)
		if err == nil && !bytes.Equal(got, body) {
			err = fmt.Errorf("%d wrong bytes", len(got))
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("the blob came to its end before upstream sent it: %v", err)
	case <-time.After(3 * short):
	}
	g.open()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if log := up.log(); len(log) != 1 || asked != 1 {
		t.Errorf("upstream was asked %q; want once", log)
	}
}

func TestOwnerThatDiesInMidBlobIsFollowedByTheNextAtTheByteWhereItWas(t *testing.T) {
	up, g := newScript(t), newGate()
	nodes := startRegion(t, 3, up)
	d, body := up.blob(8*mib, 1)
	nodes = inOrder(nodes, d)
	up.do(func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			g.hold(w, r, body, 4*mib)
		}
		return n == 1
	})
	defer g.open()
	var responses []*http.Response
	for _, n := range nodes[1:] {
		resp := n.open(t, blobPath(d))
		defer resp.Body.Close()
		responses = append(responses, resp)
	}
	for _, n := range nodes[1:] {
		waitFor(t, "a node to have what the owner has", func() bool { return n.progress(t.Context(), d) >= 4*mib-2*tailSize })
	}
	_ = nodes[0].Listener.Close()
	nodes[0].CloseClientConnections()
	for _, resp := range responses {
		if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	log := up.log()
	var from int64
	if len(log) == 2 {
		_, _ = fmt.Sscanf(log[1], "GET "+blobPath(d)+" bytes=%d-", &from)
	}
	if from < 3*mib {
		t.Errorf("upstream was asked %q; want the blob, and once for what was missing of it", log)
	}
}

func TestNodeThatComesBackTakesWhatItsDeputyHasBegun(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(4*mib, 1)
	owns, follows := turns(d)
	s := httptest.NewUnstartedServer(nil)
	deputy := startNode(t, t.TempDir(), []string{up.URL}, patient, withPeers(follows, "http://"+s.Listener.Addr().String()))
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		g.hold(w, r, body, 2*mib)
		return true
	})
	defer g.open()
	first := deputy.open(t, blobPath(d))
	defer first.Body.Close()
	owner := startNodeOn(t, s, t.TempDir(), 0, []string{up.URL}, patient, withPeers(owns, deputy.Server.URL))
	owner.awaitPeers(t, 1)
	deputy.awaitPeers(t, 1)
	second := owner.open(t, blobPath(d))
	defer second.Body.Close()
	g.open()
	for _, resp := range []*http.Response{first, second} {
		if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if log := up.log(); len(log) != 1 {
		t.Errorf("upstream was asked %q; want once", log)
	}
}

func TestWrongBytesOfAPeerAreMadeGood(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(40<<10, 1)
	nodes := inOrder(startRegion(t, 2, up), d)
	// The owner has the blob in memory, and wrong.
	wrong := bytes.Clone(body)
	wrong[100] ^= 1
	nodes[0].memory.Add(d, wrong)
	nodes[1].get(t, blobPath(d)).wantBytes(t, 200, body)
	if log := up.log(); len(log) != 1 {
		t.Errorf("upstream was asked %q; want once", log)
	}
	if nodes[1].region.group.Count(true) != 0 && len(nodes[1].region.doubts.Keys()) != 1 {
		t.Error("the peer is believed as before")
	}
}

func TestRequestThatPassesANodeTwiceIsStopped(t *testing.T) {
	up := newScript(t)
	n := startNode(t, t.TempDir(), []string{up.URL}, withPeers(0))
	d, body := up.blob(1000, 1)
	n.get(t, blobPath(d), "CDN-Loop", "entrepot; id=node-0").wantError(t, http.StatusLoopDetected, "UNAVAILABLE")
	n.get(t, blobPath(d), "CDN-Loop", "entrepot; id=node-1, other; id=node-0").wantBytes(t, 200, body)
}

func TestNodesThatAreEachOthersUpstreamsAnswerAtOnce(t *testing.T) {
	one, two := httptest.NewUnstartedServer(nil), httptest.NewUnstartedServer(nil)
	url := func(s *httptest.Server) []string { return []string{"http://" + s.Listener.Addr().String()} }
	slow := func(c *Config) { c.Upstreams[0].ResponseTimeout = time.Minute }
	nodes := []*testNode{
		startNodeOn(t, one, t.TempDir(), 0, url(two), slow),
		startNodeOn(t, two, t.TempDir(), 0, url(one), slow),
	}
	itself := httptest.NewUnstartedServer(nil)
	nodes = append(nodes, startNodeOn(t, itself, t.TempDir(), 0, url(itself), slow))
	start := time.Now()
	for _, n := range nodes {
		for _, path := range []string{blobPath(digest.FromString("a")), "/v2/app/manifests/v1", "/v2/app/tags/list"} {
			if g := n.get(t, path); g.err != nil || g.status < 500 {
				t.Errorf("%s: %v", path, g)
			}
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAFileUpstreamThatIsTheNodeItselfAnswersAtOnce(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	files := func(c *Config) {
		for name, path := range map[string]string{"deeper": "/deeper/a", "same": "/same"} {
			c.Files = append(c.Files, FileUpstreamConfig{Config: upstream.Config{Name: name, URLs: []string{"http://" + s.Listener.Addr().String() + path}, ResponseTimeout: time.Minute}})
		}
	}
	n := startNodeOn(t, s, t.TempDir(), 0, []string{"http://127.0.0.1:1"}, files)
	s.Config.Handler = n.Node.Handler(registry.NewFileHandler(n.Node, registry.Config{}))
	start := time.Now()
	for _, path := range []string{"/deeper/x", "/same/x"} {
		if g := n.get(t, path); g.err != nil || g.status < 500 {
			t.Errorf("%s: %v", path, g)
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAForgedLoopKeepsNobodyElseFromTheUpstream(t *testing.T) {
	up := newScript(t)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		looped := strings.Count(r.Header.Get("CDN-Loop"), "id=") > 16
		if looped {
			w.WriteHeader(http.StatusLoopDetected)
		}
		return looped
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, withPeers(0))
	forged := strings.Repeat("entrepot; id=a, ", 16)
	for i := range 8 {
		d, _ := up.blob(1000, uint64(i+1))
		if g := n.get(t, blobPath(d), "CDN-Loop", forged); g.status < 500 {
			t.Errorf("a request that seems to have passed 16 nodes: %v", g)
		}
	}
	d, body := up.blob(1000, 100)
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestClientIsNoPeerWhateverItSends(t *testing.T) {
	up := newScript(t)
	n := startNode(t, t.TempDir(), []string{up.URL}, withPeers(0))
	d, body := up.blob(1000, 1)
	n.get(t, blobPath(d), "Cache-Control", "only-if-cached", "CDN-Loop", "entrepot; id=node-1").wantBytes(t, 200, body)
	for _, forged := range []string{
		"Entrepot-Peer 1 2", fmt.Sprintf("Entrepot-Peer %d %s", time.Now().Unix(), strings.Repeat("0", 64)),
	} {
		n.get(t, blobPath(d), "Authorization", forged).wantError(t, http.StatusForbidden, "DENIED")
		if g := n.get(t, "/_peer", "Authorization", forged); g.status != http.StatusForbidden {
			t.Errorf("a greeting signed %q: %v", forged, g)
		}
	}
	if g := n.get(t, "/_peer"); g.status != http.StatusNotFound {
		t.Errorf("a client's greeting: %v", g)
	}
}

func TestPeerWithAnotherSecretIsNone(t *testing.T) {
	up := newScript(t)
	n := startNode(t, t.TempDir(), []string{up.URL}, withPeers(0))
	other := startNode(t, t.TempDir(), []string{up.URL}, withPeers(1, n.Server.URL), func(c *Config) { c.Peers.Secret = "another" })
	d, body := up.blob(1000, 1)
	other.get(t, blobPath(d)).wantBytes(t, 200, body)
	if n := other.region.group.Count(true); n != 0 {
		t.Errorf("%d peers are up", n)
	}
}

func TestRegionGetsAManifestOnceByItsDigest(t *testing.T) {
	up := newScript(t)
	nodes := startRegion(t, 3, up)
	body := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`
	d := up.manifest("app", "v1", body)
	up.do(nil)
	var running sync.WaitGroup
	for _, n := range nodes {
		for _, ref := range []string{"v1", string(d)} {
			running.Go(func() {
				g := n.get(t, "/v2/app/manifests/"+ref)
				if g.err != nil || string(g.body) != body || g.header.Get("Content-Type") != ocispec.MediaTypeImageManifest {
					t.Errorf("%s: got %v", ref, g)
				}
			})
		}
	}
	running.Wait()
	if up.gets() != 1 {
		t.Errorf("upstream was asked %q; want one GET", up.log())
	}
}

func TestWrongManifestOfAPeerIsMadeGood(t *testing.T) {
	up := newScript(t)
	d := up.manifest("app", "v1", `{"schemaVersion":2}`)
	nodes := inOrder(startRegion(t, 2, up), d)
	nodes[0].get(t, "/v2/app/manifests/"+string(d)).wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
	nodes[0].memory.Add(d, []byte(`{"schemaVersion":3}`))
	up.do(nil)
	nodes[1].get(t, "/v2/app/manifests/"+string(d)).wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
	if up.gets() != 1 {
		t.Errorf("upstream was asked %q; want it to make it good", up.log())
	}
}

func TestRegionGetsAPromotedFileOnce(t *testing.T) {
	up, p := newFileServer(t), newProduction(t)
	f := up.file("/v1/a%20b", 2*mib, 1, "Content-Type", "application/x-one")
	d := digest.FromBytes(f.body)
	p.recordFile(nil, ledger.Set, "v1/a b", d, "")
	first, second := turns(d)
	owner := startFiles(t, t.TempDir(), []string{up.URL}, p.followed(), withFiles(patientFiles), withPeers(first))
	other := startFiles(t, t.TempDir(), []string{up.URL}, p.followed(), withFiles(patientFiles), withPeers(second, owner.Server.URL))
	other.awaitPeers(t, 1)
	getAll(t, []*testNode{owner, other}, 3, "/up/v1/a%20b", f.body)
	other.get(t, "/blobs/"+string(d)).wantBytes(t, 200, f.body)
	gets := 0
	for _, line := range up.log() {
		if strings.HasPrefix(line, "GET") {
			gets++
		}
	}
	if gets != 1 {
		t.Errorf("upstream was asked %q; want one GET", up.log())
	}
}

func TestNameThatLeadsElsewhereAtAPeerIsFetchedUpstream(t *testing.T) {
	up, p := newFileServer(t), newProduction(t)
	f := up.file("/v1/a", 2*mib, 1)
	d := digest.FromBytes(f.body)
	p.recordFile(nil, ledger.Set, "v1/a", d, "")
	first, second := turns(d)
	// The peer follows no ledger, and had the name when it led to other content.
	other := up.file("/v1/a", mib, 2)
	owner := startFiles(t, t.TempDir(), []string{up.URL}, withPeers(first))
	owner.get(t, "/up/v1/a").wantBytes(t, 200, other.body)
	f = up.file("/v1/a", 2*mib, 1)
	n := startFiles(t, t.TempDir(), []string{up.URL}, p.followed(), withFiles(patientFiles), withPeers(second, owner.Server.URL))
	n.awaitPeers(t, 1)
	n.get(t, "/up/v1/a").wantBytes(t, 200, f.body)
}
