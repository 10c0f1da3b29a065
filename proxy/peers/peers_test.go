package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/quick"
	"time"
)

const secret = "a secret of the region under test"

func newGroup(t *testing.T, cfg Config) *Group {
	t.Helper()
	if cfg.Secret == "" {
		cfg.Secret = secret
	}
	cfg.Interval = 20 * time.Millisecond
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// run runs a group until the test ends.
func run(t *testing.T, g *Group) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { g.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// waitFor polls for what another goroutine will bring about.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
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

// region has nodes that are up, by their ids, as the first of them sees it.
func region(t *testing.T, ids ...string) *Group {
	t.Helper()
	g := newGroup(t, Config{ID: ids[0]})
	for _, id := range ids[1:] {
		p := g.newPeer(id, &url.URL{}, "")
		p.answered(id, time.Now())
		g.peers[id] = p
	}
	g.arrange()
	return g
}

// owner is whose turn it is to bring a key, as a group sees it.
func owner(g *Group, key string) string {
	before, _ := g.Order(key)
	if len(before) == 0 {
		return g.cfg.ID
	}
	id, _ := before[0].state()
	return id
}

func TestNodesAgreeWhoBringsWhat(t *testing.T) {
	ids := []string{"a", "b", "c", "d", "e"}
	var groups []*Group
	for i := range ids {
		groups = append(groups, region(t, slices.Concat(ids[i:], ids[:i])...))
	}
	agree := func(key string) bool {
		ranks := map[int]bool{}
		for _, g := range groups {
			before, _ := g.Order(key)
			ranks[len(before)] = true
			if owner(g, key) != owner(groups[0], key) {
				return false
			}
		}
		return len(ranks) == len(ids)
	}
	if err := quick.Check(agree, nil); err != nil {
		t.Error(err)
	}
}

func TestEachNodeBringsItsShare(t *testing.T) {
	const keys, nodes = 20000, 8
	var ids []string
	for i := range nodes {
		ids = append(ids, fmt.Sprint("node-", i))
	}
	g := region(t, ids...)
	count := map[string]int{}
	for i := range keys {
		count[owner(g, fmt.Sprint("sha256:", i))]++
	}
	for _, id := range ids {
		if n := count[id]; n < keys/nodes*9/10 || n > keys/nodes*11/10 {
			t.Errorf("%s brings %d of %d keys; want about %d", id, n, keys, keys/nodes)
		}
	}
}

func TestNodeThatLeavesMovesItsOwnKeysOnly(t *testing.T) {
	all, without := region(t, "a", "b", "c", "d"), region(t, "a", "b", "d")
	moves := func(key string) bool {
		was, is := owner(all, key), owner(without, key)
		return was == is || was == "c"
	}
	if err := quick.Check(moves, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

// TestChainsOfNodesThatWaitForEachOtherEnd holds whatever each of them thinks who is
// up.
func TestChainsOfNodesThatWaitForEachOtherEnd(t *testing.T) {
	ids := []string{"a", "b", "c", "d", "e", "f"}
	ends := func(key string, views [6]uint8) bool {
		next := map[string]string{}
		for i, id := range ids {
			seen := []string{id}
			for j, other := range ids {
				if j != i && views[i]>>j&1 == 1 {
					seen = append(seen, other)
				}
			}
			next[id] = owner(region(t, seen...), key)
		}
		for _, id := range ids {
			for steps := 0; next[id] != id; id = next[id] {
				if steps++; steps > len(ids) {
					return false
				}
			}
		}
		return true
	}
	if err := quick.Check(ends, nil); err != nil {
		t.Error(err)
	}
}

// node is the surface of a group.
func node(t *testing.T, g *Group) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(g.Handler(http.NotFoundHandler()))
	t.Cleanup(s.Close)
	return s
}

// addresses is a resolver of one name.
type addresses struct {
	mu  sync.Mutex
	ips []string
	err error
}

func (a *addresses) set(err error, ips ...string) {
	a.mu.Lock()
	a.ips, a.err = ips, err
	a.mu.Unlock()
}

func (a *addresses) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if host != "nodes.example.org" {
		return nil, fmt.Errorf("asked for %s", host)
	}
	var found []netip.Addr
	for _, ip := range a.ips {
		found = append(found, netip.MustParseAddr(ip))
	}
	return found, a.err
}

func TestNodesOfADNSNameAreFoundAndForgotten(t *testing.T) {
	// Three nodes at one port of three addresses: 127.0.0.0/8 is all loopback.
	var config net.ListenConfig
	var names addresses
	var groups []*Group
	port := 0
	for i := range 3 {
		l, err := config.Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.%d:%d", i+1, port))
		if err != nil {
			t.Skip(err) // a system with one loopback address
		}
		port = l.Addr().(*net.TCPAddr).Port
		g := newGroup(t, Config{ID: fmt.Sprint("node-", i), DNS: fmt.Sprintf("http://nodes.example.org:%d", port), Resolver: &names})
		s := httptest.NewUnstartedServer(g.Handler(http.NotFoundHandler()))
		_ = s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
		groups = append(groups, g)
	}
	all := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}
	names.set(nil, all...)
	for _, g := range groups {
		run(t, g)
	}
	see := func(count int) func() bool {
		return func() bool { return groups[0].Count(true) == count && groups[0].Count(false) == 0 }
	}
	waitFor(t, "the others to be found, without the node itself", see(2))
	names.set(nil, all[:2]...)
	waitFor(t, "one to be forgotten", see(1))
	names.set(errors.New("the server of names is down"))
	names.set(&net.DNSError{Err: "no such host", IsNotFound: true})
	waitFor(t, "all to be forgotten", see(0))
	names.set(nil, "127.0.0.1", "::ffff:127.0.0.2", "127.0.0.3")
	waitFor(t, "the others to be found again", see(2))
}

func TestPeersStayWhoTheyWereWhenTheNameCannotBeLookedUp(t *testing.T) {
	var names addresses
	g := newGroup(t, Config{ID: "a", DNS: "http://nodes.example.org:5000", Resolver: &names})
	names.set(nil, "10.0.0.1", "10.0.0.2")
	g.lookup(t.Context())
	names.set(errors.New("the server of names is down"))
	g.lookup(t.Context())
	if n := len(g.members()); n != 2 {
		t.Errorf("%d peers are left", n)
	}
}

func TestNodeInItsOwnListIsNoPeer(t *testing.T) {
	g := newGroup(t, Config{ID: "a"})
	s := node(t, g)
	other := newGroup(t, Config{ID: "b", URLs: []string{s.URL}})
	self := newGroup(t, Config{ID: "a", URLs: []string{s.URL}}) // shares the id, as a copy of the directory would
	self.run = g.run
	run(t, self)
	run(t, other)
	waitFor(t, "the other to see it", func() bool { return other.Count(true) == 1 })
	waitFor(t, "the node to know itself", func() bool { return self.Count(true) == 0 && self.Count(false) == 0 })
}

func TestTwoNodesOfOneIDAreTold(t *testing.T) {
	g := newGroup(t, Config{ID: "a"})
	twin := newGroup(t, Config{ID: "a", URLs: []string{node(t, g).URL}})
	twin.greet(t.Context(), twin.members()[0])
	if trouble := twin.members()[0].trouble; !strings.Contains(trouble, "copy") || twin.Count(true) != 0 {
		t.Errorf("trouble %q", trouble)
	}
}

func TestGreetingOfWhoLacksTheSecretIsNotBelieved(t *testing.T) {
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(answerHeader, signer("another").answer("", nil))
		_, _ = w.Write([]byte(`{"id":"b","run":"x"}`))
	}))
	defer liar.Close()
	g := newGroup(t, Config{ID: "a", URLs: []string{liar.URL}})
	g.greet(t.Context(), g.members()[0])
	if g.Count(true) != 0 {
		t.Error("it is taken for a peer")
	}
}

func TestSignatureHoldsForOneRequestAndAWhile(t *testing.T) {
	now := time.Now()
	sent := func(change func(*http.Request)) *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/app/blobs/x?ns=docker.io", nil)
		r.Header.Set("CDN-Loop", "entrepot; id=a")
		signer(secret).sign(r, now)
		change(r)
		return r
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		at     time.Time
		want   error
	}{
		"as it was sent":    {func(*http.Request) {}, now, nil},
		"a minute later":    {func(*http.Request) {}, now.Add(time.Minute), nil},
		"an hour later":     {func(*http.Request) {}, now.Add(time.Hour), errSkew},
		"an hour before":    {func(*http.Request) {}, now.Add(-time.Hour), errSkew},
		"for another path":  {func(r *http.Request) { r.RequestURI = "/v2/other/blobs/x?ns=docker.io" }, now, errSignature},
		"by another method": {func(r *http.Request) { r.Method = http.MethodHead }, now, errSignature},
		"of another node":   {func(r *http.Request) { r.Header.Set("CDN-Loop", "entrepot; id=b") }, now, errSignature},
		"wanting more":      {func(r *http.Request) { r.Header.Set("Cache-Control", "only-if-cached") }, now, errSignature},
		"cut short":         {func(r *http.Request) { r.Header.Set("Authorization", scheme+" 1") }, now, errSignature},
	} {
		if err := signer(secret).verify(sent(c.change), c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
		if err := signer("another").verify(sent(c.change), c.at); !errors.Is(err, errSignature) {
			t.Errorf("%s, with another secret: %v", name, err)
		}
	}
}
