package proxy

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"entrepot/blobstore"
	"entrepot/promote/ledger"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// promotedFile is what the ledger has about a file, given by its decoded path, if
// the upstream has a ledger that knows it.
func (up *upstreamState) promotedFile(path string) (ledger.Entry, bool) {
	if up.ledger.Ledger == nil {
		return ledger.Entry{}, false
	}
	for _, name := range up.ledger.Names {
		if e, known := up.ledger.Ledger.Lookup(name + "/" + path); known && e.Kind == ledger.File {
			return e, true
		}
	}
	return ledger.Entry{}, false
}

// promotedFile answers a name that the ledger knows. Its digest is known before
// anything is fetched, so that it is verified as an image's blobs are.
func (n *Node) promotedFile(ctx context.Context, key nameKey, e *ledger.Entry, head bool) (registry.File, registry.CacheStatus, error) {
	cs := registry.CacheStatus{Outcome: registry.OutcomeHit, Upstream: key.up.name}
	fail := func(err error) (registry.File, registry.CacheStatus, error) {
		cs.Outcome = registry.OutcomeError
		return registry.File{}, cs, clientError(err, "file", key.up, key.repo, "")
	}
	if !e.Exists() {
		why := ""
		if e.Reason != "" {
			why = ": " + e.Reason
		}
		return fail(registry.Errorf(errcode.ErrorCodeNameUnknown, "%s/%s was deleted on %s%s", key.up.name, key.repo, e.Time.Format(time.RFC3339), why))
	}
	if err := key.up.revoked(e.Digest); err != nil {
		return fail(err)
	}
	if time.Since(key.up.ledger.Ledger.Status().Checked) > unheard {
		cs.Outcome, cs.Detail = registry.OutcomeStale, "ledger-out-of-reach"
	}
	v, brought := n.files.peek(key)
	known := brought && v.digest == e.Digest
	if key.up.client.Offline() && !n.hasVersion(ctx, v, brought, e.Digest) {
		return fail(blobstore.ErrNotExist) // a name that nobody brought, whatever else has its content
	}
	if head {
		f, err := n.headPromoted(ctx, key, e, v, known)
		if err != nil {
			return fail(err)
		}
		return f, cs, nil
	}
	size := e.Size
	if size == 0 {
		size = -1
	}
	var byName *fileSource
	content, size, err := n.fileContent(ctx, e.Digest, size, key.fileURI(), &cs, func() []source {
		// By name, and by digest: the name may have moved on since.
		byName = newFileSource(key.up, key.repo, "", e.Digest, nil)
		return []source{byName, newFileSource(key.up, blobPathOf(e.Digest), "", e.Digest, nil)}
	})
	if err != nil {
		return fail(err)
	}
	if !known {
		var m *fileMeta
		if byName != nil {
			m = byName.meta()
		}
		v = n.describePromoted(ctx, key, e, m, size)
	}
	f := v.described
	f.Size, f.Content = size, content
	return f, cs, nil
}

// blobPathOf is where an origin has content by its digest.
func blobPathOf(d digest.Digest) string { return "blobs/" + string(d) }

// describePromoted says what clients are told of a promoted file besides its
// content: what upstream said when it was fetched or, where that was under another
// name, what it says now, if it does.
func (n *Node) describePromoted(ctx context.Context, key nameKey, e *ledger.Entry, m *fileMeta, size int64) *fileVersion {
	if v, known := n.files.peek(key); known && v.digest == e.Digest { // another request was first
		return v
	}
	if m == nil {
		ctx, cancel := context.WithTimeout(ctx, foregroundTimeout)
		defer cancel()
		if told, err := n.headFile(ctx, key); err == nil && (told.Size < 0 || size < 0 || told.Size == size) {
			m = told
		}
	}
	if m == nil || size < 0 {
		return n.undescribed(e, size)
	}
	v := newFileVersion(m.sized(size), e.Digest, size)
	n.files.put(key, v)
	return v
}

// undescribed is a promoted file of which only the ledger tells.
func (n *Node) undescribed(e *ledger.Entry, size int64) *fileVersion {
	m := &fileMeta{Header: make(http.Header), Size: size, Date: e.Time}
	if e.MediaType != "" {
		m.Header.Set("Content-Type", e.MediaType)
	}
	m.Header.Set("Cache-Control", "no-cache") // names move
	return newFileVersion(m, e.Digest, size)
}

func (n *Node) headPromoted(ctx context.Context, key nameKey, e *ledger.Entry, v *fileVersion, known bool) (registry.File, error) {
	if known {
		return v.described, nil
	}
	size := int64(-1)
	if info, err := n.local.Stat(ctx, e.Digest); err == nil {
		size = info.Size
	}
	m, err := n.headFile(ctx, key)
	switch {
	case err == nil && (size < 0 || m.Size == size):
		return m.described(e.Digest, m.Size), nil
	case size < 0 && e.Size > 0:
		size = e.Size
	case size < 0 && err != nil:
		return registry.File{}, err
	}
	return n.undescribed(e, size).described, nil
}

// fileByDigest answers content by its digest: of the upstream, or of those that
// promotion writes where none is named. Whoever knows a digest may have the content,
// as with an image's blobs; which of them hold it, [holders] says.
func (n *Node) fileByDigest(ctx context.Context, up *upstreamState, d digest.Digest, head bool) (registry.File, registry.CacheStatus, error) {
	candidates := n.promotedUpstreams()
	if up != nil {
		candidates = []*upstreamState{up}
	}
	f, cs, err := n.contentOf(ctx, up, candidates, d, head)
	if err != nil || n.holders == nil {
		return f, cs, err
	}
	worst := blobstore.ErrNotExist
	for _, c := range candidates {
		err := n.holders.vouch(ctx, nameKey{up: c, repo: blobPathOf(d)}, f.Size)
		if err == nil {
			return f, cs, nil
		}
		if worse(worst, err) {
			worst = err
		}
	}
	if f.Content != nil {
		worst = errors.Join(worst, f.Content.Close())
	}
	return registry.File{}, registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: cs.Upstream}, noFile(worst, up, candidates, d)
}

// noFile tells a client why there is no content with a digest, of an upstream or, where
// that is nil, of candidates.
func noFile(err error, up *upstreamState, candidates []*upstreamState, d digest.Digest) error {
	if up == nil && errors.Is(err, blobstore.ErrNotExist) {
		err = registry.Errorf(errcode.ErrorCodeBlobUnknown, "there is no content with digest %s", d)
	}
	if len(candidates) == 0 {
		return err
	}
	return clientError(err, "file", candidates[0], blobPathOf(d), "")
}

// contentOf answers content by its digest from the store, and else from the
// candidates, which are up alone unless that is nil.
func (n *Node) contentOf(ctx context.Context, up *upstreamState, candidates []*upstreamState, d digest.Digest, head bool) (registry.File, registry.CacheStatus, error) {
	cs := registry.CacheStatus{Outcome: registry.OutcomeHit}
	if up != nil {
		cs.Upstream = up.name
	}
	fail := func(err error) (registry.File, registry.CacheStatus, error) {
		cs.Outcome = registry.OutcomeError
		return registry.File{}, cs, noFile(err, up, candidates, d)
	}
	for _, c := range candidates {
		if err := c.revoked(d); err != nil {
			return fail(err)
		}
	}
	m := &fileMeta{Header: make(http.Header), Size: -1}
	m.Header.Set("Content-Type", "application/octet-stream")
	m.Header.Set("Cache-Control", "max-age=31536000, immutable")
	if head {
		if b, err := n.stored(ctx, d, true); err == nil {
			return m.described(d, b.Size), cs, nil
		}
	}
	var sources []source
	key := nameKey{repo: blobPathOf(d)}
	worst := blobstore.ErrNotExist
	for _, c := range candidates {
		key.up = c
		err := n.absent.recall(key)
		if err == nil && head {
			var told *fileMeta
			if told, err = n.headFile(ctx, key); err == nil {
				cs.Outcome, cs.FwdStatus = registry.OutcomeMiss, http.StatusOK
				return m.described(d, told.Size), cs, nil
			}
		}
		if worse(worst, err) {
			worst = err
		}
		if err == nil {
			sources = append(sources, newFileSource(c, key.repo, "", d, nil))
		}
	}
	if head {
		return fail(worst)
	}
	uri := "/" + blobPathOf(d)
	if up != nil {
		uri = "/" + up.name + uri
	}
	content, size, err := n.fileContent(ctx, d, -1, uri, &cs, func() []source { return sources })
	if err != nil {
		if len(sources) == 1 {
			n.absent.remember(key, err)
		}
		if len(sources) == 0 {
			err = worst
		}
		return fail(err)
	}
	f := m.described(d, size)
	f.Content = content
	return f, cs, nil
}

// promotedUpstreams are those that have content by digest: the ones with a
// ledger, and the default.
func (n *Node) promotedUpstreams() []*upstreamState {
	var ups []*upstreamState
	for _, name := range slices.Sorted(maps.Keys(n.fileUpstreams)) {
		if up := n.fileUpstreams[name]; up.ledger.Ledger != nil || up == n.fileFallback {
			ups = append(ups, up)
		}
	}
	return ups
}
