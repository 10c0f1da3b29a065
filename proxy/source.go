package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/upstream"

	"github.com/opencontainers/go-digest"
)

// source is somewhere a fill can take the bytes of one blob from. Sources are
// interchangeable in mid-blob, since content by digest is the same everywhere.
type source interface {
	// open starts reading at offset, length bytes or, when that is not positive,
	// to the end. total is the size of the whole blob in
	// bytes, negative when the source does not say. size is what the fill
	// knows it to be, negative when it does not. Errors: *upstream.Error,
	// blobstore.ErrNotExist, or anything else for "not now".
	open(ctx context.Context, offset, length, size int64) (body io.ReadCloser, total int64, err error)
	// disbelieve tells the source that what it sent since the last open was
	// wrong. It will not give the same bytes to this fill again.
	disbelieve(err error)
	// falter tells the source that it answered and then gave nothing. It may
	// answer again, from elsewhere if it can.
	falter(err error)
	// label names the source in metrics: a bounded set.
	label() string
	// same reports whether another source would read the same bytes.
	same(source) bool
}

// doubtTTL is for how long an endpoint that sent wrong bytes for a blob is the
// last to be asked for it again.
const doubtTTL = 10 * time.Minute

// doubt is an endpoint that sent wrong bytes for a blob.
type doubt struct {
	endpoint *upstream.Endpoint
	digest   digest.Digest
}

// upstreamSource reads a blob from one repository of an upstream.
type upstreamSource struct {
	up     *upstreamState
	repo   string
	digest digest.Digest

	mu    sync.Mutex
	last  *upstream.Endpoint
	bad   map[*upstream.Endpoint]bool // sent wrong bytes
	tired map[*upstream.Endpoint]bool // sent nothing the last time round, or wrong bytes lately
}

func newUpstreamSource(up *upstreamState, repo string, d digest.Digest) *upstreamSource {
	s := &upstreamSource{
		up: up, repo: repo, digest: d,
		bad: make(map[*upstream.Endpoint]bool), tired: make(map[*upstream.Endpoint]bool),
	}
	for _, e := range up.client.Endpoints() {
		if since, ok := up.doubts.Get(doubt{e, d}); ok && time.Since(since) < doubtTTL {
			s.tired[e] = true
		}
	}
	return s
}

func (s *upstreamSource) open(ctx context.Context, offset, length, size int64) (io.ReadCloser, int64, error) {
	if s.spent() {
		return nil, -1, fmt.Errorf("every URL of %s sent wrong bytes: %w", s.up.name, blobstore.ErrNotExist)
	}
	resp, err := s.up.client.Do(ctx, &upstream.Request{
		Method:     "GET",
		Repository: s.repo,
		Path:       s.repo + "/blobs/" + string(s.digest),
		Offset:     offset,
		Length:     length,
		Size:       size,
		Skip:       s.skip,
	})
	if err != nil {
		return nil, -1, err
	}
	s.mu.Lock()
	s.last = resp.Endpoint
	s.mu.Unlock()
	return resp.Body, resp.TotalSize, nil
}

// spent reports that no endpoint is left to be believed. Tired ones are given
// another chance once all the others are tired too.
func (s *upstreamSource) spent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.up.client.Endpoints()
	if !slices.ContainsFunc(all, func(e *upstream.Endpoint) bool { return !s.bad[e] && !s.tired[e] }) {
		clear(s.tired)
	}
	return len(s.bad) == len(all)
}

func (s *upstreamSource) skip(e *upstream.Endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bad[e] || s.tired[e]
}

func (s *upstreamSource) falter(error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tired[s.last] = true
}

func (s *upstreamSource) disbelieve(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return
	}
	s.bad[s.last] = true
	s.up.doubts.Add(doubt{s.last, s.digest}, time.Now())
	s.last.Penalize(err)
}

func (s *upstreamSource) label() string { return s.up.name }

func (s *upstreamSource) same(other source) bool {
	o, ok := other.(*upstreamSource)
	return ok && o.up == s.up && o.repo == s.repo && o.digest == s.digest
}

// remoteSource reads a blob from the shared store behind the local one. Its
// bytes are verified like everybody's.
type remoteSource struct {
	remote *remoteStore
	digest digest.Digest

	mu  sync.Mutex
	bad bool
}

func (s *remoteSource) open(ctx context.Context, offset, length, _ int64) (io.ReadCloser, int64, error) {
	s.mu.Lock()
	bad := s.bad
	s.mu.Unlock()
	if bad || !s.remote.up() {
		return nil, -1, blobstore.ErrNotExist
	}
	if length <= 0 {
		length = -1
	}
	body, info, err := s.remote.store.Open(ctx, s.digest, offset, length)
	if err != nil {
		s.remote.observe(ctx, err)
		return nil, -1, err
	}
	return body, info.Size, nil
}

func (s *remoteSource) disbelieve(err error) {
	s.mu.Lock()
	s.bad = true
	s.mu.Unlock()
	s.remote.forget(s.digest, err)
}

func (s *remoteSource) falter(err error) { s.remote.observe(context.Background(), err) }

func (s *remoteSource) label() string { return "store" }

func (s *remoteSource) same(other source) bool {
	_, ok := other.(*remoteSource)
	return ok
}

// worse reports whether, of two errors that sources gave, b says more about
// what the client can expect than a: absence is only believed when nothing
// else stood in the way.
func worse(a, b error) bool { return severity(b) > severity(a) }

func severity(err error) int {
	var ue *upstream.Error
	switch {
	case err == nil:
		return 0
	case errors.Is(err, blobstore.ErrNotExist):
		return 1
	case !errors.As(err, &ue):
		return 2
	}
	switch ue.Kind {
	case upstream.NotFound:
		return 3
	case upstream.Denied:
		return 4
	case upstream.Invalid:
		return 5
	case upstream.RateLimited:
		return 6
	case upstream.Unavailable:
		return 7
	}
	return 2
}

// isFinal reports whether asking the same sources again soon cannot help.
func isFinal(err error) bool {
	if ue, ok := errors.AsType[*upstream.Error](err); ok {
		return ue.Kind == upstream.NotFound || ue.Kind == upstream.Denied || ue.Kind == upstream.Invalid
	}
	return errors.Is(err, blobstore.ErrNotExist)
}

// retryAfter is how long an error asks to wait, 0 when it does not say.
func retryAfter(err error) time.Duration {
	if ue, ok := errors.AsType[*upstream.Error](err); ok {
		return ue.RetryAfter
	}
	return 0
}
