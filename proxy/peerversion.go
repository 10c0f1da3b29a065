package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"entrepot/blobstore"
	"entrepot/proxy/peers"

	"github.com/opencontainers/go-digest"
)

// peerVersion is the region as the first source of a file of which nothing is known
// here: the node whose turn the name is says which version there is, in upstream's
// place, and sends it. Where it breaks off, upstream goes on.
//
// A version that is known to have changed is not asked of a peer, to which the one
// before may be fresh still.
type peerVersion struct {
	region *region
	uri    string
	of     *fileSource

	mu   sync.Mutex
	last *peers.Peer
}

// open gives the whole file, once: bytes from the middle are upstream's to give, which
// can tell whether they are of the same version.
func (s *peerVersion) open(ctx context.Context, offset, length, _ int64) (io.ReadCloser, int64, error) {
	none := fmt.Errorf("no peer has %s: %w", s.uri, blobstore.ErrNotExist)
	if offset > 0 || length > 0 || s.of.meta() != nil {
		return nil, -1, none
	}
	before, _ := s.region.group.Order(s.uri)
	if len(before) == 0 {
		return nil, -1, none
	}
	// If the first cannot, upstream is asked: the others would only do that too.
	s.mu.Lock()
	s.last = before[0]
	s.mu.Unlock()
	body, total, _, err := s.region.group.Open(ctx, before[0], &peers.Request{URI: s.uri, Check: s.of.checkPeer})
	if err != nil {
		return nil, -1, fmt.Errorf("%w: %w", none, err)
	}
	return body, total, nil
}

func (s *peerVersion) disbelieve(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		s.region.group.Disbelieve(s.last, err)
	}
}

func (s *peerVersion) falter(error) {} // it is not asked again

func (s *peerVersion) label() string { return peerLabel }

func (s *peerVersion) same(other source) bool {
	o, ok := other.(*peerVersion)
	return ok && o.uri == s.uri
}

// checkPeer takes over the version that a peer has, as upstream would have said it:
// of when the peer was told of it, and without what the peer made up. By the digest,
// where the peer knows one, the content is verified.
func (s *fileSource) checkPeer(resp *http.Response) error {
	h := resp.Header
	age := parseAge(h.Get("Age"))
	h.Set("Date", date(h).Add(-age).UTC().Format(http.TimeFormat))
	var claims []claim
	for _, c := range headerClaims(h) {
		d := c.digest()
		if d == "" {
			continue
		}
		if h.Get("Etag") == digestTag(d) {
			h.Del("Etag")
		}
		claims = append(claims, c)
	}
	if err := s.check(resp); err != nil {
		return err
	}
	s.mu.Lock()
	s.kept, s.claims = age, claims
	s.mu.Unlock()
	return nil
}

// digestTag is the entity tag of a file to which upstream gave none.
func digestTag(d digest.Digest) string { return `"` + string(d) + `"` }
