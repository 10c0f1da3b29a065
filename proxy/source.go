package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/upstream"
	"entrepot/registry/admission"

	"github.com/opencontainers/go-digest"
)

// source is somewhere a fill can take the bytes of one blob from. Sources are
// interchangeable in mid-blob, since content by digest is the same everywhere.
type source interface {
	// open starts reading at offset, length bytes or, when that is not positive,
	// to the end. total is the size of the whole blob in
	// bytes, negative when the source does not say. size is what the fill
	// knows it to be, negative when it does not. Errors: *upstream.Error,
	// blobstore.ErrNotExist, blobstore.ErrDigestMismatch when it is not believed any
	// more, or anything else for "not now".
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

// trials is what a source has found out about an upstream's endpoints.
type trials struct {
	up     *upstreamState
	digest digest.Digest // of what is read; "" when it is not known

	mu    sync.Mutex
	last  *upstream.Endpoint
	bad   map[*upstream.Endpoint]bool // sent wrong bytes
	tired map[*upstream.Endpoint]bool // sent nothing the last time round, or wrong bytes lately
}

func newTrials(up *upstreamState, d digest.Digest) *trials {
	t := &trials{up: up, digest: d, bad: make(map[*upstream.Endpoint]bool), tired: make(map[*upstream.Endpoint]bool)}
	for _, e := range up.client.Endpoints() {
		if since, ok := up.doubts.Get(doubt{e, d}); ok && d != "" && time.Since(since) < doubtTTL {
			t.tired[e] = true
		}
	}
	return t
}

// do asks an endpoint that is still believed.
func (t *trials) do(ctx context.Context, req *upstream.Request) (*upstream.Response, error) {
	if t.spent() {
		// Not absence: clients believe a 404.
		return nil, fmt.Errorf("every URL of %s sent wrong bytes: %w", t.up.name, blobstore.ErrDigestMismatch)
	}
	req.Skip = t.skip
	resp, err := t.up.client.Do(ctx, req)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.last = resp.Endpoint
	t.mu.Unlock()
	return resp, nil
}

// spent reports that no endpoint is left to be believed. Tired ones are given
// another chance once all the others are tired too.
func (t *trials) spent() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.up.client.Endpoints()
	if !slices.ContainsFunc(all, func(e *upstream.Endpoint) bool { return !t.bad[e] && !t.tired[e] }) {
		clear(t.tired)
	}
	return len(all) > 0 && len(t.bad) == len(all) // an upstream without a network has none
}

func (t *trials) skip(e *upstream.Endpoint) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bad[e] || t.tired[e]
}

func (t *trials) falter(error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tired[t.last] = true
}

func (t *trials) disbelieve(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		return
	}
	t.bad[t.last] = true
	if t.digest != "" {
		t.up.doubts.Add(doubt{t.last, t.digest}, time.Now())
	}
	t.last.Penalize(err)
}

func (t *trials) label() string { return t.up.name }

// upstreamSource reads a blob from one repository of an upstream.
type upstreamSource struct {
	*trials
	repo    string
	holders *holders // is told that the repository holds the blob
}

func (n *Node) newUpstreamSource(up *upstreamState, repo string, d digest.Digest) *upstreamSource {
	return &upstreamSource{trials: newTrials(up, d), repo: repo, holders: n.holders}
}

func (s *upstreamSource) open(ctx context.Context, offset, length, size int64) (io.ReadCloser, int64, error) {
	resp, err := s.do(ctx, &upstream.Request{
		Method:     http.MethodGet,
		Repository: s.repo,
		Path:       s.repo + "/blobs/" + string(s.digest),
		Offset:     offset,
		Length:     length,
		Size:       size,
	})
	if err != nil {
		return nil, -1, err
	}
	s.holders.learn(nameKey{s.up, s.repo, string(s.digest)}, resp.TotalSize) //nolint:contextcheck // kept whoever asked
	return resp.Body, resp.TotalSize, nil
}

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
	case errors.Is(err, blobstore.ErrDigestMismatch):
		return 5
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
	return errors.Is(err, blobstore.ErrNotExist) || errors.Is(err, blobstore.ErrDigestMismatch)
}

// retryAfter is how long an error asks to wait, 0 when it does not say.
func retryAfter(err error) time.Duration {
	if busy, ok := errors.AsType[*admission.Busy](err); ok {
		return busy.RetryAfter
	}
	if ue, ok := errors.AsType[*upstream.Error](err); ok {
		return ue.RetryAfter
	}
	return 0
}
