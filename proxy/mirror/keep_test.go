package mirror

import (
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// signedImage is a mirror that holds an image with a layer and a signature by tag.
func signedImage(t *testing.T, layer string) (*production, *Mirror) {
	t.Helper()
	p := newProduction(t)
	root := p.push("app", layer)
	p.promote("app:v1", root)
	signature := p.push("app", "a signature")
	tag := "sha256-" + root.Encoded() + ".sig"
	p.mu.Lock()
	p.objects["/v2/app/manifests/"+tag] = p.objects["/v2/app/manifests/"+signature.String()]
	p.objects["/v2/app/tags/list"] = object{"application/json", []byte(`{"name": "app", "tags": ["` + tag + `"]}`)}
	p.mu.Unlock()
	m := p.follow(t, t.TempDir(), p.source(), nil)
	if got := sync1(t, m); got.Failed != 0 {
		t.Fatalf("the first sync: %+v", got)
	}
	return p, m
}

func heldBy(m *Mirror) map[digest.Digest]bool {
	held := map[digest.Digest]bool{}
	for _, blob := range m.cfg.Store.Held() {
		held[blob.Digest] = true
	}
	return held
}

// What a mirror holds may be all that there is: an attempt to make something good that
// fails must not cost what is well.
func TestARecheckThatFailsDropsNothingThatWasHeld(t *testing.T) {
	for name, trouble := range map[string]func(t *testing.T, p *production, m *Mirror, layer digest.Digest){
		"upstream lost the layer": func(_ *testing.T, p *production, _ *Mirror, layer digest.Digest) {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.objects, "/v2/app/blobs/"+layer.String())
		},
		"upstream lost everything": func(_ *testing.T, p *production, _ *Mirror, _ digest.Digest) {
			p.mu.Lock()
			defer p.mu.Unlock()
			clear(p.objects)
		},
		"its time is over": func(t *testing.T, p *production, m *Mirror, _ digest.Digest) {
			t.Helper()
			span, err := ParseSpan("11:00-12:00")
			if err != nil {
				t.Fatal(err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.slow = make(chan struct{})
			m.cfg.Windows.Spans = append(m.cfg.Windows.Spans, span)
			p.now = time.Date(2026, 11, 30, 11, 59, 59, 0, time.UTC)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, m := signedImage(t, "a layer")
			layer := digest.FromString("a layer")
			before := heldBy(m)
			if len(before) < 6 || !before[layer] {
				t.Fatalf("it holds %v", before)
			}
			m.cfg.Node.Quarantine(layer, errors.New("it has rotted"))
			trouble(t, p, m, layer)
			if got, err := m.Sync(t.Context(), SyncConfig{Recheck: true}); err == nil && got.Failed == 0 {
				t.Logf("the recheck: %+v", got)
			}
			after := heldBy(m)
			for d := range before {
				if d != layer && !after[d] {
					t.Errorf("%s was held, and is not any more", d)
				}
			}
		})
	}
}
