package transfer_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"entrepot/promote/transfer"
)

// copyApp copies the image from "app" to "app" of another registry.
func copyApp(t *testing.T, client *transfer.Client, from, to *fakeRegistry, d digest.Digest) error {
	t.Helper()
	_, err := client.Copy(t.Context(), transfer.Copy{From: ofRepo(from, "app"), To: ofRepo(to, "app"), Digest: d, Tags: []string{"v1"}})
	return err
}

func TestCopyEndsWithTheKindOfWhatIsWrong(t *testing.T) {
	lose := func(part string) func(p *pusher, root ocispec.Descriptor) {
		return func(p *pusher, root ocispec.Descriptor) {
			for d, content := range p.repo.blobs {
				if string(content) == part {
					delete(p.repo.blobs, d)
				}
			}
			if part == "root" {
				delete(p.repo.manifests, root.Digest)
			}
			if part == "child" {
				for d := range p.repo.manifests {
					if d != root.Digest {
						delete(p.repo.manifests, d)
					}
				}
			}
		}
	}
	for _, test := range []struct {
		name  string
		wrong func(p *pusher, root ocispec.Descriptor)
		kind  error
	}{
		{"lost image", lose("root"), transfer.ErrNotFound},
		{"lost platform", lose("child"), transfer.ErrNotFound},
		{"lost layer", lose("shared by all"), transfer.ErrNotFound},
		{"wrong byte in a layer", func(p *pusher, _ ocispec.Descriptor) {
			p.repo.blobs[digest.FromString("shared by all")] = []byte("shared by alL")
		}, transfer.ErrCorrupt},
		{"layer with fewer bytes", func(p *pusher, _ ocispec.Descriptor) {
			p.repo.blobs[digest.FromString("shared by all")] = []byte("shared")
		}, transfer.ErrCorrupt},
		{"wrong byte in the root", func(p *pusher, root ocispec.Descriptor) {
			m := p.repo.manifests[root.Digest]
			p.repo.manifests[root.Digest] = fakeManifest{m.mediaType, append([]byte(" "), m.content...)}
		}, transfer.ErrCorrupt},
		{"schema 1", func(p *pusher, root ocispec.Descriptor) {
			m := p.repo.manifests[root.Digest]
			p.repo.manifests[root.Digest] = fakeManifest{"application/vnd.docker.distribution.manifest.v1+prettyjws", m.content}
		}, transfer.ErrUnsupported},
		{"an index that is called a manifest", func(p *pusher, root ocispec.Descriptor) {
			m := p.repo.manifests[root.Digest]
			p.repo.manifests[root.Digest] = fakeManifest{ocispec.MediaTypeImageManifest, m.content}
		}, transfer.ErrUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			from, to := newFakeRegistry(t), newFakeRegistry(t)
			p := from.pusher(t, "app")
			root := p.index()
			test.wrong(p, root)
			err := copyApp(t, newClient(t), from, to, root.Digest)
			if !errors.Is(err, test.kind) {
				t.Fatalf("error %v, want %v", err, test.kind)
			}
			if !strings.Contains(err.Error(), from.host()) {
				t.Errorf("error does not name the source: %v", err)
			}
			if tags := to.repo("app").tags; len(tags) != 0 {
				t.Errorf("an incomplete image has the tags %v", tags)
			}
		})
	}
}

func TestAStaleListOfReferrersDoesNotStopTheImage(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	from.referrersAPI = false
	p := from.pusher(t, "app")
	root := p.image(nil, "v1", "layer")
	gone := digest.FromString("collected as garbage")
	stranger := p.image(nil, "", "about nothing")
	p.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{
		{MediaType: ocispec.MediaTypeImageManifest, Digest: gone, Size: 10}, stranger,
	}}, "sha256-"+root.Digest.Encoded())
	got, err := newClient(t).Copy(t.Context(), transfer.Copy{From: ofRepo(from, "app"), To: ofRepo(to, "app"), Digest: root.Digest})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Lost) != 1 || got.Lost[0] != gone || len(got.Attached) != 0 {
		t.Errorf("lost %v and attached %v, want %v lost", got.Lost, got.Attached, gone)
	}
}

func TestCosignTagsThatNameEachOtherInACircleEnd(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	p := from.pusher(t, "app")
	one, two := p.image(nil, "v1", "one"), p.image(nil, "v2", "two")
	p.repo.tags["sha256-"+one.Digest.Encoded()+".sig"] = two.Digest
	p.repo.tags["sha256-"+two.Digest.Encoded()+".sig"] = one.Digest
	if err := copyApp(t, newClient(t), from, to, one.Digest); err != nil {
		t.Fatal(err)
	}
}

func TestSignaturesThatOnlyTheDestinationHasAreKept(t *testing.T) {
	for _, test := range []struct {
		name         string
		theirs, ours []string
		moved, kept  bool
	}{
		{"the source has more", []string{"a", "b"}, []string{"a"}, true, false},
		{"the destination has more", []string{"a"}, []string{"a", "b"}, false, false},
		{"each has its own", []string{"a"}, []string{"b"}, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			from, to := newFakeRegistry(t), newFakeRegistry(t)
			root := from.pusher(t, "app").image(nil, "v1", "layer")
			tag := "sha256-" + root.Digest.Encoded() + ".sig"
			theirs := from.pusher(t, "app").image(nil, tag, test.theirs...)
			to.pusher(t, "app").image(nil, tag, test.ours...)
			got, err := newClient(t).Copy(t.Context(), transfer.Copy{From: ofRepo(from, "app"), To: ofRepo(to, "app"), Digest: root.Digest})
			if err != nil {
				t.Fatal(err)
			}
			if moved := to.repo("app").tags[tag] == theirs.Digest; moved != test.moved {
				t.Errorf("tag moved: %v", moved)
			}
			if kept := len(got.Kept) == 1; kept != test.kept {
				t.Errorf("kept %q", got.Kept)
			}
		})
	}
}

func TestFailuresThatPassAreTriedAgain(t *testing.T) {
	for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodPost, http.MethodPut} {
		t.Run(method, func(t *testing.T) {
			from, to := newFakeRegistry(t), newFakeRegistry(t)
			var mu sync.Mutex
			failed := make(map[string]int)
			fault := func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if r.Method != method || failed[r.URL.Path] == 2 {
					return false
				}
				failed[r.URL.Path]++
				if failed[r.URL.Path] == 2 {
					panic(http.ErrAbortHandler) // the connection breaks
				}
				w.WriteHeader(http.StatusBadGateway)
				return true
			}
			from.fault, to.fault = fault, fault
			root := from.pusher(t, "app").index()
			if err := copyApp(t, newClient(t), from, to, root.Digest); err != nil {
				t.Fatal(err)
			}
			sameContent(t, from.repo("app"), to.repo("app"))
		})
	}
}

func TestFailuresThatDoNotPassEndAfterSomeAttempts(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	to.fault = func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	root := from.pusher(t, "app").image(nil, "v1", "layer")
	err := copyApp(t, newClient(t, func(c *transfer.Config) { c.Attempts = 3 }), from, to, root.Digest)
	if !errors.Is(err, transfer.ErrUnavailable) || !strings.Contains(err.Error(), to.host()) {
		t.Fatal(err)
	}
	if asked := to.requests(); len(asked) != 3 {
		t.Errorf("%d requests, want 3", len(asked))
	}
}

func TestARateLimitPausesEverybodyAndLosesNothing(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	var mu sync.Mutex
	var until time.Time
	var within, refused, counted int
	to.fault = func(w http.ResponseWriter, _ *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if now.Before(until) {
			within++
			if within > 24 { // those that were under way
				t.Errorf("request %d within the pause", within)
			}
		} else if counted++; counted%90 != 0 {
			return false
		} else {
			until, within = now.Add(time.Second), 0
		}
		refused++
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	p := from.pusher(t, "app")
	var roots []ocispec.Descriptor
	for i := range 12 {
		roots = append(roots, p.image(nil, "", fmt.Sprint("layer of ", i)))
	}
	client := newClient(t)
	var group sync.WaitGroup
	for _, root := range roots {
		group.Go(func() {
			if err := copyApp(t, client, from, to, root.Digest); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if refused == 0 {
		t.Error("nothing was refused")
	}
	sameContent(t, from.repo("app"), to.repo("app"))
}

func TestAPauseBeyondReasonIsAnError(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	from.fault = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", time.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	err := copyApp(t, newClient(t), from, to, digest.FromString("any"))
	told, _ := errors.AsType[*transfer.Error](err)
	if !errors.Is(err, transfer.ErrRateLimited) || told.RetryAfter < 23*time.Hour || len(from.requests()) != 1 {
		t.Errorf("error %v after %q", err, from.requests())
	}
}

func TestABrokenSourceGoesOnAtTheByteWhereItBroke(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	layer := randomBytes(3 << 20)
	var ranges []string
	from.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.FromBytes(layer).String()) {
			return false
		}
		ranges = append(ranges, r.Header.Get("Range")) // one after another
		if len(ranges) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(layer)))
		_, _ = w.Write(layer[:1<<20])
		panic(http.ErrAbortHandler)
	}
	root := from.pusher(t, "app").image(nil, "v1", string(layer))
	if err := copyApp(t, newClient(t), from, to, root.Digest); err != nil {
		t.Fatal(err)
	}
	sameContent(t, from.repo("app"), to.repo("app"))
	var start, end int
	if len(ranges) != 2 {
		t.Fatalf("asked for %q", ranges)
	}
	if _, err := fmt.Sscanf(ranges[1], "bytes=%d-%d", &start, &end); err != nil || start == 0 || end != len(layer)-1 {
		t.Errorf("asked for %q", ranges)
	}
}

func TestAStalledSourceIsCutAndReadAgain(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	layer := randomBytes(1 << 20)
	var asked atomic.Int32
	from.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.FromBytes(layer).String()) || asked.Add(1) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(layer)))
		_, _ = w.Write(layer[:100_000])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	}
	root := from.pusher(t, "app").image(nil, "v1", string(layer))
	client := newClient(t, func(c *transfer.Config) { c.StallTimeout = 100 * time.Millisecond })
	if err := copyApp(t, client, from, to, root.Digest); err != nil {
		t.Fatal(err)
	}
	sameContent(t, from.repo("app"), to.repo("app"))
}

func TestAHostThatIsDownHoldsNobodyUp(t *testing.T) {
	from, to := newFakeRegistry(t), newFakeRegistry(t)
	root := from.pusher(t, "app").image(nil, "v1", "layer")
	var down atomic.Bool
	down.Store(true)
	to.fault = func(w http.ResponseWriter, _ *http.Request) bool {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down.Load()
	}
	client := newClient(t, func(c *transfer.Config) { c.Attempts = 4 })
	for i := range 10 {
		to.forget()
		if err := copyApp(t, client, from, to, root.Digest); !errors.Is(err, transfer.ErrUnavailable) {
			t.Fatal(err)
		}
		want := 4
		if i >= 5 {
			want = 1
		}
		if asked := len(to.requests()); asked != want {
			t.Errorf("image %d: %d requests, want %d", i, asked, want)
		}
	}
	down.Store(false)
	if err := copyApp(t, client, from, to, root.Digest); err != nil {
		t.Errorf("once it is back: %v", err)
	}
}

func TestTagsThatAreNoneGetNowhere(t *testing.T) {
	reg := newFakeRegistry(t)
	root := reg.pusher(t, "app").image(nil, "v1", "layer")
	client, repo := newClient(t), ofRepo(reg, "app")
	for _, tag := range []string{"", "../other/manifests/v1", "a/b", ".a", "-a", "a b", "a?x", strings.Repeat("a", 129)} {
		_, resolveErr := client.Resolve(t.Context(), transfer.Ref{Repository: repo, Tag: tag})
		_, copyErr := client.Copy(t.Context(), transfer.Copy{From: repo, To: repo, Digest: root.Digest, Tags: []string{tag}})
		for _, err := range []error{
			resolveErr, copyErr, client.Tag(t.Context(), repo, root.Digest, tag), client.DeleteTag(t.Context(), repo, tag),
		} {
			if !errors.Is(err, transfer.ErrUnsupported) {
				t.Errorf("%q: %v", tag, err)
			}
		}
	}
	if asked := reg.requests(); len(asked) != 0 {
		t.Errorf("asked %q", asked)
	}
}
