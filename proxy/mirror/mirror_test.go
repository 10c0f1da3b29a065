package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/blobstore"
	"entrepot/promote/ledger"
	"entrepot/proxy"
	"entrepot/proxy/upstream"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const destination = "registry.test"

// production is an origin, its ledger, and what follows them.
type production struct {
	t   *testing.T
	dir string
	key ledger.Key
	log *ledger.Log
	now time.Time

	mu       sync.Mutex
	objects  map[string]object // by path
	requests []string
	slow     chan struct{} // when it is not nil, blobs wait for it to be closed
}

type object struct {
	mediaType string
	body      []byte
}

func newProduction(t *testing.T) *production {
	t.Helper()
	p := &production{t: t, dir: t.TempDir(), objects: map[string]object{}, now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	file := filepath.Join(p.dir, "key")
	if err := ledger.GenerateKey("origin.test/ledger", file); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.key, err = ledger.LoadKey(file); err != nil {
		t.Fatal(err)
	}
	p.log, err = ledger.New(t.Context(), ledger.NewDir(filepath.Join(p.dir, "ledger")), ledger.Config{Key: p.key, Now: func() time.Time { return p.now }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *production) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	o, ok := p.objects[r.URL.Path]
	p.requests = append(p.requests, r.Method+" "+r.URL.Path)
	slow := p.slow
	p.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if strings.Contains(r.URL.Path, "/blobs/") && slow != nil {
		select {
		case <-slow:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", o.mediaType)
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(o.body).String())
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(o.body)))
	_, _ = w.Write(o.body)
}

func (p *production) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.requests)
	p.requests = nil
	return n
}

// push makes an image of one layer be at the origin.
func (p *production) push(repo, layer string) digest.Digest {
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(mediaType string, body []byte) ocispec.Descriptor {
		d := digest.FromBytes(body)
		p.objects["/v2/"+repo+"/blobs/"+d.String()] = object{"application/octet-stream", body}
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
	}
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: add(ocispec.MediaTypeImageConfig, []byte(`{"of": "`+repo+layer+`"}`)), Layers: []ocispec.Descriptor{add(ocispec.MediaTypeImageLayer, []byte(layer))},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	d := digest.FromBytes(body)
	p.objects["/v2/"+repo+"/manifests/"+d.String()] = object{ocispec.MediaTypeImageManifest, body}
	p.objects["/v2/"+repo+"/tags/list"] = object{"application/json", []byte(`{"name": "` + repo + `", "tags": []}`)}
	return d
}

// promote has a name be an image, or nothing when d is empty.
func (p *production) promote(name string, d digest.Digest) {
	p.t.Helper()
	e := ledger.Entry{Kind: ledger.Image, Action: ledger.Set, Name: name, Destinations: []string{destination}, Digest: d}
	if d == "" {
		e.Action = ledger.Delete
	}
	if _, err := p.log.Append(p.t.Context(), func(*ledger.State) ([]ledger.Entry, error) { return []ledger.Entry{e}, nil }); err != nil {
		p.t.Fatal(err)
	}
}

// follow makes a mirror of it, with what change changes.
func (p *production) follow(t *testing.T, store string, source ledger.Reader, change func(*Config)) *Mirror {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	dir, err := blobstore.OpenDir(store, blobstore.DirConfig{KeepHeld: true})
	if err != nil {
		t.Fatal(err)
	}
	memory, err := blobstore.NewMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	follower, err := ledger.NewFollower(t.Context(), ledger.FollowerConfig{Source: source, Key: p.key})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Store: dir, Now: func() time.Time { return p.now },
		Upstreams: []Upstream{{Name: destination, Kind: ledger.Image, Ledger: follower, Names: []string{destination}}},
	}
	if change != nil {
		change(&cfg)
	}
	engine := proxy.Config{Local: dir, Memory: memory, Upstreams: []proxy.UpstreamConfig{{
		Config: upstream.Config{Name: destination, URLs: []string{server.URL}},
		Policy: proxy.Policy{TTL: time.Minute}, Ledger: proxy.LedgerConfig{Ledger: follower, Names: []string{destination}},
	}}}
	if cfg.Bucket != nil { // only then: an interface that holds nil is not nil
		engine.Remote = cfg.Bucket
	}
	cfg.Node, err = proxy.New(engine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		memory.Close()
		if err := errors.Join(cfg.Node.Close(context.Background()), dir.Close()); err != nil {
			t.Error(err)
		}
	})
	return New(t.Context(), cfg)
}

func (p *production) source() ledger.Reader { return ledger.NewDir(filepath.Join(p.dir, "ledger")) }

func sync1(t *testing.T, m *Mirror) Progress {
	t.Helper()
	got, err := m.Sync(t.Context(), SyncConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestMirrorTellsHowFarBehindItIsAndCatchesUp(t *testing.T) {
	p := newProduction(t)
	p.promote("app:v1", p.push("app", "one"))
	m := p.follow(t, t.TempDir(), p.source(), nil)
	if got := sync1(t, m); got.Held != 1 || got.Names != 1 {
		t.Fatalf("first: %+v", got)
	}
	// An hour in which the mirror is cut off.
	p.promote("app:v2", p.push("app", "two"))
	p.promote("app:v3", p.push("app", "three"))
	p.now = p.now.Add(time.Hour)
	if err := m.cfg.Upstreams[0].Ledger.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := m.Status()
	if up := s.Upstreams[0]; up.Entries != 3 || up.Synced != 1 || up.Lag != 3600 {
		t.Errorf("after an hour: %+v", up)
	}
	if !m.due() {
		t.Error("there is nothing to do")
	}
	p.asked()
	if got := sync1(t, m); got.Held != 3 || got.Fetched != 2 {
		t.Errorf("caught up: %+v", got)
	}
	if s := m.Status(); s.Upstreams[0].Lag != 0 || s.Coverage != 100 || m.due() {
		t.Errorf("caught up: %+v", s)
	}
	p.asked()
	if sync1(t, m); p.asked() > 0 {
		t.Error("a sync without anything new asked the origin")
	}
}

func TestWhatLeftIsRemovedUnlessAnotherNameNeedsIt(t *testing.T) {
	p := newProduction(t)
	first, second := p.push("app", "shared"), p.push("other", "shared")
	p.promote("app:v1", first)
	p.promote("other:v1", second)
	p.promote("app:v2", p.push("app", "of its own"))
	m := p.follow(t, t.TempDir(), p.source(), nil)
	sync1(t, m)
	p.promote("app:v1", "")
	p.promote("app:v2", "")
	dry, err := m.Sync(t.Context(), SyncConfig{DryRun: true})
	if err != nil || dry.Leaving != 5 || dry.Removed != 0 { // two manifests, two configurations, a layer
		t.Errorf("dry: %+v, %v", dry, err)
	}
	if _, err := m.cfg.Store.Stat(t.Context(), first); err != nil {
		t.Error("a dry run removed something")
	}
	if got := sync1(t, m); got.Removed != 5 || got.Names != 1 || got.Held != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := m.cfg.Store.Stat(t.Context(), digest.FromString("shared")); err != nil {
		t.Error("the layer that another image needs was removed")
	}
	verified, err := m.Verify(t.Context(), VerifyConfig{})
	if err != nil || verified.Right != 1 || verified.Findings != 0 {
		t.Errorf("verify: %+v, %v", verified, err)
	}
}

func TestMirrorOfALedgerThatWasLostRemovesNothing(t *testing.T) {
	p := newProduction(t)
	d := p.push("app", "one")
	p.promote("app:v1", d)
	store := t.TempDir()
	t.Run("held", func(t *testing.T) {
		sync1(t, p.follow(t, store, p.source(), nil))
	})
	m := p.follow(t, store, ledger.NewDir(filepath.Join(p.dir, "nowhere")), nil)
	if _, err := m.Sync(t.Context(), SyncConfig{}); err == nil {
		t.Error("a sync without a ledger did something")
	}
	if _, err := m.cfg.Store.Stat(t.Context(), d); err != nil {
		t.Errorf("it removed what was held: %v", err)
	}
}

func TestOneThatCannotBeFetchedDoesNotStopTheRest(t *testing.T) {
	p := newProduction(t)
	p.promote("app:v1", p.push("app", "one"))
	p.promote("app:lost", digest.FromString("nobody has it"))
	m := p.follow(t, t.TempDir(), p.source(), nil)
	got, err := m.Sync(t.Context(), SyncConfig{})
	if err == nil || !strings.Contains(err.Error(), "app:lost") || got.Held != 1 || got.Failed != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if s := m.Status(); s.Coverage != 50 || s.Failed != 1 || !m.due() {
		t.Errorf("%+v", s)
	}
	verified, err := m.Verify(t.Context(), VerifyConfig{})
	if err != nil || verified.Right != 1 || verified.Names != 2 || verified.Findings == 0 {
		t.Errorf("verify: %+v, %v", verified, err)
	}
}

func TestSyncStopsWhenItsTimeIsOverAndGoesOn(t *testing.T) {
	p := newProduction(t)
	p.promote("app:v1", p.push("app", "one"))
	p.slow = make(chan struct{})
	p.now = p.now.Add(59*time.Minute + 59*time.Second + 500*time.Millisecond) // half a second is left
	m := p.follow(t, t.TempDir(), p.source(), func(c *Config) { c.Windows = Windows{Spans: []Span{{From: 12 * 60, To: 13 * 60}}} })
	if _, err := m.Sync(t.Context(), SyncConfig{}); !errors.Is(err, ErrWindow) {
		t.Fatalf("at the end of the window: %v", err)
	}
	if s := m.Status(); s.Failed != 0 || !m.due() {
		t.Errorf("%+v", s)
	}
	close(p.slow)
	p.now = p.now.Add(time.Minute)
	asked := p.asked()
	m.runOnce(t.Context())
	if n := p.asked(); asked == 0 || n != 0 {
		t.Errorf("outside of the window the origin was asked %d times", n)
	}
	p.now = p.now.Add(23 * time.Hour)
	m.runOnce(t.Context())
	if s := m.Status(); s.Held != 1 {
		t.Errorf("in the next window: %+v", s)
	}
}

func TestBandwidthBoundsWhatIsFetchedAhead(t *testing.T) {
	p := newProduction(t)
	const perSecond = 256 << 10
	p.promote("app:v1", p.push("app", strings.Repeat("x", perSecond/2)))
	m := p.follow(t, t.TempDir(), p.source(), func(c *Config) { c.Bandwidth = perSecond })
	start := time.Now()
	sync1(t, m)
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Errorf("half a second's bytes took %v", took)
	}
}
