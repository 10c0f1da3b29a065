package transfer

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxRemembered bounds the manifests that are remembered, in bytes.
const maxRemembered = 64 << 20

// sources remember what was read of sources: an image that goes to many
// destinations is asked for once.
type sources struct {
	flights flights

	mu        sync.Mutex
	size      int64
	manifests map[string]*manifest // by repository and digest
	referrers map[string][]ocispec.Descriptor
}

// manifest is [repo.manifest] by digest, remembered.
func (s *sources) manifest(ctx context.Context, r *repo, d digest.Digest) (*manifest, error) {
	key := r.String() + "@" + d.String()
	var found *manifest
	err := s.flights.do(ctx, key, func() (err error) {
		if s.known(key) != nil {
			return nil
		}
		if found, err = r.manifest(ctx, d.String()); err == nil {
			s.remember(key, found)
		}
		return err
	})
	if err != nil || found != nil {
		return found, err
	}
	if found = s.known(key); found != nil {
		return found, nil
	}
	return r.manifest(ctx, d.String()) // forgotten meanwhile
}

func (s *sources) known(key string) *manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manifests[key]
}

// remember forgets everything when there is too much: reading it again is all
// that costs.
func (s *sources) remember(key string, m *manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.manifests == nil || s.size+m.Size > maxRemembered {
		s.manifests, s.size = make(map[string]*manifest), 0
	}
	s.manifests[key] = m
	s.size += m.Size
}

// listReferrers is [Client.listReferrers] of a source, remembered.
func (s *sources) listReferrers(ctx context.Context, c *Client, r *repo, d digest.Digest) ([]ocispec.Descriptor, error) {
	key := r.String() + "@" + d.String()
	s.mu.Lock()
	list, known := s.referrers[key]
	s.mu.Unlock()
	if known {
		return list, nil
	}
	list, _, err := c.listReferrers(ctx, r, d)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.referrers == nil {
		s.referrers = make(map[string][]ocispec.Descriptor)
	}
	s.referrers[key] = list
	return list, nil
}
