package health

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"entrepot/geo/choice"
	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ledgerWith is the state of a ledger with some entries.
func ledgerWith(t *testing.T, entries ...ledger.Entry) func() *ledger.State {
	t.Helper()
	log := newLedger(t)
	add(t, log, entries...)
	return log.State
}

// add appends to a ledger.
func add(t *testing.T, log *ledger.Log, entries ...ledger.Entry) {
	t.Helper()
	if _, err := log.Append(t.Context(), func(*ledger.State) ([]ledger.Entry, error) { return entries, nil }); err != nil {
		t.Fatal(err)
	}
}

func newLedger(t *testing.T) *ledger.Log {
	t.Helper()
	key := t.TempDir() + "/key"
	if err := ledger.GenerateKey("test", key); err != nil {
		t.Fatal(err)
	}
	k, err := ledger.LoadKey(key)
	if err != nil {
		t.Fatal(err)
	}
	log, err := ledger.New(t.Context(), ledger.NewDir(t.TempDir()), ledger.Config{Key: k})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// originWith serves content by the end of its path.
func originWith(t *testing.T, content map[string][]byte) func() *choice.Mirror {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := content[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	m := &choice.Mirror{Name: "origin", Tier: choice.Origin, URLs: []*url.URL{u}}
	return func() *choice.Mirror { return m }
}

func encode(t *testing.T, v any) (data []byte, d digest.Digest) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data, digest.FromBytes(data)
}

func TestSamplesAreTakenOfWhatWasPromoted(t *testing.T) {
	layer, file := content(), []byte(strings.Repeat("kubectl ", 1000))
	large := ocispec.Descriptor{Digest: digest.FromString("large"), Size: MaxSample + 1}
	manifest, manifestDigest := encode(t, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		Layers:    []ocispec.Descriptor{large, {Digest: digest.FromBytes(layer), Size: int64(len(layer))}, {Digest: digest.FromString("small"), Size: 10}},
	})
	index, indexDigest := encode(t, ocispec.Index{Manifests: []ocispec.Descriptor{{Digest: manifestDigest, Size: int64(len(manifest))}}})
	layerDigest, fileDigest := digest.FromBytes(layer), digest.FromBytes(file)
	const repository = "/v2/registry.k8s.io/coredns/coredns"
	origin := originWith(t, map[string][]byte{
		repository + "/manifests/" + string(indexDigest):    index,
		repository + "/manifests/" + string(manifestDigest): manifest,
		repository + "/blobs/" + string(layerDigest):        layer,
		"/dl.k8s.io/v1/kubectl":                             file,
		"/dl.k8s.io/v1/wrong":                               []byte("not what the ledger says"),
	})
	entry := func(kind ledger.Kind, destination, name string, d digest.Digest) ledger.Entry {
		return ledger.Entry{Kind: kind, Name: name, Destinations: []string{destination}, Action: ledger.Set, Digest: d}
	}
	state := ledgerWith(t,
		entry(ledger.Image, "registry.k8s.io/coredns", "coredns:v1", indexDigest),
		entry(ledger.Image, "other.example/coredns", "coredns:v1", indexDigest),
		entry(ledger.File, "https://dl.k8s.io", "v1/kubectl", fileDigest),
		entry(ledger.File, "https://dl.k8s.io", "v1/wrong", digest.FromString("right")),
	)
	s := NewSampler(SamplerConfig{Origin: origin, Promoted: []Promoted{
		{Namespace: "registry.k8s.io", Names: []string{"registry.k8s.io"}, State: state},
		{
			Namespace: "dl.k8s.io", Names: []string{"dl.k8s.io", "https://dl.k8s.io"}, State: state,
			Immutable: func(file string) bool { return strings.HasPrefix(file, "v1/") },
		},
	}})
	if err := s.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := map[digest.Digest]bool{}
	for range 200 {
		sample, ok := s.content(origin())
		if !ok {
			t.Fatal("there is no sample")
		}
		data, err := sample.Read(t.Context(), 0, sample.Size)
		if err != nil {
			t.Fatal(err)
		}
		seen[digest.FromBytes(data)] = true
	}
	if len(seen) != 2 || !seen[layerDigest] || !seen[fileDigest] {
		t.Errorf("samples %v", seen)
	}
	bucket, err := url.Parse("https://b.example.org/{digest}")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if sample, ok := s.content(&choice.Mirror{Kind: choice.Bucket, URLs: []*url.URL{bucket}}); !ok || sample.Target.Digest != layerDigest {
			t.Fatalf("of a bucket: %+v, %v", sample.Target, ok)
		}
	}
	if _, ok := s.content(&choice.Mirror{Namespaces: []string{"docker.io"}, URLs: []*url.URL{bucket}}); ok {
		t.Error("a mirror of other upstreams is asked for what it does not have")
	}
	if n, ok := s.name(origin()); ok {
		t.Errorf("%+v is a name that just changed", n)
	}
}

func TestWhatWasPromotedIsASampleOnlyWhileItIsRightEverywhere(t *testing.T) {
	first, moving, secret := []byte("the first"), []byte("v1.0.0"), []byte("a secret")
	origin := originWith(t, map[string][]byte{"/dl/v1/tool": first, "/dl/stable.txt": moving, "/dl/v1/secret": secret})
	log := newLedger(t)
	set := func(name string, content []byte) ledger.Entry {
		return ledger.Entry{Kind: ledger.File, Name: name, Destinations: []string{"https://dl"}, Action: ledger.Set, Digest: digest.FromBytes(content)}
	}
	add(t, log, set("v1/tool", first), set("stable.txt", moving), set("v1/secret", secret))
	s := NewSampler(SamplerConfig{Origin: origin, Promoted: []Promoted{{
		Namespace: "dl", Names: []string{"https://dl"}, State: log.State,
		Immutable: func(file string) bool { return strings.HasPrefix(file, "v1/") },
		Private:   func(file string) bool { return strings.HasSuffix(file, "secret") },
	}}})
	if err := s.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	samples := func(tier choice.Tier) string {
		m := *origin()
		m.Tier = tier
		seen := map[string]bool{}
		for range 100 {
			if sample, ok := s.content(&m); ok {
				seen[sample.Target.File] = true
			}
		}
		return strings.Join(slices.Sorted(maps.Keys(seen)), " ")
	}
	if trusted, community := samples(choice.Trusted), samples(choice.Community); trusted != "v1/secret v1/tool" || community != "v1/tool" {
		t.Errorf("samples %q for trusted mirrors, %q for community", trusted, community)
	}
	add(t, log, set("v1/tool", []byte("another"))) // before new samples are taken
	if got := samples(choice.Trusted); got != "v1/secret" {
		t.Errorf("after one changed: %q", got)
	}
	add(t, log, ledger.Entry{Kind: ledger.File, Action: ledger.Revoke, Name: string(digest.FromBytes(secret)), Digest: digest.FromBytes(secret), Reason: "leaked"})
	if got := samples(choice.Trusted); got != "" {
		t.Errorf("after the other was revoked: %q", got)
	}
}

func TestWhatMirrorsAreComparedByStaysWhileTheOriginCannotBeReached(t *testing.T) {
	tool := []byte("a tool")
	content := map[string][]byte{"/dl/v1/tool": tool}
	origin := originWith(t, content)
	state := ledgerWith(t, ledger.Entry{Kind: ledger.File, Name: "v1/tool", Destinations: []string{"https://dl"}, Action: ledger.Set, Digest: digest.FromBytes(tool)})
	s := NewSampler(SamplerConfig{Origin: origin, Promoted: []Promoted{{
		Namespace: "dl", Names: []string{"https://dl"}, State: state, Immutable: func(string) bool { return true },
	}}})
	for _, there := range []bool{true, false} {
		if !there {
			delete(content, "/dl/v1/tool")
		}
		if err := s.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.content(origin()); !ok || s.lacking() == there {
			t.Errorf("with the origin there %t: a sample %t, lacking %t", there, ok, s.lacking())
		}
	}
}

func TestAName(t *testing.T) {
	d := digest.FromString("image")
	state := ledgerWith(t, ledger.Entry{
		Kind: ledger.Image, Name: "coredns:v1", Destinations: []string{"registry.k8s.io/coredns"},
		Action: ledger.Set, Digest: d, Time: time.Now().Add(-time.Hour),
	})
	s := NewSampler(SamplerConfig{Origin: originWith(t, nil), Promoted: []Promoted{{Namespace: "k8s", Names: []string{"registry.k8s.io"}, State: state}}})
	if err := s.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The ledger sets its own times: of a fresh one nothing is old enough.
	if len(s.names) != 1 || s.names[0].Repository != "coredns/coredns" || s.names[0].Route != "manifests/v1" {
		t.Fatalf("names %+v", s.names)
	}
}

func TestConfiguredBlobsAreFetchedOnceAndTriedAgain(t *testing.T) {
	blob := content()
	d := digest.FromBytes(blob)
	var asked atomic.Int32
	there := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-there:
			_, _ = w.Write(blob)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	origin := &choice.Mirror{Name: "origin", Tier: choice.Origin, URLs: []*url.URL{u}}
	s := NewSampler(SamplerConfig{
		Origin: func() *choice.Mirror { return origin }, Retry: time.Millisecond,
		Blobs: []choice.Target{{Namespace: "up", Repository: "app", Route: "blobs/" + string(d), Digest: d}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	}()
	for asked.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	if _, ok := s.content(origin); ok {
		t.Fatal("there is a sample, and nobody had it")
	}
	close(there)
	deadline := time.Now().Add(10 * time.Second)
	for {
		if sample, ok := s.content(origin); ok && sample.Size == int64(len(blob)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no sample")
		}
		time.Sleep(time.Millisecond)
	}
}
