package geo

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"entrepot/geo/choice"
	"entrepot/registry"
	"entrepot/registry/access"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// Images is an upstream of images.
type Images struct {
	// Name is its name, at nodes and in requests.
	Name string
	// Private has all of it served by who is trusted with it only, and
	// PrivateRepositories those of its repositories.
	Private             bool
	PrivateRepositories []access.Pattern
	// Ledger has what was promoted to Destinations; nil when there is none.
	Ledger       Ledger
	Destinations []string
}

// IsPrivate says whether a repository is for who is trusted only.
func (up *Images) IsPrivate(repository string) bool {
	return up.Private || matchesAny(up.PrivateRepositories, repository)
}

// maxChoices is how many mirrors are tried for a request.
const maxChoices = 6

// image answers a request of the registry's API.
func (x *exchange) image() error {
	req, err := registry.ParseRequest(x.r)
	if req.Namespace != "" {
		x.w.Header().Set("Oci-Namespace", req.Namespace)
	}
	if err != nil {
		return err
	}
	if req.Kind == registry.KindBase {
		header := x.w.Header()
		header.Set("Docker-Distribution-Api-Version", "registry/2.0")
		header.Set("Content-Type", "application/json")
		x.obs.Status = http.StatusOK
		_, _ = x.w.Write([]byte("{}"))
		return nil
	}
	if err := x.parseImage(&req); err != nil {
		return err
	}
	if m := x.rt.cfg.Cosign; m != nil && isCosign(req.Tag) {
		if location := m.Location(x.query.Secure, &x.target); location != "" {
			x.redirect(http.StatusTemporaryRedirect, -1, location)
			return nil
		}
	}
	var room [maxChoices]choice.Choice
	index, location, err := x.location(x.chooseAgain(room[:0]))
	if err != nil {
		return err
	}
	x.redirect(http.StatusTemporaryRedirect, index, location)
	return nil
}

// parseImage says what is asked for, in the words of the choice.
func (x *exchange) parseImage(req *registry.Request) error {
	up, repository, err := x.rt.routeImage(req)
	if err != nil {
		return err
	}
	q, t := &x.query, &x.target
	q.Namespace, q.Private = up.Name, up.IsPrivate(repository)
	q.Key = up.Name + "/" + repository
	t.Namespace, t.Repository = up.Name, repository
	if err := revoked(up.Ledger, req.Digest, repository); err != nil {
		return err
	}
	switch req.Kind {
	case registry.KindManifest:
		if q.What, t.Route = choice.Names, "manifests/"+req.Tag; req.Tag == "" {
			q.What, t.Route = choice.Manifest, "manifests/"+string(req.Digest)
		}
	case registry.KindBlob:
		q.What, t.Route, t.Digest = choice.Blob, "blobs/"+string(req.Digest), req.Digest
		q.Size = x.blobSize()
	case registry.KindTags:
		q.What, t.Route, t.Query = choice.Names, "tags/list", tagsQuery(req)
	case registry.KindReferrers:
		q.What, t.Route = choice.Names, "referrers/"+string(req.Digest)
		if req.ArtifactType != "" {
			t.Query = "artifactType=" + url.QueryEscape(req.ArtifactType)
		}
	default:
		e := registry.Errorf(errcode.ErrorCodeUnsupported, "uploads are not possible here: the router reads only; promotion writes at the origin")
		e.Status = http.StatusMethodNotAllowed
		return e
	}
	return nil
}

// revoked is the answer for content that may not be served any more.
func revoked(l Ledger, d digest.Digest, what string) error {
	if l == nil || d == "" {
		return nil
	}
	revocation, ok := l.State().Revoked(d)
	if !ok {
		return nil
	}
	e := registry.Errorf(errcode.ErrorCodeDenied, "%s at %s was revoked: %s", d, what, revocation.Reason)
	e.Status = http.StatusUnavailableForLegalReasons
	return e
}

// blobSize is how large the blob is that is asked for, where that decides who may
// serve it, and an origin says so in time; else negative.
func (x *exchange) blobSize() int64 {
	if !x.view.sizesDecide || x.rt.cfg.Presence == nil {
		return -1
	}
	for i := range x.view.list.Len() {
		m := x.view.list.Mirror(i)
		if !x.knowsSizes(i) {
			continue
		}
		size, err := x.rt.cfg.Presence.Size(x.r.Context(), m, &x.target)
		if err != nil {
			x.rt.cfg.Logger.DebugContext(x.r.Context(), "asking an origin for a size failed", "mirror", m.Name, "error", err)
			continue
		}
		return size
	}
	return -1
}

// knowsSizes says whether a mirror can be relied on for the size of what is asked
// for.
func (x *exchange) knowsSizes(index int) bool {
	m := x.view.list.Mirror(index)
	return m.Tier == choice.Origin && m.Kind != choice.Bucket && x.view.states[index].Up && m.Has(x.query.Namespace)
}

// routeImage says which upstream a request means, and which of its repositories.
func (rt *Router) routeImage(req *registry.Request) (*Images, string, error) {
	all := rt.images[""]
	if all == nil {
		return registry.RouteImage(req, rt.images, rt.images[rt.cfg.DefaultImages])
	}
	// As docker does, a first element with a dot or colon is taken for a host.
	if req.Namespace != "" {
		return &Images{Name: req.Namespace}, req.Repository, nil
	}
	if first, rest, more := strings.Cut(req.Repository, "/"); more && strings.ContainsAny(first, ".:") {
		return &Images{Name: first}, rest, nil
	}
	return all, req.Repository, nil
}

// tagsQuery is the query of a list of tags, made anew of what was understood.
func tagsQuery(req *registry.Request) string {
	var query string
	if req.N >= 0 {
		query = "n=" + strconv.Itoa(req.N)
	}
	if req.Last != "" {
		if query != "" {
			query += "&"
		}
		query += "last=" + url.QueryEscape(req.Last)
	}
	return query
}

// isCosign says whether a tag is one at which cosign keeps what belongs to a
// digest: sha256-<hex>.sig, .att or .sbom.
func isCosign(tag string) bool {
	const hex = 64
	rest, ok := strings.CutPrefix(tag, "sha256-")
	if !ok || len(rest) < hex {
		return false
	}
	switch rest[hex:] {
	case ".sig", ".att", ".sbom":
		return strings.Trim(rest[:hex], "0123456789abcdef") == ""
	}
	return false
}
