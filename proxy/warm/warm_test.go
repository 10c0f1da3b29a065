package warm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/proxy/mirror"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fake is a source in memory, and what it was asked for.
type fake struct {
	manifests map[string][]byte // by reference
	blobs     map[digest.Digest]string
	here      map[digest.Digest]bool
	failures  map[string]int // how often something fails at first, by digest or path
	final     map[string]bool

	mu      sync.Mutex
	asked   map[string]int
	running int
	most    int // that ran at once
	delay   time.Duration
}

func newFake() *fake {
	return &fake{manifests: map[string][]byte{}, blobs: map[digest.Digest]string{}, here: map[digest.Digest]bool{}, failures: map[string]int{}, final: map[string]bool{}, asked: map[string]int{}}
}

func (f *fake) ask(ctx context.Context, what string) error {
	f.mu.Lock()
	f.asked[what]++
	f.running++
	f.most = max(f.most, f.running)
	fails := f.failures[what] > 0
	f.failures[what]--
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.running--
	}()
	if err := pause.For(ctx, f.delay); err != nil {
		return err
	}
	switch {
	case f.final[what]:
		return &StatusError{Status: http.StatusNotFound}
	case fails:
		return errors.New("this time not")
	}
	return nil
}

func (f *fake) Manifest(ctx context.Context, _, _, reference string) (*Manifest, error) {
	if err := f.ask(ctx, reference); err != nil {
		return nil, err
	}
	body, ok := f.manifests[reference]
	if !ok {
		return nil, &StatusError{Status: http.StatusNotFound, Message: "no " + reference}
	}
	return &Manifest{Digest: digest.FromBytes(body), Body: body}, nil
}

func (f *fake) Blob(ctx context.Context, _, _ string, d ocispec.Descriptor) (int64, error) {
	if f.here[d.Digest] {
		return 0, nil
	}
	return d.Size, f.ask(ctx, f.blobs[d.Digest])
}

func (f *fake) File(ctx context.Context, _, path string) (int64, error) {
	return 100, f.ask(ctx, path)
}

// add puts a manifest there, by its digest and at a tag, if that is not "".
func (f *fake) add(tag string, manifest any) ocispec.Descriptor {
	body, err := json.Marshal(manifest)
	if err != nil {
		panic(err)
	}
	d := digest.FromBytes(body)
	f.manifests[d.String()] = body
	if tag != "" {
		f.manifests[tag] = body
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(body))}
}

func (f *fake) blob(name string) ocispec.Descriptor {
	d := digest.FromString(name)
	f.blobs[d] = name
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: 10}
}

func (f *fake) image(tag, platform string, layers ...string) ocispec.Descriptor {
	config := f.blob("config of " + platform)
	m := ocispec.Manifest{Config: config}
	for _, l := range layers {
		m.Layers = append(m.Layers, f.blob(l))
	}
	d := f.add(tag, m)
	if p, err := ParsePlatform(platform); err == nil {
		d.Platform = &p
	}
	return d
}

func item(name string) Item {
	i, err := ParseName(name, isFile)
	if err != nil {
		panic(err)
	}
	return i
}

func TestAllOfAnImageComes(t *testing.T) {
	f := newFake()
	attestation := f.image("", "unknown/unknown", "provenance")
	f.add("1", ocispec.Index{Manifests: []ocispec.Descriptor{
		f.image("", "linux/amd64", "shared", "amd"), f.image("", "linux/arm64", "shared", "arm"), attestation,
	}})
	sum := Run(t.Context(), Config{Source: f}, []Item{item("quay.io/a:1")})
	if sum.Failed > 0 || sum.Names != 1 || sum.Blobs != 4+3+4 {
		t.Errorf("%+v", sum)
	}
	for _, blob := range []string{"shared", "amd", "arm", "provenance", "config of linux/amd64"} {
		if f.asked[blob] != 1 {
			t.Errorf("%s was fetched %d times", blob, f.asked[blob])
		}
	}
}

func TestOnlyTheWantedPlatformsCome(t *testing.T) {
	f := newFake()
	f.add("1", ocispec.Index{Manifests: []ocispec.Descriptor{f.image("", "linux/amd64", "amd"), f.image("", "linux/arm/v7", "arm"), f.image("", "unknown/unknown", "provenance")}})
	arm := ocispec.Platform{OS: "linux", Architecture: "arm"}
	if sum := Run(t.Context(), Config{Source: f, Platforms: []ocispec.Platform{arm}}, []Item{item("quay.io/a:1")}); sum.Failed > 0 {
		t.Errorf("%+v", sum)
	}
	if f.asked["arm"] != 1 || f.asked["amd"]+f.asked["provenance"] > 0 {
		t.Errorf("fetched %v", f.asked)
	}
	var got error
	windows := ocispec.Platform{OS: "windows", Architecture: "amd64"}
	Run(t.Context(), Config{Source: f, Platforms: []ocispec.Platform{windows}, Report: func(r Result) { got = r.Err }}, []Item{item("quay.io/a:1")})
	if got == nil || !strings.Contains(got.Error(), "linux/amd64, linux/arm/v7") {
		t.Errorf("an image without the platform: %v", got)
	}
}

func TestWhatFailsIsTriedAgainUnlessItIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.image("1", "linux/amd64", "layer")
		f.failures["layer"], f.failures["1"], f.final["release/gone"] = 3, 1, true
		errs := map[string]error{}
		start := time.Now()
		sum := Run(t.Context(), Config{Source: f, Report: func(r Result) { errs[r.Item.Name] = r.Err }},
			[]Item{item("quay.io/a:1"), item("dl.k8s.io/release/gone"), item("quay.io/b:2")})
		if sum.Failed != 2 || errs["quay.io/a:1"] != nil || f.asked["layer"] != 4 || f.asked["release/gone"] != 1 || f.asked["2"] != 1 {
			t.Errorf("%+v, %v; asked %v", sum, errs, f.asked)
		}
		if took := time.Since(start); took != (1+1+2+4)*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestNoMoreRunsAtOnceThanJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.delay = time.Second
		var items []Item
		for i := range 5 {
			f.image(fmt.Sprint(i), "linux/amd64", fmt.Sprint("a", i), fmt.Sprint("b", i), "shared")
			items = append(items, item(fmt.Sprint("quay.io/a:", i)))
		}
		if sum := Run(t.Context(), Config{Source: f, Jobs: 3}, items); sum.Failed > 0 || f.most != 3 || f.asked["shared"] != 1 {
			t.Errorf("%+v; %d at once; asked %v", sum, f.most, f.asked)
		}
	})
}

func TestARunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.delay = time.Hour
		f.image("1", "linux/amd64", "layer")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if sum := Run(ctx, Config{Source: f, Jobs: 1}, []Item{item("quay.io/a:1"), item("quay.io/a:1"), item("dl.k8s.io/x")}); sum.Failed != 3 {
			t.Errorf("%+v", sum)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestByHTTPEveryByteIsVerifiedAndWhatIsThereIsNotSent(t *testing.T) {
	const good, there, wrong = "good", "there", "wrong"
	m, err := json.Marshal(ocispec.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Status", "entrepot; hit; detail=from-manifest")
		body := map[string]string{
			"/v2/quay.io/a/manifests/1":                                    string(m),
			"/v2/quay.io/a/blobs/" + digest.FromString(good).String():      good,
			"/v2/quay.io/a/blobs/" + digest.FromString(wrong).String():     "other",
			"/v2/quay.io/a/manifests/" + digest.FromString(wrong).String(): "other",
			"/dl.k8s.io/a%20b": "file",
		}[r.URL.EscapedPath()]
		switch {
		case strings.HasSuffix(r.URL.Path, digest.FromString(there).String()):
			w.Header().Set("Cache-Status", "entrepot; hit")
		case body == "":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[{"code":"X","message":"it is not here"}]}`)
			return
		}
		if r.Method == http.MethodGet {
			sent[r.URL.Path]++
			fmt.Fprint(w, body)
		}
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	h := &HTTP{URL: u, Client: server.Client()}
	blob := func(content string) (int64, error) {
		return h.Blob(t.Context(), "quay.io", "a", ocispec.Descriptor{Digest: digest.FromString(content)})
	}
	if got, err := h.Manifest(t.Context(), "quay.io", "a", "1"); err != nil || got.Digest != digest.FromBytes(m) {
		t.Errorf("a manifest: %+v, %v", got, err)
	}
	if got, err := h.Manifest(t.Context(), "quay.io", "a", digest.FromString(wrong).String()); err == nil {
		t.Errorf("a wrong manifest is taken: %+v", got)
	}
	if n, err := blob(good); n != 4 || err != nil {
		t.Errorf("a blob: %d, %v", n, err)
	}
	if n, err := blob(there); n != 0 || err != nil || len(sent) != 3 {
		t.Errorf("a blob that is there: %d, %v; sent %v", n, err, sent)
	}
	if _, err := blob(wrong); err == nil || !strings.Contains(err.Error(), "does not have the digest") {
		t.Errorf("a wrong blob: %v", err)
	}
	if _, err := blob("absent"); !final(err) || !strings.Contains(err.Error(), "it is not here") {
		t.Errorf("an absent blob: %v", err)
	}
	if n, err := h.File(t.Context(), "dl.k8s.io", "a%20b"); n != 4 || err != nil {
		t.Errorf("a file: %d, %v", n, err)
	}
}

func TestSchedulesRunEveryNowAndThenInTheirWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake() // the clock of the test begins at midnight, UTC
		span, err := mirror.ParseSpan("02:00-04:00")
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseFiles("dl.k8s.io/always")
		if err != nil {
			t.Fatal(err)
		}
		night, err := ParseFiles("dl.k8s.io/night")
		if err != nil {
			t.Fatal(err)
		}
		prefetcher := NewPrefetcher(PrefetchConfig{Source: f, Names: &someNames{}, Schedules: []Schedule{
			{Name: "always", Every: 6 * time.Hour, Patterns: []Pattern{p}, Limit: 10},
			{Name: "night", Every: time.Hour, Windows: mirror.Windows{Spans: []mirror.Span{span}}, Patterns: []Pattern{night}, Limit: 10},
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { prefetcher.Run(ctx) })
		for _, row := range []struct {
			hour          int
			always, night int
		}{{1, 1, 0}, {3, 1, 2}, {5, 1, 2}, {7, 2, 2}, {23, 4, 2}, {27, 5, 4}} {
			time.Sleep(time.Until(time.Date(2000, 1, 1, row.hour, 30, 0, 0, time.UTC)))
			synctest.Wait()
			f.mu.Lock()
			if f.asked["always"] != row.always || f.asked["night"] != row.night {
				t.Errorf("at %d:30: asked %v; want %d and %d", row.hour, f.asked, row.always, row.night)
			}
			f.mu.Unlock()
		}
		cancel()
		running.Wait()
	})
}

func TestARunThatItsWindowEndsGoesOnInTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.delay = 90 * time.Minute
		span, err := mirror.ParseSpan("00:00-01:00")
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseFiles("dl.k8s.io/large")
		if err != nil {
			t.Fatal(err)
		}
		prefetcher := NewPrefetcher(PrefetchConfig{Source: f, Names: &someNames{}, Schedules: []Schedule{
			{Name: "night", Every: 100 * time.Hour, Windows: mirror.Windows{Spans: []mirror.Span{span}}, Patterns: []Pattern{p}, Limit: 10},
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 49*time.Hour-time.Minute)
		defer cancel()
		prefetcher.Run(ctx)
		if f.asked["large"] != 3 {
			t.Errorf("it was tried in %d nights, want 3", f.asked["large"])
		}
	})
}
