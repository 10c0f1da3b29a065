package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"entrepot/proxy/peers"
	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// Kinds of records.
const (
	tagRecords      = "tags"      // tags/<upstream>/<repo>/<tag>: what a tag points to
	manifestRecords = "manifests" // manifests/<upstream>/<repo>/<digest>: as what a manifest was sent
)

// maxAttempts bounds how many URLs are tried for one manifest.
const maxAttempts = 4

// headRecord is the JSON value of tag and manifest records.
type headRecord struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	Checked   time.Time     `json:"checked,omitzero"` // tags: when upstream last said so
}

func (r *headRecord) head() (*registry.ManifestHead, bool) {
	if r.Digest.Validate() != nil || r.Size < 0 || r.Size > registry.MaxManifestSize {
		return nil, false
	}
	return registry.NewManifestHead(r.MediaType, r.Digest, r.Size), true
}

func recordOf(h *registry.ManifestHead, checked time.Time) headRecord {
	return headRecord{MediaType: h.MediaType, Digest: h.Digest, Size: h.Size, Checked: checked}
}

func (n *Node) newTags() *names[*registry.ManifestHead] {
	t := newNames[*registry.ManifestHead](maxTags)
	t.spawn = n.spawn
	t.check = n.checkTag
	t.equal = func(a, b *registry.ManifestHead) bool { return a.Digest == b.Digest && a.MediaType == b.MediaType }
	t.load = func(key nameKey) (*registry.ManifestHead, time.Time, bool, error) {
		var r headRecord
		if !n.readRecord(key.recordKey(tagRecords), &r) {
			return nil, time.Time{}, false, nil
		}
		h, ok := r.head()
		return h, r.Checked, ok, nil
	}
	t.save = func(key nameKey, h *registry.ManifestHead, checked time.Time, changed bool) {
		n.writeRecord(key.recordKey(tagRecords), recordOf(h, checked), changed)
	}
	t.drop = func(key nameKey) { n.dropRecord(key.recordKey(tagRecords)) }
	t.touch = func(key nameKey) { n.touchRecord(key.recordKey(tagRecords)) }
	return t
}

// Manifest implements registry.Backend.
func (n *Node) Manifest(ctx context.Context, req *registry.Request) (*registry.Manifest, registry.CacheStatus, error) {
	up, repo, err := registry.RouteImage(req, n.upstreams, n.fallback)
	if err != nil {
		return nil, registry.CacheStatus{Outcome: registry.OutcomeError}, err
	}
	if req.Tag == "" {
		if err := up.revoked(req.Digest); err != nil {
			return nil, registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: up.name}, err
		}
		return n.manifestByDigest(ctx, up, repo, req.Digest, req.Head)
	}
	if e, known := up.promoted(repo, req.Tag); known {
		return n.promotedManifest(ctx, up, repo, req.Tag, &e, req.Head)
	}
	cs := registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: up.name}
	key := nameKey{up, repo, req.Tag}
	a, err := n.tags.get(ctx, key, &up.policy, req.Head)
	if err == nil {
		err = up.revoked(a.value.Digest)
	}
	if err != nil {
		return nil, cs, clientError(err, "manifest", up, repo, req.Tag)
	}
	m := &registry.Manifest{ManifestHead: a.value}
	if !req.Head {
		if m.Body, err = n.body(ctx, up, repo, a.value.Digest); err != nil {
			return nil, cs, clientError(err, "manifest", up, repo, req.Tag)
		}
	}
	cs.HasTTL, cs.Age, cs.TTL = true, a.age, up.policy.TTL-a.age
	cs.Detail = a.failure
	cs.Collapsed = a.collapsed
	switch {
	case a.asked && a.failure == "":
		cs.Outcome, cs.FwdStatus, cs.Stored = registry.OutcomeMiss, http.StatusOK, true
	case a.fresh:
		cs.Outcome = registry.OutcomeHit
	default:
		cs.Outcome = registry.OutcomeStale
	}
	return m, cs, nil
}

// manifestByDigest answers what never changes: from the store when this
// repository was seen to hold it, else from upstream.
func (n *Node) manifestByDigest(ctx context.Context, up *upstreamState, repo string, d digest.Digest, head bool) (*registry.Manifest, registry.CacheStatus, error) {
	cs := registry.CacheStatus{Outcome: registry.OutcomeHit, Upstream: up.name}
	key := nameKey{up, repo, string(d)}
	h, ok := n.known(key) //nolint:contextcheck // what is loaded is for every later request
	if ok {
		if head {
			return &registry.Manifest{ManifestHead: h}, cs, nil
		}
		if b, err := n.readSmall(ctx, d, registry.MaxManifestSize); err == nil {
			return &registry.Manifest{ManifestHead: h, Body: b}, cs, nil
		}
	}
	if caller, _ := peers.CallerOf(ctx); caller.OnlyIfCached {
		cs.Outcome = registry.OutcomeError
		return nil, cs, errNotHere(d)
	}
	m, collapsed, err := n.manifestFlights.do(ctx, n, key, head, func(ctx context.Context) (*registry.Manifest, error) {
		return n.fetchManifest(ctx, key.clone(), head)
	})
	if err != nil {
		cs.Outcome = registry.OutcomeError
		return nil, cs, clientError(err, "manifest", up, repo, string(d))
	}
	cs.Outcome, cs.FwdStatus, cs.Stored, cs.Collapsed = registry.OutcomeMiss, http.StatusOK, m.Body != nil, collapsed
	return m, cs, nil
}

// body returns a manifest's bytes by digest. Where upstreams are private, that a tag
// is said to lead to them does not do.
func (n *Node) body(ctx context.Context, up *upstreamState, repo string, d digest.Digest) ([]byte, error) {
	if n.holders == nil {
		if b, ok := n.inMemory(ctx, d); ok {
			return b, nil
		}
	}
	m, _, err := n.manifestByDigest(ctx, up, repo, d, false)
	if err != nil {
		return nil, err
	}
	return m.Body, nil
}

// known returns the head of a manifest that the repository was seen to hold.
func (n *Node) known(key nameKey) (*registry.ManifestHead, bool) {
	if h, ok := n.manifests.Get(key); ok {
		return h, true
	}
	var r headRecord
	if !n.readRecord(key.recordKey(manifestRecords), &r) {
		return nil, false
	}
	h, ok := r.head()
	if !ok {
		return nil, false
	}
	key = key.clone()
	n.manifests.Add(key, h)
	if b, err := n.readSmall(context.Background(), h.Digest, registry.MaxManifestSize); err == nil {
		n.sizes.learn(key.up, key.repo, b)
	}
	return h, true
}

// checkTag asks upstream what a tag points to: with a HEAD, which no registry
// counts as a pull, unless the manifest is wanted too, and there are no peers. A tag that has moved
// counts only once its manifest is stored, so that a node never points to what
// it cannot give.
func (n *Node) checkTag(ctx context.Context, key nameKey, old *registry.ManifestHead, known, head bool) (*registry.ManifestHead, error) {
	if !known && !head && n.region == nil { // in a region one node gets it, by its digest
		m, err := n.fetchManifest(ctx, key, false)
		if err != nil {
			return nil, err
		}
		return m.ManifestHead, nil
	}
	m, err := n.fetchManifest(ctx, key, true)
	if err != nil {
		return nil, err
	}
	if known && m.Digest == old.Digest || !known && head {
		return m.ManifestHead, nil
	}
	if _, err := n.body(ctx, key.up, key.repo, m.Digest); err != nil {
		return nil, fmt.Errorf("fetching %s, to which %s leads: %w", m.Digest, key.ref, err)
	}
	return m.ManifestHead, nil
}

// fetchManifest asks upstream for a manifest by tag or digest, verifies it,
// and stores it. With head it asks for its description only, and Body is nil.
func (n *Node) fetchManifest(ctx context.Context, key nameKey, head bool) (*registry.Manifest, error) {
	method := http.MethodGet
	if head {
		method = http.MethodHead
	} else if m, ok := n.manifestOfRegion(ctx, key); ok {
		n.learnManifest(ctx, key, m)
		return m, nil
	}
	bad := map[*upstream.Endpoint]bool{}
	var wrong error
	for range maxAttempts {
		resp, err := key.up.client.Do(ctx, &upstream.Request{
			Method:     method,
			Repository: key.repo,
			Path:       key.repo + "/manifests/" + key.ref,
			Skip:       func(e *upstream.Endpoint) bool { return bad[e] },
		})
		if err != nil && wrong != nil {
			return nil, wrong
		}
		if err != nil {
			return nil, err
		}
		var m *registry.Manifest
		if head {
			if m, err = readHead(resp, key.ref); errors.Is(err, errNoDigest) {
				return n.fetchManifest(ctx, key, false)
			}
		} else {
			m, err = readManifest(resp, key.ref)
		}
		resp.Body.Close()
		if err == nil {
			n.learnManifest(ctx, key, m)
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		wrong = fmt.Errorf("%s: %w", resp.Endpoint, err)
		bad[resp.Endpoint] = true
		resp.Endpoint.Penalize(wrong)
		if len(bad) == len(key.up.client.Endpoints()) {
			break
		}
	}
	return nil, &upstream.Error{Kind: upstream.Invalid, Err: wrong}
}

// learnManifest keeps what upstream sent.
func (n *Node) learnManifest(ctx context.Context, key nameKey, m *registry.Manifest) {
	if m.Body == nil {
		return
	}
	n.keepSmall(ctx, m.Digest, m.Body)
	byDigest := nameKey{key.up, key.repo, string(m.Digest)}
	n.manifests.Add(byDigest, m.ManifestHead)
	n.writeRecord(byDigest.recordKey(manifestRecords), recordOf(m.ManifestHead, time.Time{}), true) //nolint:contextcheck // kept whoever asked
	n.sizes.learn(key.up, key.repo, m.Body)
}

var (
	errNoDigest    = errors.New("upstream does not tell the manifest's digest")
	errTooLarge    = fmt.Errorf("the manifest is larger than %d bytes", registry.MaxManifestSize)
	errWrongDigest = errors.New("the manifest does not have the digest it should have")
)

// readHead describes a manifest from the answer to a HEAD.
func readHead(resp *upstream.Response, ref string) (*registry.Manifest, error) {
	d, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	if err != nil || resp.TotalSize < 0 {
		return nil, errNoDigest
	}
	if isDigest(ref) && ref != string(d) {
		return nil, fmt.Errorf("asked for %s, sent %s: %w", ref, d, errWrongDigest)
	}
	if resp.TotalSize > registry.MaxManifestSize {
		return nil, errTooLarge
	}
	return &registry.Manifest{ManifestHead: registry.NewManifestHead(mediaType(resp, nil), d, resp.TotalSize)}, nil
}

// readManifest reads a manifest and verifies it against the digest asked for,
// or by tag against the one upstream announces.
func readManifest(resp *upstream.Response, ref string) (*registry.Manifest, error) {
	if resp.TotalSize > registry.MaxManifestSize {
		return nil, errTooLarge
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, registry.MaxManifestSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	if len(b) > registry.MaxManifestSize {
		return nil, errTooLarge
	}
	announced, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	if err != nil {
		announced = ""
	}
	want := announced
	if isDigest(ref) {
		want = digest.Digest(ref)
	}
	if want == "" {
		want = digest.FromBytes(b)
	}
	if got := want.Algorithm().FromBytes(b); got != want {
		return nil, fmt.Errorf("got %s instead of %s: %w", got, want, errWrongDigest)
	}
	if announced != "" && announced.Algorithm() == want.Algorithm() && announced != want {
		return nil, fmt.Errorf("upstream calls it %s instead of %s: %w", announced, want, errWrongDigest)
	}
	return &registry.Manifest{ManifestHead: registry.NewManifestHead(mediaType(resp, b), want, int64(len(b))), Body: b}, nil
}

func mediaType(resp *upstream.Response, body []byte) string {
	ct := resp.Header.Get("Content-Type")
	if ct == "" {
		ct = declaredMediaType(body)
	}
	return ct
}

// isDigest tells a digest from a tag: no tag holds a colon.
func isDigest(ref string) bool { return strings.Contains(ref, ":") }
