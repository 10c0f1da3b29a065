package proxy

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// production is a real ledger, and a follower of it.
type production struct {
	t        *testing.T
	log      *ledger.Log
	follower *ledger.Follower
	node     *testNode // told of changes, once it is set
}

func newProduction(t *testing.T) *production {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := ledger.GenerateKey("production.test/ledger", file); err != nil {
		t.Fatal(err)
	}
	private, err := ledger.LoadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ledger.LoadKey(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	storage, err := ledger.OpenStorage("file://" + filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	p := &production{t: t}
	if p.log, err = ledger.New(t.Context(), storage, ledger.Config{Key: private}); err != nil {
		t.Fatal(err)
	}
	p.follower, err = ledger.NewFollower(t.Context(), ledger.FollowerConfig{Source: storage, Key: public})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// record appends an entry and has the node learn of it.
func (p *production) record(action ledger.Action, name string, d digest.Digest, reason string) {
	p.t.Helper()
	e := ledger.Entry{Kind: ledger.Image, Name: name, Action: action, Digest: d, Reason: reason}
	if action != ledger.Revoke && action != ledger.Unrevoke {
		e.Destinations = []string{"docker.io"}
	}
	if action == ledger.Delete {
		e.Digest = ""
	}
	added, err := p.log.Append(p.t.Context(), func(*ledger.State) ([]ledger.Entry, error) { return []ledger.Entry{e}, nil })
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.follower.Poll(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	if p.node != nil {
		p.node.LedgerChanged(p.t.Context(), "docker.io", added)
	}
}

func (p *production) start(dir string, urls ...string) *testNode {
	p.t.Helper()
	p.node = startNode(p.t, dir, urls, func(c *Config) {
		c.Upstreams[0].Ledger = LedgerConfig{Ledger: p.follower, Names: []string{"docker.io"}}
	})
	return p.node
}

func TestNameOfTheLedgerIsNotAskedForUpstream(t *testing.T) {
	up, p := newScript(t), newProduction(t)
	one := up.manifest("app", "other", `{"schemaVersion":2,"n":1}`)
	two := up.manifest("app", "other", `{"schemaVersion":2,"n":2}`)
	up.manifest("app", "plain", `{"schemaVersion":2,"n":3}`)
	p.record(ledger.Set, "app:v1", one, "")
	n := p.start(t.TempDir(), up.URL)

	n.get(t, "/v2/app/manifests/v1").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2,"n":1}`))
	p.record(ledger.Set, "app:v1", two, "")
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2,"n":2}`))
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2,"n":2}`))
	if got := up.log(); slices.ContainsFunc(got, func(line string) bool { return strings.HasSuffix(line, "/v1") }) || len(got) != 2 {
		t.Errorf("upstream was asked %q; want the two digests and no tag", got)
	}
	n.get(t, "/v2/app/manifests/plain").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2,"n":3}`))

	up.Close()
	again := n.head(t, "/v2/app/manifests/v1")
	if again.status != http.StatusOK || again.header.Get("Docker-Content-Digest") != string(two) || again.header.Get("Cache-Status") != "entrepot; hit" {
		t.Errorf("with upstream gone: %v; want a hit of %s", again, two)
	}
}

func TestNameThatTheLedgerDeletedIsGoneAtOnce(t *testing.T) {
	up, p := newScript(t), newProduction(t)
	d := up.manifest("app", "v1", `{"schemaVersion":2}`)
	p.record(ledger.Set, "app:v1", d, "")
	n := p.start(t.TempDir(), up.URL)
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2}`))
	p.record(ledger.Delete, "app:v1", d, "it has a new home")
	got := n.get(t, "/v2/app/manifests/v1")
	got.wantError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	if !strings.Contains(string(got.body), "it has a new home") {
		t.Errorf("the reason is not told: %s", got.body)
	}
	// Content that was promoted stays there by digest.
	n.get(t, "/v2/app/manifests/"+string(d)).wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2}`))
}

func TestRevokedContentIsServedUnderNoNameAndRemoved(t *testing.T) {
	up, p := newScript(t), newProduction(t)
	manifest := up.manifest("app", "v1", `{"schemaVersion":2}`)
	up.manifest("app", "plain", `{"schemaVersion":2}`)
	blob, body := up.blob(2*mib, 1)
	p.record(ledger.Set, "app:v1", manifest, "")
	dir := t.TempDir()
	n := p.start(dir, up.URL)
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2}`))
	n.get(t, "/v2/app/manifests/plain").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2}`))
	n.get(t, blobPath(blob)).wantBytes(t, http.StatusOK, body)
	if !n.stored(t, blob) || !n.stored(t, manifest) {
		t.Fatal("they were not stored")
	}
	for _, d := range []digest.Digest{manifest, blob} {
		p.record(ledger.Revoke, string(d), d, "CVE-2026-0001")
		if n.stored(t, d) {
			t.Errorf("%s is in the store still", d)
		}
	}
	for _, path := range []string{"/v2/app/manifests/v1", "/v2/app/manifests/plain", "/v2/app/manifests/" + string(manifest), blobPath(blob)} {
		got := n.get(t, path)
		got.wantError(t, http.StatusUnavailableForLegalReasons, "DENIED")
		if !strings.Contains(string(got.body), "CVE-2026-0001") {
			t.Errorf("%s: the reason is not told: %s", path, got.body)
		}
		if got := n.head(t, path); got.status != http.StatusUnavailableForLegalReasons {
			t.Errorf("HEAD %s: %v", path, got)
		}
	}
	p.record(ledger.Unrevoke, string(blob), blob, "")
	n.get(t, blobPath(blob)).wantBytes(t, http.StatusOK, body)
}

func TestContentRevokedWhileItIsOnItsWayIsNotKept(t *testing.T) {
	up, p := newScript(t), newProduction(t)
	d, _ := up.blob(2*mib, 1)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	up.do(func(_ http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			close(arrived)
			<-goOn
		}
		return false
	})
	n := p.start(t.TempDir(), up.URL)
	answered := make(chan got)
	go func() { answered <- n.get(t, blobPath(d)) }()
	<-arrived
	p.record(ledger.Revoke, string(d), d, "CVE-2026-0001")
	close(goOn)
	<-answered // whatever it is: the client asked before
	deadline := time.Now().Add(10 * time.Second)
	for n.stored(t, d) {
		if time.Now().After(deadline) {
			t.Fatal("revoked content is stored")
		}
	}
	n.get(t, blobPath(d)).wantError(t, http.StatusUnavailableForLegalReasons, "DENIED")
}

func TestWhatWasRevokedWhileTheNodeWasDownIsRemovedWhenItStarts(t *testing.T) {
	up, p := newScript(t), newProduction(t)
	d, body := up.blob(2*mib, 1)
	dir := t.TempDir()
	before := startNode(t, dir, []string{up.URL})
	before.get(t, blobPath(d)).wantBytes(t, http.StatusOK, body)
	if !before.stored(t, d) {
		t.Fatal("it was not stored")
	}
	before.close()
	p.record(ledger.Revoke, string(d), d, "CVE-2026-0001")
	n := p.start(dir, up.URL)
	n.get(t, blobPath(d)).wantError(t, http.StatusUnavailableForLegalReasons, "DENIED")
	deadline := time.Now().Add(10 * time.Second)
	for n.stored(t, d) {
		if time.Now().After(deadline) {
			t.Fatal("revoked content is in the store still")
		}
	}
}

func TestListOfTagsIsAskedForAgainAfterAPromotion(t *testing.T) {
	up, p := newScript(t), newProduction(t)
	tags := func(list string) {
		up.put("/v2/app/tags/list", served{body: []byte(`{"name":"app","tags":[` + list + `]}`), mediaType: "application/json"})
	}
	tags(`"v1"`)
	n := p.start(t.TempDir(), up.URL)
	if got := n.get(t, "/v2/app/tags/list"); !strings.Contains(string(got.body), `["v1"]`) {
		t.Fatalf("got %v", got)
	}
	tags(`"v1","v2"`)
	if got := n.get(t, "/v2/app/tags/list"); !strings.Contains(string(got.body), `["v1"]`) {
		t.Fatalf("a fresh list was asked for again: %v", got)
	}
	d := up.manifest("app", "v2", `{"schemaVersion":2}`)
	p.record(ledger.Set, "app:v2", d, "")
	if got := n.get(t, "/v2/app/tags/list"); !strings.Contains(string(got.body), `["v1","v2"]`) {
		t.Errorf("got %v; want the promoted tag", got)
	}
	p.record(ledger.Set, "app:v3", d, "")
	up.Close()
	if got := n.get(t, "/v2/app/tags/list"); got.status != http.StatusOK || !strings.Contains(string(got.body), `"v2"`) {
		t.Errorf("with upstream gone: %v; want the last list", got)
	}
}

func TestPromotedNameIsThereAlthoughItWasJustAbsent(t *testing.T) {
	up, p := newScript(t), newProduction(t)
	d := digest.FromString(`{"schemaVersion":2}`)
	n := p.start(t.TempDir(), up.URL)
	n.get(t, "/v2/app/manifests/v1").wantError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	n.get(t, "/v2/app/manifests/"+string(d)).wantError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	up.manifest("app", "v1", `{"schemaVersion":2}`)
	p.record(ledger.Set, "app:v1", d, "")
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2}`))
}

func TestNamesOfALedgerThatIsSilentAreMarkedAsStale(t *testing.T) {
	up, p := newScript(t), newProduction(t)
	d := up.manifest("app", "v1", `{"schemaVersion":2}`)
	p.record(ledger.Set, "app:v1", d, "")
	n := startNode(t, t.TempDir(), []string{up.URL}, func(c *Config) {
		c.Upstreams[0].Ledger = LedgerConfig{Ledger: silent{p.follower}, Names: []string{"docker.io"}}
	})
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, http.StatusOK, []byte(`{"schemaVersion":2}`))
	got := n.get(t, "/v2/app/manifests/v1")
	if want := "entrepot; hit; detail=ledger-out-of-reach"; got.header.Get("Cache-Status") != want {
		t.Errorf("Cache-Status is %q, want %q", got.header.Get("Cache-Status"), want)
	}
}

// silent is a ledger that was last heard of long ago.
type silent struct{ *ledger.Follower }

func (s silent) Status() ledger.FollowerStatus {
	status := s.Follower.Status()
	status.Checked = time.Now().Add(-2 * unheard)
	return status
}
