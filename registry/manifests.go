package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifest answers KindManifest. What comes from memory costs eight headers
// put into the map, the size up to which a map does not grow, and two writes.
func (x *exchange) manifest() {
	m, cs, err := x.backend.Manifest(x.r.Context(), &x.req)
	x.cacheStatus(&cs)
	if err == nil {
		err = x.checkManifest(m)
	}
	if err == nil {
		var held int64
		if held, err = x.hold(int64(len(m.Body))); held > 0 {
			defer x.large.Add(-held)
		}
	}
	if err != nil {
		x.fail(err)
		return
	}
	h := x.header
	h["Etag"] = m.etag
	h["Docker-Content-Digest"] = m.contentDigest
	if x.req.Digest != "" {
		h["Cache-Control"] = x.immutable()
	} else {
		h["Cache-Control"] = x.revalidate()
	}
	if status := precondition(x.r.Header, string(m.Digest), time.Time{}); status != 0 {
		x.conditional(status, string(m.Digest))
		return
	}
	h["Content-Type"] = m.contentType
	h["Content-Length"] = m.contentLength
	h["X-Content-Type-Options"] = x.values.nosniff
	x.write(http.StatusOK, m.Body)
}

// hold counts a manifest or a list that is in memory until a client took it, or sent it;
// small ones do not count. held is to be taken off again. Errors: 503.
func (x *exchange) hold(size int64) (held int64, err error) {
	if size <= smallBody {
		return 0, nil
	}
	if all := x.large.Add(size); all <= x.largeLimit || all == size { // one alone is always sent
		return size, nil
	}
	x.large.Add(-size)
	e := Errorf(errcode.ErrorCodeUnavailable, "too many large manifests and lists are being sent: come back in a moment")
	e.Status, e.RetryAfter = http.StatusServiceUnavailable, time.Second
	return 0, e
}

// checkManifest keeps a backend's mistake from becoming a client's.
func (x *exchange) checkManifest(m *Manifest) error {
	switch {
	case m == nil || m.ManifestHead == nil:
		return errors.New("the backend gave no manifest")
	case x.req.Digest != "" && m.Digest != x.req.Digest:
		return fmt.Errorf("the backend gave manifest %s for %s", m.Digest, x.req.Digest)
	case !x.req.Head && int64(len(m.Body)) != m.Size:
		return fmt.Errorf("the backend gave %d bytes for manifest %s of %d", len(m.Body), m.Digest, m.Size)
	}
	return nil
}

// conditional answers a request whose precondition decided it. The validators
// are in the header already.
func (x *exchange) conditional(status int, opaque string) {
	if status == http.StatusNotModified {
		x.write(status, nil)
		return
	}
	e := Errorf(errcode.ErrorCodeUnsupported, "the condition of the request is not met: what it asks for has the entity tag \"%s\"", opaque)
	e.Status = status
	x.fail(e)
}

// tags answers KindTags (OCI Distribution v1.1, "Listing Tags").
func (x *exchange) tags() {
	tags, more, cs, err := x.backend.Tags(x.r.Context(), &x.req)
	x.cacheStatus(&cs)
	if err != nil {
		x.fail(err)
		return
	}
	if x.req.N == 0 {
		tags = nil // the specification wants an empty list, and no link
	}
	if tags == nil {
		tags = []string{}
	}
	held, err := x.hold(2 * tagsSize(tags)) // written, and copied
	if err != nil {
		x.fail(err)
		return
	}
	defer x.large.Add(-held)
	content, err := json.Marshal(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{x.req.Repository, tags})
	if err != nil {
		x.fail(fmt.Errorf("encoding the tags of %s: %w", x.req.Repository, err))
		return
	}
	if more && len(tags) > 0 {
		x.header["Link"] = []string{x.nextPage(tags)}
	}
	x.header["Cache-Control"] = x.revalidate()
	x.header["X-Content-Type-Options"] = x.values.nosniff
	x.document(http.StatusOK, x.values.json, content)
}

// nextPage is the Link to what follows tags, for the same client: it goes on
// talking of the same namespace, and in pages of the same size.
func (x *exchange) nextPage(tags []string) string {
	n := x.req.N
	if n < 0 {
		n = len(tags)
	}
	link := "<" + x.req.Path() + "?n=" + strconv.Itoa(n) + "&last=" + url.QueryEscape(tags[len(tags)-1])
	if x.req.Namespace != "" {
		link += "&ns=" + url.QueryEscape(x.req.Namespace)
	}
	return link + `>; rel="next"`
}

// referrers answers KindReferrers (OCI Distribution v1.1, "Listing Referrers").
func (x *exchange) referrers() {
	manifests, cs, err := x.backend.Referrers(x.r.Context(), &x.req)
	x.cacheStatus(&cs)
	if err != nil {
		x.fail(err)
		return
	}
	if manifests == nil {
		manifests = []ocispec.Descriptor{}
	}
	held, err := x.hold(2 * descriptorsSize(manifests))
	if err != nil {
		x.fail(err)
		return
	}
	defer x.large.Add(-held)
	content, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: manifests,
	})
	if err != nil {
		x.fail(fmt.Errorf("encoding the referrers of %s: %w", x.req.Digest, err))
		return
	}
	if x.req.ArtifactType != "" {
		x.header["Oci-Filters-Applied"] = x.values.artifactType
	}
	x.header["Cache-Control"] = x.revalidate()
	x.header["X-Content-Type-Options"] = x.values.nosniff
	x.document(http.StatusOK, x.values.index, content)
}
