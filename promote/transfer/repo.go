package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// maxList bounds one page of a list, in bytes, and maxPages the pages.
	maxList  = 32 << 20
	maxPages = 10_000
)

// repo is a repository and the right to read it, or to write it.
type repo struct {
	Repository

	host  *host
	scope string // what a token is asked for
}

func (c *Client) reader(r Repository) *repo { return c.repo(r, auth.ActionPull) }

func (c *Client) writer(r Repository) *repo { return c.repo(r, auth.ActionPull, auth.ActionPush) }

func (c *Client) repo(r Repository, actions ...string) *repo {
	h := c.host(r.Host)
	if h.base.Host == dockerHub && !strings.Contains(r.Name, "/") {
		r.Name = "library/" + r.Name
	}
	return &repo{Repository: r, host: h, scope: auth.ScopeRepository(r.Name, actions...)}
}

// request is one to the repository; path is below its name.
func (r *repo) request(method, path string) *request {
	req := &request{method: method, url: r.host.url("/v2/"+r.Name+"/"+path, nil), scopes: []string{r.scope}}
	if strings.HasPrefix(path, "manifests/") {
		req.header = http.Header{"Accept": {manifestAccept}}
	}
	return req
}

// head asks what a tag or digest is, without its content.
// Errors: ErrNotFound.
func (r *repo) head(ctx context.Context, reference string) (ocispec.Descriptor, error) {
	a, err := r.host.fetch(ctx, r.request(http.MethodHead, "manifests/"+reference), 0)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{
		MediaType: a.header.Get("Content-Type"), Size: a.length,
		Digest: digest.Digest(a.header.Get("Docker-Content-Digest")),
	}
	if want := digest.Digest(reference); want.Validate() == nil {
		if d.Digest != "" && d.Digest != want {
			return d, failf(ErrCorrupt, "%s has %.100q where %s was asked for", r.Host, d.Digest, want)
		}
		d.Digest = want
	}
	return d, nil
}

// resolve asks what a tag or digest is; see [Client.Resolve].
func (r *repo) resolve(ctx context.Context, reference string) (ocispec.Descriptor, error) {
	d, err := r.head(ctx, reference)
	if err == nil && d.Digest.Validate() == nil && d.Size > 0 && isManifestType(d.MediaType) {
		return d, nil
	}
	told, ok := errors.AsType[*Error](err)
	if err != nil && (!ok || !told.is(ErrRefused)) {
		return ocispec.Descriptor{}, err
	}
	// The answer to a HEAD says too little, or is none.
	m, err := r.manifest(ctx, reference)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}, nil
}

// has says whether a manifest is there.
func (r *repo) has(ctx context.Context, d digest.Digest) (bool, error) {
	_, err := r.head(ctx, d.String())
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// manifest reads a manifest by tag or digest and verifies it.
// Errors: ErrNotFound, ErrCorrupt, ErrUnsupported.
func (r *repo) manifest(ctx context.Context, reference string) (*manifest, error) {
	a, err := r.host.fetch(ctx, r.request(http.MethodGet, "manifests/"+reference), maxManifest)
	if err != nil {
		return nil, err
	}
	told := digest.Digest(a.header.Get("Docker-Content-Digest"))
	want := digest.Digest(reference)
	if want.Validate() != nil { // a tag
		want = told
	}
	if want.Validate() != nil {
		want = digest.FromBytes(a.body)
	}
	if got := want.Algorithm().FromBytes(a.body); got != want {
		return nil, failf(ErrCorrupt, "manifest %s from %s has the digest %s", want, r, got)
	}
	m, err := parseManifest(want, a.header.Get("Content-Type"), a.body)
	if err != nil {
		return nil, failf(ErrUnsupported, "%s: %w", r, err)
	}
	return m, nil
}

// put writes a manifest under a tag or its digest, byte for byte, and makes
// sure that it is there. Errors: ErrCorrupt when the registry made something
// else of it.
func (r *repo) put(ctx context.Context, reference string, m *manifest) error {
	req := r.request(http.MethodPut, "manifests/"+reference)
	req.header = http.Header{"Content-Type": {m.MediaType}}
	req.body, req.size = bodyOf(m.content), m.Size
	a, err := r.host.fetch(ctx, req, maxErrorBody)
	if err != nil {
		return writing(err)
	}
	switch told := a.header.Get("Docker-Content-Digest"); told {
	case m.Digest.String():
		return nil
	case "":
		_, err := r.head(ctx, m.Digest.String())
		return writing(err)
	default:
		return failf(ErrCorrupt, "%s stored manifest %s as %.100q", r, m.Digest, told)
	}
}

// writing makes an error of writing one that does not look as if the source
// lacked something.
func writing(err error) error {
	if told, ok := errors.AsType[*Error](err); ok && told.is(ErrNotFound) {
		return &Error{Kind: ErrRefused, Status: told.Status, Err: told.Err}
	}
	return err
}

// remove deletes a manifest by tag or digest. Errors: ErrNotFound.
func (r *repo) remove(ctx context.Context, reference string) error {
	req := r.request(http.MethodDelete, "manifests/"+reference)
	req.scopes = []string{auth.ScopeRepository(r.Name, auth.ActionDelete, auth.ActionPull, auth.ActionPush)}
	_, err := r.host.fetch(ctx, req, maxErrorBody)
	return err
}

// tags lists the tags, sorted. Errors: ErrNotFound.
func (r *repo) tags(ctx context.Context) ([]string, error) {
	req := r.request(http.MethodGet, "tags/list")
	req.url.RawQuery = "n=1000"
	var tags []string
	err := r.host.pages(ctx, req, func(page []byte) error {
		var list struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(page, &list); err != nil {
			return err
		}
		tags = append(tags, list.Tags...)
		return nil
	})
	slices.Sort(tags)
	return slices.Compact(tags), err
}

// catalog lists the repositories of the registry, sorted.
func (h *host) catalog(ctx context.Context) ([]string, error) {
	req := &request{
		method: http.MethodGet, scopes: []string{auth.ScopeRegistryCatalog},
		url: h.url("/v2/_catalog", url.Values{"n": {"1000"}}),
	}
	var names []string
	err := h.pages(ctx, req, func(page []byte) error {
		var list struct {
			Repositories []string `json:"repositories"`
		}
		if err := json.Unmarshal(page, &list); err != nil {
			return err
		}
		names = append(names, list.Repositories...)
		return nil
	})
	slices.Sort(names)
	return slices.Compact(names), err
}

// pages reads a list page by page, as far as Link headers lead.
func (h *host) pages(ctx context.Context, req *request, take func(page []byte) error) error {
	for range maxPages {
		a, err := h.fetch(ctx, req, maxList)
		if err != nil {
			return err
		}
		if err := take(a.body); err != nil {
			return failf(ErrRefused, "%s: %w", req.what(), err)
		}
		link := nextLink(a.header.Values("Link"))
		if link == "" {
			return nil
		}
		next, err := req.url.Parse(link)
		if err != nil || !sameOrigin(next, h.base) || *next == *req.url {
			return failf(ErrRefused, "%s: the link to the next page does not lead on", req.what())
		}
		again := *req
		again.url = &url.URL{Scheme: next.Scheme, Host: next.Host, Path: next.Path, RawQuery: next.RawQuery}
		req = &again
	}
	return failf(ErrRefused, "%s: more than %d pages", req.what(), maxPages)
}

// nextLink is the target of the link to the next page (RFC 8288), empty when
// there is none.
func nextLink(headers []string) string {
	for _, header := range headers {
		for header != "" {
			_, after, found := strings.Cut(header, "<")
			target, after, closed := strings.Cut(after, ">")
			if !found || !closed {
				break
			}
			params, rest, _ := strings.Cut(after, ",")
			for param := range strings.SplitSeq(params, ";") {
				key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
				if strings.EqualFold(strings.TrimSpace(key), "rel") && strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "next") {
					return target
				}
			}
			header = rest
		}
	}
	return ""
}
