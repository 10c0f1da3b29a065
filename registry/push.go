package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// putManifest answers PUT of a manifest (OCI Distribution v1.1, "Pushing
// Manifests"; its main branch on the parameters tag and digest).
func (x *exchange) putManifest() {
	push, err := x.readManifest()
	if err != nil {
		x.fail(err)
		return
	}
	subject, err := x.writer.PutManifest(x.r.Context(), &x.req, push)
	if err != nil {
		x.fail(err)
		return
	}
	if subject != "" {
		x.header["Oci-Subject"] = []string{string(subject)}
	}
	if x.req.Tag == "" && len(push.Tags) > 0 {
		x.header["Oci-Tag"] = []string{strings.Join(push.Tags, ", ")}
	}
	x.created(apiPrefix+x.req.Repository+"/"+manifestsElement+"/"+string(push.Digest), push.Digest)
}

// readManifest reads the request's body and says what it is to be stored as.
func (x *exchange) readManifest() (*ManifestPush, error) {
	push := &ManifestPush{Digest: x.req.Digest}
	want, err := queryDigest(x.r.URL.RawQuery, "digest")
	if err == nil {
		push.Tags, err = queryTags(x.r.URL.RawQuery)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case x.req.Digest == "" && len(push.Tags) > 0:
		return nil, badQuery("the query has a tag beside that of the path: push by digest to set several")
	case x.req.Digest == "":
		// The query's digest says which algorithm the manifest is stored by.
		push.Digest, push.Tags = want, []string{x.req.Tag}
	case want != "" && want != x.req.Digest:
		return nil, Errorf(errcode.ErrorCodeDigestInvalid, "the query has digest %s, the path %s", want, x.req.Digest)
	}
	contentType, _, _ := strings.Cut(x.r.Header.Get("Content-Type"), ";")
	push.MediaType = strings.TrimSpace(contentType)
	if push.Body, err = x.readWhole(MaxManifestSize); err != nil {
		return nil, err
	}
	if push.Digest == "" {
		push.Digest = digest.FromBytes(push.Body)
	} else if got := push.Digest.Algorithm().FromBytes(push.Body); got != push.Digest {
		return nil, Errorf(errcode.ErrorCodeDigestInvalid, "the manifest's %d bytes have digest %s, not %s", len(push.Body), got, push.Digest)
	}
	return push, nil
}

// readWhole reads a body of at most limit bytes.
func (x *exchange) readWhole(limit int64) ([]byte, error) {
	tooLarge := func() error {
		e := Errorf(errcode.ErrorCodeManifestInvalid, "the manifest has more than the %d bytes allowed", limit)
		e.Status = http.StatusRequestEntityTooLarge
		return e
	}
	if x.r.ContentLength > limit {
		return nil, tooLarge()
	}
	size := x.r.ContentLength
	if size < 0 {
		size = limit
	}
	held, err := x.hold(size)
	if err != nil {
		return nil, err
	}
	defer x.large.Add(-held)
	body := newRequestBody(x.w, x.r, x.writeTimeout)
	content := make([]byte, 0, max(x.r.ContentLength, 512)+1)
	for {
		n, err := body.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		switch {
		case int64(len(content)) > limit:
			body.finish()
			return nil, tooLarge()
		case errors.Is(err, io.EOF):
			body.finish()
			return content, nil
		case err != nil:
			body.finish()
			return nil, fmt.Errorf("reading the manifest: %w", body.told())
		}
		if len(content) == cap(content) {
			content = append(content, 0)[:len(content)]
		}
	}
}
