package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// blob makes a blob be at a destination: it is there, or mounted from another
// repository there, or sent. It says whether the blob was new there, as far as
// this call knows. Errors: ErrNotFound and ErrCorrupt speak of the source.
func (c *Client) blob(ctx context.Context, from, to *repo, desc ocispec.Descriptor) (isNew bool, err error) {
	err = c.blobs.do(ctx, c.held.key(to, desc.Digest), func() error {
		if c.held.has(to, desc.Digest) {
			return nil
		}
		outcome, err := c.settle(ctx, from, to, desc)
		if err != nil {
			return fmt.Errorf("copying blob %s: %w", desc.Digest, err)
		}
		c.held.add(to, desc.Digest)
		c.cfg.Progress.Blob(outcome, desc.Size)
		isNew = outcome != BlobPresent
		return nil
	})
	return isNew, err
}

func (c *Client) settle(ctx context.Context, from, to *repo, desc ocispec.Descriptor) (BlobOutcome, error) {
	there, err := to.hasBlob(ctx, desc)
	if there || err != nil {
		return BlobPresent, err
	}
	up := &upload{to: to, desc: desc}
	if source := c.mountSource(from, to, desc); source != "" {
		mounted, err := up.mount(ctx, source)
		if mounted || err != nil {
			return BlobMounted, err
		}
	}
	return BlobSent, up.send(ctx, from)
}

// mountSource is the repository of the destination's registry that should have
// the blob, "" if none.
func (c *Client) mountSource(from, to *repo, desc ocispec.Descriptor) string {
	if from.host == to.host && from.Name != to.Name {
		return from.Name
	}
	return c.held.other(to, desc.Digest)
}

// hasBlob says whether a blob is there. Errors: ErrCorrupt when what is there
// has another size.
func (r *repo) hasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	a, err := r.host.fetch(ctx, r.request(http.MethodHead, "blobs/"+desc.Digest.String()), 0)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case a.length >= 0 && a.length != desc.Size:
		return false, failf(ErrCorrupt, "%s has %d bytes as blob %s, which has %d", r, a.length, desc.Digest, desc.Size)
	}
	return true, nil
}

// upload is a blob on its way into a repository.
type upload struct {
	to      *repo
	desc    ocispec.Descriptor
	tries   int
	session *url.URL // nil when none is open
	offset  int64    // what the session has
	used    bool     // the session took part in an attempt that failed
}

// mount asks the registry to take the blob from another of its repositories. A
// registry that does not opens a session instead.
func (u *upload) mount(ctx context.Context, source string) (bool, error) {
	req := u.to.request(http.MethodPost, "blobs/uploads/")
	req.url.RawQuery = url.Values{"mount": {u.desc.Digest.String()}, "from": {source}}.Encode()
	req.scopes = append(req.scopes, auth.ScopeRepository(source, auth.ActionPull))
	a, err := u.to.host.fetch(ctx, req, maxErrorBody)
	switch {
	case errors.Is(err, ErrUnauthorized), errors.Is(err, ErrRefused), errors.Is(err, ErrNotFound):
		return false, nil // sending it will say whether there is more to it
	case err != nil:
		return false, err
	case a.status == http.StatusCreated:
		return true, u.verify(ctx, a.header)
	}
	u.session, err = sessionURL(req.url, a.header)
	return false, err
}

// open opens a session.
func (u *upload) open(ctx context.Context) error {
	req := u.to.request(http.MethodPost, "blobs/uploads/")
	a, err := u.to.host.fetch(ctx, req, maxErrorBody)
	if err != nil {
		return writing(err)
	}
	u.offset, u.used = 0, false
	u.session, err = sessionURL(req.url, a.header)
	return err
}

// send reads the blob from a repository and sends it, in one request as far as
// all goes well. What breaks goes on where the registry says it broke, or else
// from the start.
func (u *upload) send(ctx context.Context, from *repo) error {
	release, err := takeSlots(ctx, u.to.host.sending, from.host.reading)
	if err != nil {
		return err
	}
	defer release()
	source := newBlobSource(ctx, from, u.desc)
	defer source.close()
	for began := int64(-minProgress); ; began = u.offset {
		err = u.to.host.retry(ctx, func() error {
			err := u.attempt(ctx, source)
			if lost := source.failure(); lost != nil {
				return final{lost} // trying again was the source's own matter
			}
			return err
		})
		// As long as it gets on, it is not given up.
		if !errors.Is(err, ErrUnavailable) || source.failure() != nil || u.offset < began+2*minProgress {
			break
		}
	}
	if err != nil && u.session != nil {
		u.abandon(ctx)
	}
	return err
}

// attempt sends what the session lacks.
func (u *upload) attempt(ctx context.Context, source *blobSource) error {
	if u.tries++; u.tries > 1 {
		// Not before the pause: a registry may still be at work on the bytes
		// that came before the last attempt broke.
		u.locate(ctx)
	}
	// Both of these have attempts of their own.
	if u.tries > 1 && u.session == nil {
		// Only the answer may have been lost.
		if there, err := u.to.hasBlob(ctx, u.desc); there || err != nil {
			return final{err}.orNil()
		}
	}
	if u.session == nil {
		if err := u.open(ctx); err != nil {
			return final{err}
		}
	}
	if u.offset > 0 && u.offset < u.desc.Size {
		if err := u.patch(ctx, source); err != nil {
			return u.fresh(err)
		}
	}
	req := u.request(http.MethodPut, source)
	query := "digest=" + url.QueryEscape(u.desc.Digest.String())
	if req.url.RawQuery != "" {
		query = req.url.RawQuery + "&" + query
	}
	req.url.RawQuery = query
	resp, err := u.do(ctx, req)
	if err != nil {
		return u.fresh(err)
	}
	dismiss(resp)
	u.session = nil
	return u.verify(ctx, resp.Header)
}

// patch sends the rest of the blob as a chunk.
func (u *upload) patch(ctx context.Context, source *blobSource) error {
	req := u.request(http.MethodPatch, source)
	req.header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.desc.Size-1))
	resp, err := u.do(ctx, req)
	if err != nil {
		return err
	}
	dismiss(resp)
	if u.session, err = sessionURL(req.url, resp.Header); err != nil {
		return err
	}
	u.offset = u.desc.Size
	return nil
}

// request sends the blob from the session's offset on.
func (u *upload) request(method string, source *blobSource) *request {
	at := *u.session
	req := &request{
		method: method, url: &at, scopes: []string{u.to.scope},
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		size:   u.desc.Size - u.offset,
	}
	if req.size > 0 {
		offset := u.offset
		req.body = func() (io.ReadCloser, error) { return source.from(offset), nil }
	}
	return req
}

func (u *upload) do(ctx context.Context, req *request) (*http.Response, error) {
	// Bodies have slots of their own, and must not wait for one that is held
	// while the answer to another is awaited.
	if err := u.to.host.gate.pass(ctx); err != nil {
		return nil, err
	}
	return u.to.host.do(ctx, req)
}

// fresh makes the next attempt begin anew where only a session was lost, or was
// not what it seemed.
func (u *upload) fresh(err error) error {
	told, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	lost := told.is(ErrNotFound) || told.Status == http.StatusRequestedRangeNotSatisfiable
	if lost || u.used && told.is(ErrRefused) {
		u.session = nil
		return &Error{Kind: ErrUnavailable, Status: told.Status, Err: told.Err}
	}
	return err
}

// locate asks how far a session got. A registry that does not say so gets a new
// one.
func (u *upload) locate(ctx context.Context) {
	if u.session == nil {
		return
	}
	at := *u.session
	u.session = nil
	req := &request{method: http.MethodGet, url: &at, scopes: []string{u.to.scope}}
	if u.to.host.gate.enter(ctx) != nil {
		return
	}
	defer u.to.host.gate.leave()
	resp, err := u.to.host.do(ctx, req)
	if err != nil {
		return
	}
	dismiss(resp)
	offset, ok := parseUploadRange(resp.Header.Get("Range"))
	if !ok || offset > u.desc.Size {
		return
	}
	session, err := sessionURL(&at, resp.Header)
	if err != nil {
		session = &at
	}
	u.session, u.offset, u.used = session, offset, true
}

// abandon tells the registry that no more is coming; it would find out by
// itself later.
func (u *upload) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), u.to.host.cfg.ConnectTimeout)
	defer cancel()
	resp, err := u.to.host.do(ctx, &request{method: http.MethodDelete, url: u.session, scopes: []string{u.to.scope}})
	if err == nil {
		dismiss(resp)
	}
}

// verify makes sure that the registry has stored what it was sent.
func (u *upload) verify(ctx context.Context, header http.Header) error {
	switch told := header.Get("Docker-Content-Digest"); told {
	case u.desc.Digest.String():
		return nil
	case "":
		there, err := u.to.hasBlob(ctx, u.desc)
		if err == nil && !there {
			err = failf(ErrRefused, "%s took blob %s and does not have it", u.to, u.desc.Digest)
		}
		return err
	default:
		return failf(ErrCorrupt, "%s stored blob %s as %.100q", u.to, u.desc.Digest, told)
	}
}

// sessionURL is where an upload goes on.
func sessionURL(base *url.URL, header http.Header) (*url.URL, error) {
	location := header.Get("Location")
	next, err := base.Parse(location)
	if location == "" || err != nil || next.Host == "" || next.Scheme != "https" && next.Scheme != base.Scheme {
		return nil, failf(ErrRefused, "%s: the registry does not say where to send an upload to", base.Host)
	}
	next.User, next.Fragment = nil, ""
	return next, nil
}

// parseUploadRange reads how many bytes an upload has from "0-LAST". Nothing at
// all is written like one byte, or not at all, and one byte is taken for
// nothing.
func parseUploadRange(text string) (int64, bool) {
	if text == "" {
		return 0, true
	}
	last, found := strings.CutPrefix(strings.TrimPrefix(text, "bytes="), "0-")
	n, err := strconv.ParseUint(last, 10, 62)
	if !found || err != nil {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return int64(n) + 1, true
}

// takeSlots takes a slot of each, in this order everywhere.
func takeSlots(ctx context.Context, slots ...chan struct{}) (release func(), err error) {
	var taken []chan struct{}
	release = func() {
		for _, slot := range taken {
			<-slot
		}
	}
	for _, slot := range slots {
		select {
		case slot <- struct{}{}:
			taken = append(taken, slot)
		case <-ctx.Done():
			release()
			return nil, context.Cause(ctx)
		}
	}
	return release, nil
}

// bodyOf is content as the body of a request.
func bodyOf(content []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
}
