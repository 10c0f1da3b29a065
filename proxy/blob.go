package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"

	"entrepot/blobstore"
	"entrepot/proxy/peers"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// maxMemoryBlob bounds, in bytes, the blobs that are kept in memory. Larger ones
// cost less when the kernel sends them.
const maxMemoryBlob = 256 << 10

// Blob implements registry.Backend. Content by digest is the same whoever names
// it; whether it is theirs to have, holders says, before any of it is sent.
func (n *Node) Blob(ctx context.Context, req *registry.Request) (registry.Blob, registry.CacheStatus, error) {
	up, repo, err := registry.RouteImage(req, n.upstreams, n.fallback)
	if err != nil {
		return registry.Blob{}, registry.CacheStatus{Outcome: registry.OutcomeError}, err
	}
	cs := registry.CacheStatus{Outcome: registry.OutcomeHit, Upstream: up.name}
	if err := up.revoked(req.Digest); err != nil {
		cs.Outcome = registry.OutcomeError
		return registry.Blob{}, cs, err
	}
	blob, cs, err := n.blob(ctx, up, repo, req)
	if err != nil || n.holders == nil {
		return blob, cs, err
	}
	if err := n.holders.vouch(ctx, nameKey{up, repo, string(req.Digest)}, blob.Size); err != nil {
		if blob.Content != nil {
			err = errors.Join(err, blob.Content.Close())
		}
		return registry.Blob{}, registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: up.name}, clientError(err, "blob", up, repo, string(req.Digest))
	}
	return blob, cs, nil
}

// blob answers from memory, from the local store, or by a fill.
func (n *Node) blob(ctx context.Context, up *upstreamState, repo string, req *registry.Request) (registry.Blob, registry.CacheStatus, error) {
	cs := registry.CacheStatus{Outcome: registry.OutcomeHit, Upstream: up.name}
	refill := func(ctx context.Context) (registry.Content, error) {
		return n.refill(ctx, up, repo, req.Digest)
	}
	blob, err := n.stored(ctx, req.Digest, req.Head)
	if err == nil {
		blob.Content = orRefill(blob.Content, refill)
		return blob, cs, nil
	}
	if !errors.Is(err, blobstore.ErrNotExist) {
		n.log.Error("reading the store", "digest", req.Digest, "error", err)
	}
	if req.Head {
		return n.headBlob(ctx, up, repo, req.Digest)
	}
	caller, fromPeer := peers.CallerOf(ctx)
	if caller.OnlyIfCached {
		return n.blobOnItsWay(ctx, req.Digest, cs)
	}
	if u, size, ok := n.presigned(ctx, req.Digest); ok && !fromPeer {
		return registry.Blob{Digest: req.Digest, Size: size, Redirect: u}, cs, nil
	}
	blob, cs, err = n.filled(ctx, up, repo, req.Digest)
	if err != nil {
		return registry.Blob{}, registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: up.name}, clientError(err, "blob", up, repo, string(req.Digest))
	}
	blob.Content = orRefill(blob.Content, refill)
	return blob, cs, nil
}

// filled is a blob by its fill, or from the store when that has it by now.
func (n *Node) filled(ctx context.Context, up *upstreamState, repo string, d digest.Digest) (registry.Blob, registry.CacheStatus, error) {
	for {
		blob, cs, err := n.fillBlob(ctx, up, repo, d)
		if !errors.Is(err, errStored) {
			return blob, cs, err
		}
		if blob, err = n.stored(ctx, d, false); !errors.Is(err, blobstore.ErrNotExist) {
			return blob, cs, err
		}
		// It was evicted again, which says nothing of upstream.
	}
}

// stored answers from memory or the local store.
func (n *Node) stored(ctx context.Context, d digest.Digest, head bool) (registry.Blob, error) {
	if b, ok := n.inMemory(ctx, d); ok {
		return registry.Blob{Digest: d, Size: int64(len(b)), Content: bytesContent(b)}, nil
	}
	if head {
		info, err := n.local.Stat(ctx, d)
		return registry.Blob{Digest: d, Size: info.Size}, err
	}
	f, err := n.local.OpenFile(d)
	if err != nil {
		return registry.Blob{}, err
	}
	if f.Info.Size > maxMemoryBlob {
		return registry.Blob{Digest: d, Size: f.Info.Size, Content: n.onDisk(f)}, nil
	}
	defer f.Close()
	b, err := readVerified(f)
	if err != nil {
		return registry.Blob{}, err
	}
	n.memory.Add(d, b)
	return registry.Blob{Digest: d, Size: f.Info.Size, Content: bytesContent(b)}, nil
}

// onDisk is a stored blob that is too large for memory.
func (n *Node) onDisk(f *blobstore.File) registry.Content {
	if n.reads == nil {
		return fileContent{f}
	}
	return &verifiedContent{file: f, reads: n.reads}
}

// refill gets a blob again that was found to be rotten.
func (n *Node) refill(ctx context.Context, up *upstreamState, repo string, d digest.Digest) (registry.Content, error) {
	blob, _, err := n.filled(ctx, up, repo, d)
	if err != nil {
		return nil, clientError(err, "blob", up, repo, string(d))
	}
	return blob.Content, nil
}

// headBlob describes a blob that is not here: from the manifest that named it,
// else by asking upstream.
func (n *Node) headBlob(ctx context.Context, up *upstreamState, repo string, d digest.Digest) (registry.Blob, registry.CacheStatus, error) {
	cs := registry.CacheStatus{Outcome: registry.OutcomeHit, Upstream: up.name, Detail: "from-manifest"}
	if size := n.sizes.of(up, repo, d); size >= 0 {
		return registry.Blob{Digest: d, Size: size}, cs, nil
	}
	cs = registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: up.name}
	key := nameKey{up, repo, string(d)}
	if err := n.absent.recall(key); err != nil {
		return registry.Blob{}, cs, clientError(err, "blob", up, repo, string(d))
	}
	size, err := n.askBlob(ctx, key)
	if err != nil {
		return registry.Blob{}, cs, clientError(err, "blob", up, repo, string(d))
	}
	n.holders.learn(key, size) //nolint:contextcheck // kept whoever asked
	cs.Outcome, cs.FwdStatus = registry.OutcomeMiss, http.StatusOK
	return registry.Blob{Digest: d, Size: size}, cs, nil
}

// presigned returns a URL at which the client can fetch the blob from the
// remote store itself, and its size in bytes, where that is wanted and the blob is
// there.
func (n *Node) presigned(ctx context.Context, d digest.Digest) (u string, size int64, ok bool) {
	if n.redirectExpiry <= 0 || !n.remote.up() {
		return "", 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	if size, ok = n.remoteHas.Get(d); !ok {
		info, err := n.remote.store.Stat(ctx, d)
		if err != nil {
			n.remote.observe(ctx, err)
			return "", 0, false
		}
		size = info.Size
		n.remoteHas.Add(d, size)
	}
	u, err := n.remote.store.Presign(ctx, d, n.redirectExpiry)
	if err != nil {
		n.log.Error("presigning", "digest", d, "error", err)
		return "", 0, false
	}
	return u, size, true
}

// fillBlob joins or starts the digest's fill.
func (n *Node) fillBlob(ctx context.Context, up *upstreamState, repo string, d digest.Digest) (registry.Blob, registry.CacheStatus, error) {
	cs := registry.CacheStatus{Outcome: registry.OutcomeMiss, Upstream: up.name, Stored: true}
	key := nameKey{up, repo, string(d)}
	if err := n.absent.recall(key); err != nil {
		return registry.Blob{}, cs, err
	}
	var sources []source
	if n.remote != nil {
		sources = append(sources, &remoteSource{remote: n.remote, digest: d})
	}
	if n.region != nil {
		sources = append(sources, n.region.blobSource(ctx, d, "/v2/"+repo+"/blobs/"+string(d)+"?ns="+up.name))
	}
	sources = append(sources, n.newUpstreamSource(up, repo, d))
	r, size, joined, err := n.filling(ctx, d, n.sizes.of(up, repo, d), paced(ctx, sources))
	if err != nil {
		n.absent.remember(key, err)
		return registry.Blob{}, cs, err
	}
	if cs.Collapsed = joined; !joined {
		cs.FwdStatus = http.StatusOK
	}
	cs.Detail = r.detail()
	return registry.Blob{Digest: d, Size: size, Content: r}, cs, nil
}

// filling gives a reader of the digest's fill, joined or started, once it has
// bytes to come. Errors: errStored, and those of the sources.
func (n *Node) filling(ctx context.Context, d digest.Digest, hint int64, sources []source) (r *fillReader, size int64, joined bool, err error) {
	for {
		r, joined, err = n.fills.join(ctx, d, hint, sources)
		if err != nil {
			return nil, 0, false, err
		}
		evicted := false
		if size, err = r.ready(ctx); err == nil {
			err = r.open(ctx)
			evicted = errors.Is(err, blobstore.ErrNotExist)
		}
		if err == nil {
			return r, size, joined, nil
		}
		_ = r.Close()
		if !evicted { // else it was filled already: fill it again
			return nil, 0, false, err
		}
	}
}

// bytesContent is a blob in memory.
type bytesContent []byte

// WriteRange implements registry.Content.
func (b bytesContent) WriteRange(_ context.Context, w io.Writer, offset, length int64) (int64, error) {
	p := b[offset:]
	if length >= 0 {
		p = p[:length]
	}
	n, err := w.Write(p)
	return int64(n), err
}

// Ready reports that nothing has to be waited for.
func (b bytesContent) Ready(int64, int64) bool { return true }

// Close does nothing.
func (b bytesContent) Close() error { return nil }

// fileContent is a stored blob.
type fileContent struct{ *blobstore.File }

// WriteRange implements registry.Content.
func (f fileContent) WriteRange(ctx context.Context, w io.Writer, offset, length int64) (int64, error) {
	n, err := f.File.WriteRange(ctx, w, offset, length)
	if err != nil {
		unreadable(f.File, err)
	}
	return n, err //nolint:wrapcheck // it says what it was doing
}

// Ready reports that nothing has to be waited for.
func (f fileContent) Ready(int64, int64) bool { return true }
