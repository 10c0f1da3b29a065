package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobSource reads a blob and verifies it. What breaks or stalls goes on at the
// byte where it broke. The last bytes are given only when the digest is right.
//
// Readers of it come one after another, because an HTTP transport may still be
// reading the body of a request that has failed.
type blobSource struct {
	ctx    context.Context //nolint:containedctx // of the copy that it is read for
	cancel context.CancelFunc
	repo   *repo
	desc   ocispec.Descriptor

	mu     sync.Mutex
	reader *blobReader // who may read now
	body   io.ReadCloser
	at     int64 // of body, the next byte
	hash   hash.Hash
	hashed int64 // bytes; at may be before it, after seeking back
	breaks breaks
	err    error // why nothing can be read any more
}

func newBlobSource(ctx context.Context, r *repo, desc ocispec.Descriptor) *blobSource {
	ctx, cancel := context.WithCancel(ctx)
	return &blobSource{ctx: ctx, cancel: cancel, repo: r, desc: desc, hash: desc.Digest.Algorithm().Hash()}
}

// from returns a reader of the blob from an offset that was read up to before.
// Readers that were returned earlier end.
func (s *blobSource) from(offset int64) *blobReader {
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset != s.at {
		s.drop()
	}
	s.at, s.breaks.since = offset, offset
	s.reader = &blobReader{source: s}
	return s.reader
}

// failure is why nothing can be read any more, nil while it can.
func (s *blobSource) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// close ends every reader, and waits for those that are at work.
func (s *blobSource) close() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reader = nil
	s.drop()
}

func (s *blobSource) drop() {
	if s.body != nil {
		s.body.Close()
		s.body = nil
	}
}

// blobReader reads a blobSource until another one does.
type blobReader struct{ source *blobSource }

var errReadElsewhere = errors.New("the content is read elsewhere now")

// Read implements [io.Reader].
func (r *blobReader) Read(p []byte) (int, error) {
	s := r.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader != r {
		return 0, errReadElsewhere
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
		s.drop()
	}
	return n, err
}

// Close implements [io.Closer]. The source stays open for the next reader.
func (r *blobReader) Close() error { return nil }

func (s *blobSource) read(p []byte) (int, error) {
	if s.at == s.desc.Size {
		if s.desc.Size == 0 {
			return 0, s.end()
		}
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.desc.Size-s.at)]
	for {
		if s.body == nil {
			if err := s.open(); err != nil {
				return 0, err
			}
		}
		n, err := s.body.Read(p)
		if n > 0 {
			if err := s.verify(p[:n]); err != nil {
				return 0, err
			}
			s.repo.host.progress.Transferred(int64(n))
			return n, nil // what else it has to say it says again
		}
		if err == nil {
			continue
		}
		s.drop()
		if err := s.broke(err); err != nil {
			return 0, err
		}
	}
}

// verify hashes what was read, as far as it was not before.
func (s *blobSource) verify(p []byte) error {
	fresh := s.at + int64(len(p)) - s.hashed
	s.at += int64(len(p))
	if fresh <= 0 {
		return nil
	}
	s.hash.Write(p[int64(len(p))-fresh:])
	s.hashed = s.at
	if s.at < s.desc.Size {
		return nil
	}
	if err := s.end(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// end compares the digest of all bytes.
func (s *blobSource) end() error {
	if got := fmt.Sprintf("%x", s.hash.Sum(nil)); got != s.desc.Digest.Encoded() {
		return failf(ErrCorrupt, "blob %s from %s has the digest %s:%s", s.desc.Digest, s.repo, s.desc.Digest.Algorithm(), got)
	}
	return io.EOF
}

// broke decides whether to go on after a break.
func (s *blobSource) broke(err error) error {
	return s.breaks.another(s.ctx, s.repo.host.cfg, s.at, err, func() string { return fmt.Sprintf("reading blob %s from %s", s.desc.Digest, s.repo) })
}

// open asks for the blob from byte at on.
func (s *blobSource) open() error {
	r := s.repo.request(http.MethodGet, "blobs/"+s.desc.Digest.String())
	if s.at > 0 {
		r.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", s.at, s.desc.Size-1)}}
	}
	h := s.repo.host
	return h.retry(s.ctx, func() error {
		// The slot is for the wait for an answer; bodies have their own.
		if err := h.gate.enter(s.ctx); err != nil {
			return fmt.Errorf("%s: %w", r.what(), err)
		}
		resp, err := h.do(s.ctx, r)
		h.gate.leave()
		if err != nil {
			return err
		}
		if err := s.place(resp); err != nil {
			resp.Body.Close()
			return err
		}
		s.body = resp.Body
		return nil
	})
}

// place makes an answer's body begin at byte at.
func (s *blobSource) place(resp *http.Response) error {
	start, total := int64(0), resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		var ok bool
		start, total, ok = parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || start != s.at {
			return failf(ErrRefused, "asked %s for bytes of blob %s from %d, got Content-Range %.80q",
				s.repo, s.desc.Digest, s.at, resp.Header.Get("Content-Range"))
		}
	}
	if total >= 0 && total != s.desc.Size {
		return failf(ErrCorrupt, "blob %s from %s has %d bytes, %d are announced", s.desc.Digest, s.repo, total, s.desc.Size)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, s.at-start); err != nil {
		return failf(ErrUnavailable, "reading blob %s from %s up to byte %d: %w", s.desc.Digest, s.repo, s.at, err)
	}
	return nil
}

// parseContentRange reads "bytes start-end/total" (RFC 9110, section 14.4).
// total is -1 when it is "*".
func parseContentRange(text string) (start, total int64, ok bool) {
	span, size, found := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	first, last, dashed := strings.Cut(span, "-")
	start, err := strconv.ParseInt(first, 10, 64)
	end, endErr := strconv.ParseInt(last, 10, 64)
	if !found || !dashed || err != nil || endErr != nil || !strings.HasPrefix(text, "bytes ") || start < 0 || end < start {
		return 0, 0, false
	}
	if size == "*" {
		return start, -1, true
	}
	total, err = strconv.ParseInt(size, 10, 64)
	return start, total, err == nil && total > end
}
