package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"entrepot/proxy/upstream"

	"github.com/opencontainers/go-digest"
)

// Errors of a fileSource.
var (
	errReplaced    = errors.New("upstream has another version of the file now")
	errNoValidator = errors.New("upstream broke off, and gave no strong validator to go on with")
)

// fileSource reads one version of a file: the one that upstream first answers
// with, or the one that it is told. Where upstream has another one meanwhile, or
// where it cannot be told which one it has, it gives nothing.
type fileSource struct {
	*trials
	path, query string // percent-encoded

	mu      sync.Mutex
	version *fileMeta     // nil until the first answer
	claims  []claim       // of the headers of the first answer
	aged    string        // its Age
	kept    time.Duration // for how long a peer has had what it answers
}

// newFileSource reads path, of which the digest (or "") and the version (or nil)
// are known.
func newFileSource(up *upstreamState, path, query string, d digest.Digest, version *fileMeta) *fileSource {
	return &fileSource{trials: newTrials(up, d), path: path, query: query, version: version}
}

// meta is the version that is read, nil before the first answer.
func (s *fileSource) meta() *fileMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// age is the Age header of the first answer, and for how long a peer that gave it has
// had it.
func (s *fileSource) age() (aged string, kept time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aged, s.kept
}

func (s *fileSource) open(ctx context.Context, offset, length, size int64) (io.ReadCloser, int64, error) {
	req := &upstream.Request{
		Method: http.MethodGet, Path: s.path, Query: s.query, Header: make(http.Header),
		Offset: offset, Length: length, Size: size, Check: s.check,
	}
	if version := s.meta(); version != nil && (offset > 0 || length > 0) {
		strong := version.strong()
		if strong == "" && s.digest == "" {
			return nil, -1, &upstream.Error{Kind: upstream.Invalid, Err: fmt.Errorf("going on with %s at byte %d: %w", s.path, offset, errNoValidator)}
		}
		if strong != "" {
			req.Header.Set("If-Range", strong)
		}
	}
	resp, err := s.do(ctx, req)
	if err != nil {
		return nil, -1, err
	}
	return resp.Body, resp.TotalSize, nil
}

// check holds an answer against the version.
func (s *fileSource) check(resp *http.Response) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := resp.StatusCode == http.StatusOK
	if whole && s.digest != "" {
		for _, c := range headerClaims(resp.Header) {
			if d := c.digest(); d != "" && d.Algorithm() == s.digest.Algorithm() && d != s.digest {
				return errReplaced
			}
		}
	}
	got := newFileMeta(resp, resp.ContentLength)
	if s.version == nil && !whole {
		got.Size = -1
	}
	if s.version == nil {
		s.version, s.aged = got, resp.Header.Get("Age")
		if whole && s.up.files.headers {
			s.claims = headerClaims(resp.Header)
		}
		return nil
	}
	if !s.version.sameVersion(got, !whole) || whole && s.version.Size >= 0 && got.Size >= 0 && got.Size != s.version.Size {
		return errReplaced
	}
	return nil
}

func (s *fileSource) same(other source) bool {
	o, ok := other.(*fileSource)
	return ok && o.up == s.up && o.path == s.path && o.query == s.query && o.digest == s.digest
}
