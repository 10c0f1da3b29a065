package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/peers"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// File implements registry.FileBackend. Content by digest is content; a name that
// the upstream's ledger knows is what that says; any other is what upstream has.
func (n *Node) File(ctx context.Context, req *registry.FileRequest) (registry.File, registry.CacheStatus, error) {
	if d, ok := registry.DigestOfPath(req.Path); ok {
		return n.fileByDigest(ctx, nil, d, req.Head)
	}
	up, path := registry.RouteFile(req, n.fileUpstreams, n.fileFallback)
	if d, ok := registry.DigestOfPath(path); ok {
		return n.fileByDigest(ctx, up, d, req.Head)
	}
	if up == nil {
		return registry.File{}, registry.CacheStatus{Outcome: registry.OutcomeError}, registry.NoFileUpstream(req)
	}
	name, err := url.PathUnescape(path)
	if err != nil {
		name = path
	}
	if e, known := up.promotedFile(name); known {
		return n.promotedFile(ctx, nameKey{up: up, repo: path}, &e, req.Head)
	}
	return n.fileByName(ctx, nameKey{up, path, req.Query}, up.files.policy(name), req.Head)
}

// maxFileRounds bounds how often a request begins anew because the version that a
// name led to could not be had any more.
const maxFileRounds = 3

// fileByName answers a name from what upstream last said of it.
func (n *Node) fileByName(ctx context.Context, key nameKey, policy *Policy, head bool) (registry.File, registry.CacheStatus, error) {
	failed := registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: key.up.name}
	if head {
		if v, known := n.files.peek(key); !known || !v.canTell(policy, key.up.files) {
			return n.unknownHead(ctx, key)
		}
	}
	var err error
	for range maxFileRounds {
		var a answer[*fileVersion]
		if a, err = n.files.get(ctx, key, policy, head); err != nil {
			break
		}
		v := a.value
		if err = key.up.revoked(v.digest); err != nil {
			break
		}
		rule := key.up.files.rule(v, policy)
		cs := registry.CacheStatus{
			Outcome: registry.OutcomeHit, Upstream: key.up.name, HasTTL: true,
			Age: max(0, a.age) + v.aged, TTL: rule.TTL - a.age, Detail: a.failure, Collapsed: a.collapsed,
		}
		if a.asked && a.failure == "" {
			cs.Detail = "revalidated"
		} else if !a.fresh {
			cs.Outcome = registry.OutcomeStale
		}
		var f registry.File
		if f, err = n.openVersion(ctx, key, &a, head, &cs); err == nil {
			return f, cs, nil
		}
		if !errors.Is(err, errVersionGone) {
			break
		}
	}
	return registry.File{}, failed, clientError(err, "file", key.up, key.repo, key.ref)
}

// errVersionGone says that a version cannot be had, and that its name knows.
var errVersionGone = errors.New("upstream has another version of the file, or none, and this one is not kept")

// openVersion opens the content of a version, from the store or from a fill.
func (n *Node) openVersion(ctx context.Context, key nameKey, a *answer[*fileVersion], head bool, cs *registry.CacheStatus) (registry.File, error) {
	v := a.value
	f := v.described
	if head {
		return f, nil
	}
	if v.digest == "" {
		return n.openFilling(ctx, key, v, a.asked && !a.collapsed, cs)
	}
	content, _, err := n.fileContent(ctx, v.digest, f.Size, key.fileURI(), cs, func() []source {
		return []source{newFileSource(key.up, key.repo, key.ref, v.digest, v.meta)}
	})
	if err == nil {
		f.Content = content
		return f, nil
	}
	if errors.Is(err, errReplaced) || errors.Is(err, errNoValidator) || errors.Is(err, blobstore.ErrDigestMismatch) || isRefusal(err) {
		n.files.change(key, func(now *fileVersion) bool { return now.digest == v.digest }, nil, false, time.Time{}, nil)
		return f, errors.Join(errVersionGone, err)
	}
	return f, err
}

// openFilling joins the fill that brings a version; started says that this
// request had it started.
func (n *Node) openFilling(ctx context.Context, key nameKey, v *fileVersion, started bool, cs *registry.CacheStatus) (registry.File, error) {
	f := v.described
	if !v.fill.join(ctx, nil) {
		select {
		case <-v.fill.finished:
		case <-ctx.Done():
			return f, ctx.Err()
		}
		n.fileArrived(key, v) //nolint:contextcheck // for all
		v.fill.mu.Lock()
		err := v.fill.err
		v.fill.mu.Unlock()
		return f, errors.Join(errVersionGone, err)
	}
	r := &fillReader{fill: v.fill, patient: true}
	size, err := r.ready(ctx)
	if err == nil {
		err = r.open(ctx)
	}
	if err != nil {
		_ = r.Close()
		if errors.Is(err, blobstore.ErrNotExist) { // arrived, and evicted
			n.fileArrived(key, v) //nolint:contextcheck // for all
			err = errors.Join(errVersionGone, err)
		}
		return f, err
	}
	f.Size, f.Content = size, r
	cs.Outcome, cs.Stored, cs.Detail, cs.Collapsed = registry.OutcomeMiss, !v.transient, "", !started
	if started {
		cs.FwdStatus = http.StatusOK
	}
	return f, nil
}

// fileContent opens content of a known digest: from memory, from the store, or by
// a fill from the shared store or else from sources, which are made when they are
// needed. Peers have it at uri.
func (n *Node) fileContent(ctx context.Context, d digest.Digest, size int64, uri string, cs *registry.CacheStatus, sources func() []source) (registry.Content, int64, error) {
	refill := func(ctx context.Context) (registry.Content, error) {
		content, _, err := n.fileContent(ctx, d, size, uri, new(registry.CacheStatus), sources)
		return content, err
	}
	for first := true; ; first = false {
		b, err := n.stored(ctx, d, false)
		if err == nil {
			return orRefill(b.Content, refill), b.Size, nil
		}
		if !errors.Is(err, blobstore.ErrNotExist) {
			n.log.Error("reading the store", "digest", d, "error", err)
			if !first {
				return nil, 0, err
			}
		}
		if caller, _ := peers.CallerOf(ctx); caller.OnlyIfCached {
			return n.onItsWay(ctx, d)
		}
		var from []source
		if n.remote != nil {
			from = append(from, &remoteSource{remote: n.remote, digest: d})
		}
		if n.region != nil {
			from = append(from, n.region.fileSource(ctx, d, uri))
		}
		r, filled, joined, err := n.filling(ctx, d, size, paced(ctx, append(from, sources()...)))
		if errors.Is(err, errStored) { // committed since we looked
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		r.patient = true
		cs.Outcome, cs.Stored, cs.Collapsed, cs.Detail = registry.OutcomeMiss, true, joined, r.detail()
		if !joined {
			cs.FwdStatus = http.StatusOK
		}
		return r, filled, nil
	}
}

// fileURI is where a node has the file of a name.
func (k nameKey) fileURI() string { return "/" + k.up.name + "/" + k.repo + query(k.ref) }

// unknownHead describes a file that was never downloaded.
func (n *Node) unknownHead(ctx context.Context, key nameKey) (registry.File, registry.CacheStatus, error) {
	cs := registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: key.up.name}
	m, err := n.headFile(ctx, key)
	if err != nil {
		return registry.File{}, cs, clientError(err, "file", key.up, key.repo, key.ref)
	}
	cs.Outcome, cs.FwdStatus = registry.OutcomeMiss, http.StatusOK
	return m.described("", m.Size), cs, nil
}
