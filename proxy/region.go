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
	"entrepot/proxy/peers"
	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// peerIDRecord is where a node keeps its id: with the content for which its peers
// ask it.
const peerIDRecord = "peers/id"

// openRegion makes the node one of its region.
func (n *Node) openRegion(cfg *Config) error {
	of := *cfg.Peers
	if of.ID == "" {
		id, err := n.peerID()
		if err != nil {
			return err
		}
		of.ID = id
	}
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

// peerID is the node's id among its peers, made when it first starts.
func (n *Node) peerID() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	b, err := n.local.Record(ctx, peerIDRecord)
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id, nil
	}
	if ignoreAbsent(err) != nil {
		return "", fmt.Errorf("reading this node's id: %w", err)
	}
	id := rand.Text()
	if err := n.local.PutRecord(ctx, peerIDRecord, []byte(id)); err != nil {
		n.log.Warn("this node's id is not kept; with its next start its peers take it for another", "error", err)
	}
	return id, nil
}

// Peered lets requests of peers through to next, a handler over the node, as what
// they are. Without peers it is next.
func (n *Node) Peered(next http.Handler) http.Handler {
	if n.region == nil {
		return next
	}
	return n.region.group.Handler(next)
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
