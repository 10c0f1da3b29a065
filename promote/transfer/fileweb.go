package transfer

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

// webStore is a file server. It can be written if it is an origin's file store:
// PUT with a Repr-Digest, and DELETE.
type webStore struct {
	client *Client
	host   *host
	base   *url.URL // its path has no slash at the end
}

func newWebStore(c *Client, u *url.URL) *webStore {
	base := *u
	base.Path, base.RawPath = strings.TrimRight(u.Path, "/"), ""
	return &webStore{client: c, host: c.hostAt(u.Scheme, u.Host), base: &base}
}

// String implements [FileStore].
func (s *webStore) String() string { return s.base.String() }

func (s *webStore) request(method, name string) (*request, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	at := *s.base
	at.Path += "/" + name
	return &request{method: method, url: &at}, nil
}

// Stat implements [FileStore]. SHA256 is known of an origin's file store.
func (s *webStore) Stat(ctx context.Context, name string) (FileInfo, error) {
	req, err := s.request(http.MethodHead, name)
	if err != nil {
		return FileInfo{}, err
	}
	a, err := s.host.fetch(ctx, req, 0)
	if err != nil {
		return FileInfo{}, err
	}
	if strings.HasSuffix(a.path, "/") {
		return FileInfo{}, failf(ErrNotFound, "%s: is a folder", req.what())
	}
	if a.header.Get(folder.GeneratedHeader) != "" {
		return FileInfo{}, failf(ErrNotFound, "%s: nobody put it there, it is made of what the folder has", req.what())
	}
	return describe(name, a.length, a.header), nil
}

// describe reads what headers say of a file.
func describe(name string, size int64, header http.Header) FileInfo {
	info := FileInfo{Name: name, Size: size}
	info.SHA256, _ = parseReprDigest(header.Values("Repr-Digest"))
	if at, err := http.ParseTime(header.Get("Last-Modified")); err == nil {
		info.ModTime = at
	}
	return info
}

// Open implements [FileStore].
func (s *webStore) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	req, err := s.request(http.MethodGet, name)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		req.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-", offset)}}
	}
	var body io.ReadCloser
	err = s.host.retry(ctx, func() error {
		if err := s.host.gate.enter(ctx); err != nil {
			return fmt.Errorf("%s: %w", req.what(), err)
		}
		resp, err := s.host.do(ctx, req)
		s.host.gate.leave()
		if err != nil {
			return err
		}
		if err := s.place(resp, req, offset); err != nil {
			resp.Body.Close()
			return err
		}
		body = resp.Body
		return nil
	})
	if told, ok := errors.AsType[*Error](err); ok && told.Status == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		return http.NoBody, nil // from the end on
	}
	return body, err
}

// place makes an answer's body begin at an offset.
func (s *webStore) place(resp *http.Response, req *request, offset int64) error {
	if strings.HasSuffix(resp.Request.URL.Path, "/") {
		return failf(ErrNotFound, "%s: is a folder", req.what())
	}
	start := int64(0)
	if resp.StatusCode == http.StatusPartialContent {
		var ok bool
		if start, _, ok = parseContentRange(resp.Header.Get("Content-Range")); !ok || start != offset {
			return failf(ErrRefused, "%s: asked for bytes from %d, got Content-Range %.80q", req.what(), offset, resp.Header.Get("Content-Range"))
		}
	}
	if _, err := io.CopyN(io.Discard, resp.Body, offset-start); err != nil && !errors.Is(err, io.EOF) {
		return readError(req, err)
	}
	return nil
}

// Put implements [FileStore].
func (s *webStore) Put(ctx context.Context, file FileInfo, overwrite bool, r io.Reader) error {
	req, err := s.write(ctx, http.MethodPut, file.Name)
	if err != nil {
		return err
	}
	release, err := takeSlots(ctx, s.host.sending)
	if err != nil {
		return err
	}
	defer release()
	if overwrite {
		req.url.RawQuery = "overwrite=1"
	}
	req.header.Set("Repr-Digest", formatReprDigest(file.SHA256))
	req.header.Set("Content-Type", "application/octet-stream")
	req.size = file.Size
	source := newLent(newVerifiedFile(file, r))
	defer source.takeBack()
	if file.Size > 0 {
		req.body = source.once
	} else if _, err := source.Read(nil); !errors.Is(err, io.EOF) {
		return err // of what is not empty
	}
	if err := s.host.gate.pass(ctx); err != nil {
		return err
	}
	resp, err := s.host.do(ctx, req)
	if err != nil {
		return s.refusedPut(ctx, file, err)
	}
	dismiss(resp)
	if told, ok := parseReprDigest(resp.Header.Values("Repr-Digest")); ok && told != file.SHA256 {
		return failf(ErrCorrupt, "%s stored %s as %s", s, file.Name, told)
	}
	return nil
}

// refusedPut says what a refusal means.
func (s *webStore) refusedPut(ctx context.Context, file FileInfo, err error) error {
	told, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
	case told.is(ErrRateLimited):
		if told.RetryAfter > s.host.cfg.MaxPause {
			return failf(ErrRefused, "%w", told.Err)
		}
		s.host.limited(told)
	case told.is(ErrConflict):
		// Somebody may have written the same.
		if there, statErr := s.client.SumFile(ctx, s, file.Name, false); statErr == nil && there.SHA256 == file.SHA256 {
			return nil
		}
	}
	return writing(err)
}

// Delete implements [FileStore].
func (s *webStore) Delete(ctx context.Context, name string) error {
	req, err := s.write(ctx, http.MethodDelete, name)
	if err != nil {
		return err
	}
	_, err = s.host.fetch(ctx, req, maxErrorBody)
	return err
}

// write prepares a request that brings its login along: reading is open, so
// that nothing would have asked for it before, and a body cannot be sent twice.
func (s *webStore) write(ctx context.Context, method, name string) (*request, error) {
	req, err := s.request(method, name)
	if err != nil {
		return nil, err
	}
	req.header = make(http.Header)
	login, err := s.host.auth.Credential(ctx, s.host.name)
	if err != nil {
		return nil, err
	}
	if login.Username != "" {
		basic := base64.StdEncoding.EncodeToString([]byte(login.Username + ":" + login.Password))
		req.header.Set("Authorization", "Basic "+basic)
	}
	return req, nil
}

// formatReprDigest writes a sha256 as the value of Repr-Digest (RFC 9530,
// section 3).
func formatReprDigest(d digest.Digest) string {
	sum, _ := hex.DecodeString(d.Encoded()) // callers have validated it
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

// parseReprDigest finds the sha256 in Repr-Digest headers, which are a
// dictionary of byte sequences (RFC 8941, sections 3.2 and 3.3.5).
func parseReprDigest(headers []string) (digest.Digest, bool) {
	for _, header := range headers {
		for member := range strings.SplitSeq(header, ",") {
			value, found := strings.CutPrefix(strings.TrimSpace(member), "sha-256=:")
			value, closed := strings.CutSuffix(value, ":")
			sum, err := base64.StdEncoding.DecodeString(value)
			if found && closed && err == nil && len(sum) == digest.SHA256.Size() {
				return digest.NewDigestFromBytes(digest.SHA256, sum), true
			}
		}
	}
	return "", false
}
