package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/loop"
	"entrepot/proxy/peers"
	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// idRecord is where a node keeps its id: with the content for which its peers ask
// it.
const idRecord = "node/id"

// openRegion makes the node one of its region.
func (n *Node) openRegion(cfg *Config) error {
	of := *cfg.Peers
	of.ID = n.id
	if of.Logger == nil {
		of.Logger = n.log
	}
	if of.Registerer == nil {
		of.Registerer = cfg.Registerer
	}
	of.Progress = n.progress
	group, err := peers.New(of)
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	n.region = &region{group: group, doubts: newLRU[peerDoubt, time.Time](maxDoubts)}
	return nil
}

// ownID is the node's id, made when it first starts.
func (n *Node) ownID() string {
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	b, err := n.local.Record(ctx, idRecord)
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id
	}
	id := rand.Text()
	if ignoreAbsent(err) == nil {
		err = n.local.PutRecord(ctx, idRecord, []byte(id))
	}
	if err != nil {
		n.log.Warn("this node's id is not kept; with its next start its peers take it for another", "error", err)
	}
	return id
}

// Handler lets requests through to next, a handler over the node: those of peers as
// what they are, and none that comes from the node itself.
func (n *Node) Handler(next http.Handler) http.Handler {
	if n.region != nil {
		next = n.region.group.Handler(next)
	}
	return loop.Guard(n.id, n.metrics.loops.Inc, next)
}

// progress is how many bytes of content the node could send now.
func (n *Node) progress(ctx context.Context, d digest.Digest) int64 {
	if info, err := n.local.Stat(ctx, d); err == nil {
		return info.Size
	}
	return n.fills.progress(d)
}

// errNotHere answers a peer that wants nothing brought for it (RFC 9111, section
// 5.2.1.7).
func errNotHere(d digest.Digest) error {
	e := registry.Errorf(errcode.ErrorCodeBlobUnknown, "%s is not here, nor on its way from upstream", d)
	e.Status = http.StatusGatewayTimeout
	return e
}

// onItsWay gives content that the store has not got to a peer that wants nothing
// brought for it: from a fill that waits for no peer.
func (n *Node) onItsWay(ctx context.Context, d digest.Digest) (registry.Content, int64, error) {
	r := n.fills.joinUpstream(ctx, d)
	if r == nil {
		return nil, 0, errNotHere(d)
	}
	size, err := r.ready(ctx)
	if err == nil {
		err = r.open(ctx)
	}
	if err != nil {
		_ = r.Close()
		if errors.Is(err, blobstore.ErrNotExist) { // filled, and evicted
			err = errNotHere(d)
		}
		return nil, 0, err
	}
	return r, size, nil
}

// blobOnItsWay answers such a peer.
func (n *Node) blobOnItsWay(ctx context.Context, d digest.Digest, cs registry.CacheStatus) (registry.Blob, registry.CacheStatus, error) {
	content, size, err := n.onItsWay(ctx, d)
	if err != nil {
		cs.Outcome = registry.OutcomeError
		return registry.Blob{}, cs, err
	}
	cs.Outcome, cs.Collapsed, cs.Stored = registry.OutcomeMiss, true, true
	return registry.Blob{Digest: d, Size: size, Content: content}, cs, nil
}

// manifestOfRegion asks the region for a manifest by its digest. It is verified
// like upstream's. ok is false where this node is to ask upstream.
func (n *Node) manifestOfRegion(ctx context.Context, key nameKey) (m *registry.Manifest, ok bool) {
	if n.region == nil || !isDigest(key.ref) {
		return nil, false
	}
	s := n.region.blobSource(ctx, digest.Digest(key.ref), "/v2/"+key.repo+"/manifests/"+key.ref+"?ns="+key.up.name)
	answer := new(http.Response)
	s.check = func(resp *http.Response) error {
		answer.Header = resp.Header
		return nil
	}
	body, total, err := s.open(ctx, 0, 0, -1)
	if err != nil {
		return nil, false
	}
	defer body.Close()
	answer.Body = body
	m, err = readManifest(&upstream.Response{Response: answer, TotalSize: total}, key.ref)
	if err != nil {
		if ctx.Err() == nil {
			s.disbelieve(err)
		}
		return nil, false
	}
	return m, true
}
