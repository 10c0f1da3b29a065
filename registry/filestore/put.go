package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"entrepot/blobstore"
	"entrepot/registry"
	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

// putRequest is what a PUT asks for.
type putRequest struct {
	digest     digest.Digest
	mount      bool // the content is there already, and not sent
	conditions conditions
}

// put answers PUT of a file.
func (x *exchange) put(p Path) error {
	caller, err := x.authorize(registry.ActionPush, string(p))
	if err != nil {
		return err
	}
	want, err := parsePut(x.r)
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	if err := x.names.load(ctx); err != nil {
		return err
	}
	// Looked at before the content is taken, so that nobody sends in vain who
	// waits for 100 Continue, and again once it is there.
	if _, _, err := x.judge(ctx, p, want, x.names.file); err != nil {
		return err
	}
	size, err := x.receive(ctx, want)
	if err != nil {
		return err
	}
	// The content is there: a client that leaves now does not undo it.
	return x.setName(context.WithoutCancel(ctx), p, want, &file{
		Digest: want.digest, Size: size, ContentType: uploadType(x.r.Header.Get("Content-Type"), p), Modified: x.now().UTC(),
	}, caller)
}

func parsePut(r *http.Request) (*putRequest, error) {
	bad := func(format string, args ...any) (*putRequest, error) {
		return nil, problemf(http.StatusBadRequest, codeRequestInvalid, format, args...)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return bad("the query: %w", err)
	}
	for name, values := range query {
		switch name {
		case "digest", "mount", "overwrite":
		default:
			return bad("there is no parameter %.40q: there are digest, mount and overwrite", name)
		}
		if len(values) > 1 {
			return bad("the query has %s twice", name)
		}
	}
	want := &putRequest{conditions: conditions{
		ifMatch: r.Header.Values("If-Match"), ifNoneMatch: r.Header.Values("If-None-Match"),
	}}
	switch value := query.Get("overwrite"); value {
	case "1", "true":
		want.conditions.overwrite = true
	case "", "0", "false":
	default:
		return bad("overwrite is %.40q: want 1 or 0", value)
	}
	// RFC 9110, section 14.5: a part would be taken for the whole.
	if r.Header.Get("Content-Range") != "" {
		return bad("files are put whole: want no Content-Range")
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, problemf(http.StatusUnsupportedMediaType, codeUnsupported,
			"Content-Encoding is %.40q: files are kept as they are, send the content itself", encoding)
	}
	if want.digest, err = sentDigest(r.Header, query.Get("digest")); err != nil {
		return nil, err
	}
	if mount := query.Get("mount"); mount != "" {
		return want, want.parseMount(r, mount)
	}
	if want.digest == "" {
		return nil, problemf(http.StatusBadRequest, codeDigestRequired,
			"a file is put with its sha256: send it as Repr-Digest: sha-256=:<base64>: or as ?digest=sha256:<hexadecimal>")
	}
	return want, nil
}

func (want *putRequest) parseMount(r *http.Request, mount string) error {
	d, err := parseQueryDigest(mount)
	switch {
	case err != nil:
		return problemf(http.StatusBadRequest, codeDigestInvalid, "mount: %w", err)
	case want.digest != "" && want.digest != d:
		return problemf(http.StatusBadRequest, codeDigestInvalid, "mount says %s, the content's digest %s", d, want.digest)
	case r.ContentLength != 0:
		return problemf(http.StatusBadRequest, codeRequestInvalid, "a mount takes content that is there already: send none, with Content-Length: 0")
	}
	want.digest, want.mount = d, true
	return nil
}

// verdict is what is to be done with a name.
type verdict uint8

const (
	verdictCreate  verdict = iota
	verdictReplace         // it points to other content
	verdictNothing         // it points to this content already
)

// judge says what is to be done, and what the name points to now, nil for
// nothing, which lookup says.
func (x *exchange) judge(
	ctx context.Context, p Path, want *putRequest, lookup func(context.Context, Path) (*file, error),
) (verdict, *file, error) {
	if conflict := x.names.conflict(p); conflict != "" {
		what := "a file"
		if conflict == p {
			what = "a folder"
		}
		return 0, nil, problemf(http.StatusConflict, codeNameConflict, "%s cannot be a file: %s is %s", p, conflict, what)
	}
	present, err := lookup(ctx, p)
	if errors.Is(err, errNoFile) {
		present, err = nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	return want.conditions.judgePut(p, present, want.digest)
}

// receive sees to it that the content is in the store, and returns its size.
func (x *exchange) receive(ctx context.Context, want *putRequest) (int64, error) {
	info, err := x.store.Stat(ctx, want.digest)
	switch {
	case err == nil && want.mount:
		return info.Size, nil
	case err == nil && x.r.ContentLength >= 0 && x.r.ContentLength != info.Size:
		return 0, problemf(http.StatusBadRequest, codeDigestInvalid,
			"Content-Length says %d bytes, and content with digest %s has %d", x.r.ContentLength, want.digest, info.Size)
	case err == nil:
		return info.Size, x.discard(want.digest)
	case !errors.Is(err, blobstore.ErrNotExist):
		return 0, fmt.Errorf("asking whether %s is there: %w", want.digest, err)
	case want.mount:
		return 0, problemf(http.StatusNotFound, codeContentUnknown, "there is no content with digest %s: send it", want.digest)
	}
	body := x.body()
	err = x.store.Put(ctx, want.digest, x.r.ContentLength, body)
	body.finish()
	if err == nil && body.read == 0 {
		// Empty; or somebody else has put it since, and ours was not read.
		if info, err = x.store.Stat(ctx, want.digest); err != nil {
			return 0, fmt.Errorf("asking for the size of %s: %w", want.digest, err)
		}
		return info.Size, x.discard(want.digest)
	}
	return body.read, x.stored(body, want.digest, err) //nolint:contextcheck // the context is the request's, which x holds
}

// stored is what the client is told of an error of storing.
func (x *exchange) stored(body *pacedBody, want digest.Digest, err error) error {
	switch {
	case err == nil:
		return nil
	case body.err != nil:
		return body.told()
	case errors.Is(err, blobstore.ErrDigestMismatch):
		p := problemf(http.StatusBadRequest, codeDigestInvalid, "the %d bytes sent do not have digest %s: nothing was stored", body.read, want)
		p.detail = &digests{Sent: want}
		return p
	case errors.Is(err, blobstore.ErrSizeMismatch):
		return problemf(http.StatusBadRequest, codeSizeInvalid, "%d bytes were sent where Content-Length says %d: nothing was stored", body.read, x.r.ContentLength)
	}
	return x.refused(err)
}

// refused is what the client is told when the store does not take something.
func (x *exchange) refused(err error) error {
	switch {
	case errors.Is(err, blobstore.ErrNoSpace):
		x.log.ErrorContext(x.r.Context(), "no space for a file",
			slog.String("id", x.obs.ID), slog.String("path", x.obs.Path), slog.Any("error", err))
		return problemf(http.StatusInsufficientStorage, codeNoSpace, "there is no space left for this file: it was not stored")
	case errors.Is(err, blobstore.ErrInvalidKey):
		return problemf(http.StatusRequestURITooLong, codeNameInvalid, "the name is too long for the store that keeps it")
	}
	return err
}

// discard reads content that is in the store already, and says whether it was
// what was announced: who sends something else is not to believe that it was
// stored. Who waits to be asked for it is not asked.
func (x *exchange) discard(want digest.Digest) error {
	if strings.EqualFold(x.r.Header.Get("Expect"), "100-continue") {
		return nil
	}
	body := x.body()
	defer body.finish()
	h := sha256.New()
	if _, err := io.Copy(h, body); err != nil {
		return body.told()
	}
	if got := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil))); got != want {
		p := problemf(http.StatusBadRequest, codeDigestInvalid, "the %d bytes sent have digest %s, not %s: nothing was stored", body.read, got, want)
		p.detail = &digests{Sent: got}
		return p
	}
	return nil
}

// setName points the name to content that is there.
func (x *exchange) setName(ctx context.Context, p Path, want *putRequest, f *file, caller registry.Caller) error {
	p = p.clone()
	unlock := x.names.locks.write(p)
	defer unlock()
	what, present, err := x.judge(ctx, p, want, x.names.readFile)
	if err != nil {
		return err
	}
	header := x.w.Header()
	header.Set("Etag", entityTag(f.Digest))
	header.Set("Repr-Digest", reprDigest(f.Digest))
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", "0")
	if what == verdictNothing {
		x.w.WriteHeader(http.StatusOK)
		return nil
	}
	if err := x.names.set(ctx, p, f); err != nil {
		return x.refused(err) //nolint:contextcheck // the context is the request's, which x holds
	}
	event := Event{Path: string(p), Digest: f.Digest, Size: f.Size, ContentType: f.ContentType, Caller: caller}
	status := http.StatusCreated
	if what == verdictReplace {
		event.Previous, status = present.Digest, http.StatusOK
	}
	x.listener.Pushed(event)
	header.Set("Location", x.prefix+"/"+folder.EscapePath(string(p)))
	x.w.WriteHeader(status)
	return nil
}
