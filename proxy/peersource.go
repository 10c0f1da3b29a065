package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/peers"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

// peerLabel is what peers are called as a source.
const peerLabel = "peer"

// region is the other nodes of the region. A nil *region is a node on its own.
type region struct {
	group  *peers.Group
	doubts *lru.Cache[peerDoubt, time.Time] // when the peer sent wrong bytes
}

// peerDoubt is a peer that sent wrong bytes for content.
type peerDoubt struct {
	peer   *peers.Peer
	digest digest.Digest
}

// peerSource reads content from the node of the region that brings it from
// upstream. For content that this node is to bring itself it gives nothing, but
// what another has already: from a time when it was that one's to bring.
//
// A fill that has gone past its peers to upstream is this node's own from then on.
// It takes from a peer only what that has stored, or gets from upstream: so no two
// fills can come to wait for each other.
type peerSource struct {
	region *region
	digest digest.Digest
	uri    string // where a peer is asked to bring it: path and query
	cached string // and where it is asked for what it has
	check  func(*http.Response) error

	mu     sync.Mutex
	own    bool
	active int // requests to peers, until their bodies are closed
	last   *peers.Peer
	bad    map[*peers.Peer]bool // sent wrong bytes, or none
}

// blobSource is the region as a source of an image's blob or manifest, which is at
// uri. What a peer asks for is this node's own to bring. Call it with peers only.
func (r *region) blobSource(ctx context.Context, d digest.Digest, uri string) *peerSource {
	_, own := peers.CallerOf(ctx)
	return &peerSource{region: r, digest: d, uri: uri, cached: uri, own: own, bad: map[*peers.Peer]bool{}}
}

// fileSource is the region as a source of a file that is at uri, unless that has
// another digest meanwhile.
func (r *region) fileSource(ctx context.Context, d digest.Digest, uri string) *peerSource {
	s := r.blobSource(ctx, d, uri)
	s.cached = "/" + blobPathOf(d)
	s.check = func(resp *http.Response) error {
		if resp.Header.Get("Repr-Digest") != reprDigest(d) {
			return errReplaced
		}
		return nil
	}
	return s
}

func (s *peerSource) open(ctx context.Context, offset, length, _ int64) (io.ReadCloser, int64, error) {
	before, after := s.region.group.Order(string(s.digest))
	req := &peers.Request{URI: s.uri, Digest: s.digest, Offset: offset, Length: length, Check: s.check}
	for _, p := range before {
		if !s.mayBring(p) {
			continue
		}
		body, total, err := s.ask(ctx, p, req)
		if err == nil || ctx.Err() != nil {
			return body, total, err
		}
		if _, refused := errors.AsType[*peers.RefusedError](err); refused {
			break // it is the one to bring it, and cannot: the others would only ask upstream, as this node can
		}
	}
	if after != nil && s.believes(after) {
		req.URI, req.OnlyIfCached = s.cached, true
		body, total, err := s.ask(ctx, after, req)
		if err == nil || ctx.Err() != nil {
			return body, total, err
		}
	}
	if length <= 0 { // a range beside the fill does not make it this node's own
		s.mu.Lock()
		s.own = true
		s.mu.Unlock()
	}
	return nil, -1, fmt.Errorf("no peer has %s: %w", s.digest, blobstore.ErrNotExist)
}

// ask asks one peer.
func (s *peerSource) ask(ctx context.Context, p *peers.Peer, req *peers.Request) (io.ReadCloser, int64, error) {
	s.mu.Lock()
	s.active++
	s.last = p
	s.mu.Unlock()
	body, total, _, err := s.region.group.Open(ctx, p, req)
	if err != nil {
		s.done()
		return nil, -1, err
	}
	return &peerBody{body, sync.OnceFunc(s.done)}, total, nil
}

// peerBody tells its source when it is closed.
type peerBody struct {
	io.ReadCloser
	done func()
}

// Close implements io.Closer.
func (b *peerBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

func (s *peerSource) done() {
	s.mu.Lock()
	s.active--
	s.mu.Unlock()
}

func (s *peerSource) mayBring(p *peers.Peer) bool {
	s.mu.Lock()
	own := s.own
	s.mu.Unlock()
	return !own && s.believes(p)
}

func (s *peerSource) believes(p *peers.Peer) bool {
	since, doubted := s.region.doubts.Get(peerDoubt{p, s.digest})
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.bad[p] && !(doubted && time.Since(since) < doubtTTL)
}

// fromUpstream reports that the fill is this node's own, and takes nothing from a
// peer now.
func (s *peerSource) fromUpstream() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own && s.active == 0
}

func (s *peerSource) disbelieve(err error) {
	p := s.tire()
	if p == nil {
		return
	}
	s.region.doubts.Add(peerDoubt{p, s.digest}, time.Now())
	s.region.group.Disbelieve(p, err)
}

func (s *peerSource) falter(error) { s.tire() }

// tire has the fill not ask the last peer again.
func (s *peerSource) tire() *peers.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		s.bad[s.last] = true
	}
	return s.last
}

func (s *peerSource) label() string { return peerLabel }

// same holds for any two: of a fill there is one to say whether it is this node's
// own.
func (s *peerSource) same(other source) bool {
	_, ok := other.(*peerSource)
	return ok
}
