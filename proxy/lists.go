package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Kinds of records.
const (
	listRecords     = "lists"     // lists/<upstream>/<repo>/tags: all tags of a repository
	referrerRecords = "referrers" // referrers/<upstream>/<repo>/<digest>: all referrers of a manifest
)

const (
	// maxPages and maxListSize bound what is read of one list.
	maxPages    = 1000
	maxListSize = 32 << 20 // bytes of JSON, over all pages
)

// listRecord is the JSON value of list and referrer records.
type listRecord[T any] struct {
	Items   []T       `json:"items"`
	Checked time.Time `json:"checked"`
}

// newLists makes the names of one kind of list.
func newLists[T any](n *Node, kind string, check func(context.Context, nameKey) ([]T, error), same func(a, b T) bool) *names[[]T] {
	l := newNames[[]T](maxLists)
	l.spawn = n.spawn
	l.equal = func(a, b []T) bool { return slices.EqualFunc(a, b, same) }
	l.check = func(ctx context.Context, key nameKey, _ []T, _, _ bool) ([]T, error) { return check(ctx, key) }
	l.load = func(key nameKey) ([]T, time.Time, bool) {
		var r listRecord[T]
		ok := n.readRecord(key.recordKey(kind), &r)
		return r.Items, r.Checked, ok
	}
	l.save = func(key nameKey, items []T, checked time.Time, changed bool) {
		n.writeRecord(key.recordKey(kind), listRecord[T]{items, checked}, changed)
	}
	l.drop = func(key nameKey) { n.dropRecord(key.recordKey(kind)) }
	l.touch = func(key nameKey) { n.touchRecord(key.recordKey(kind)) }
	return l
}

// Tags implements registry.Backend. A list is fetched and kept whole, so that
// any page of it can be answered, also when upstream is gone.
func (n *Node) Tags(ctx context.Context, req *registry.Request) ([]string, bool, registry.CacheStatus, error) {
	up, repo, err := registry.RouteImage(req, n.upstreams, n.fallback)
	if err != nil {
		return nil, false, registry.CacheStatus{Outcome: registry.OutcomeError}, err
	}
	if up.client.Offline() {
		return n.offlineTags(ctx, up, repo, req)
	}
	a, err := n.lists.get(ctx, nameKey{up, repo, "tags"}, &up.policy, req.Head)
	if err != nil {
		return nil, false, registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: up.name}, clientError(err, "repository", up, repo, "")
	}
	tags, more := page(a.value, req.Last, req.N)
	return tags, more, listStatus(up, a), nil
}

// page cuts at most n items after last out of a list. Where last is not in the
// list, what follows it in the order of the specification is taken (OCI
// Distribution v1.1, "Listing Tags": lexical order).
func page(items []string, last string, n int) ([]string, bool) {
	if last != "" {
		if i := slices.Index(items, last); i >= 0 {
			items = items[i+1:]
		} else {
			items = slices.DeleteFunc(slices.Clone(items), func(s string) bool { return s <= last })
		}
	}
	if n >= 0 && n < len(items) {
		return items[:n], n > 0
	}
	return items, false
}

// Referrers implements registry.Backend.
func (n *Node) Referrers(ctx context.Context, req *registry.Request) ([]ocispec.Descriptor, registry.CacheStatus, error) {
	up, repo, err := registry.RouteImage(req, n.upstreams, n.fallback)
	if err != nil {
		return nil, registry.CacheStatus{Outcome: registry.OutcomeError}, err
	}
	a, err := n.referrers.get(ctx, nameKey{up, repo, string(req.Digest)}, &up.policy, req.Head)
	if err != nil {
		return nil, registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: up.name}, clientError(err, "repository", up, repo, "")
	}
	found := a.value
	if req.ArtifactType != "" {
		found = slices.DeleteFunc(slices.Clone(found), func(d ocispec.Descriptor) bool { return d.ArtifactType != req.ArtifactType })
	}
	return found, listStatus(up, a), nil
}

func listStatus[T any](up *upstreamState, a answer[T]) registry.CacheStatus {
	cs := registry.CacheStatus{
		Outcome: registry.OutcomeStale, Upstream: up.name, Collapsed: a.collapsed,
		HasTTL: true, Age: a.age, TTL: up.policy.TTL - a.age, Detail: a.failure,
	}
	switch {
	case a.asked && a.failure == "":
		cs.Outcome, cs.FwdStatus, cs.Stored = registry.OutcomeMiss, http.StatusOK, true
	case a.fresh:
		cs.Outcome = registry.OutcomeHit
	}
	return cs
}

// fetchTags reads all tags of a repository.
func (n *Node) fetchTags(ctx context.Context, key nameKey) ([]string, error) {
	tags := []string{}
	err := readPages(ctx, key, "/tags/list", func(body []byte) error {
		var p struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(body, &p); err != nil {
			return err
		}
		tags = append(tags, p.Tags...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return tags, nil
}

// fetchReferrers reads all referrers of a manifest: from the referrers API, or
// where upstream has none, from the index that clients keep under a tag in its
// place (OCI Distribution v1.1, "Referrers Tag Schema").
func (n *Node) fetchReferrers(ctx context.Context, key nameKey) ([]ocispec.Descriptor, error) {
	found := []ocispec.Descriptor{}
	err := readPages(ctx, key, "/referrers/"+key.ref, func(body []byte) error {
		var index ocispec.Index
		if err := json.Unmarshal(body, &index); err != nil {
			return err
		}
		found = append(found, index.Manifests...)
		return nil
	})
	var ue *upstream.Error
	if !errors.As(err, &ue) || ue.Kind != upstream.NotFound {
		return found, err
	}
	tag := nameKey{key.up, key.repo, referrersTag(digest.Digest(key.ref))}
	m, err := n.fetchManifest(ctx, tag, false)
	if errors.As(err, &ue) && ue.Kind == upstream.NotFound {
		return []ocispec.Descriptor{}, nil
	}
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(m.Body, &index); err != nil {
		return nil, fmt.Errorf("reading the referrers index %s: %w", tag.ref, err)
	}
	return append(found, index.Manifests...), nil
}

// referrersTag is the digest with ":" replaced, the algorithm cut to 32
// characters and the encoding to 64.
func referrersTag(d digest.Digest) string {
	alg, enc := d.Algorithm().String(), d.Encoded()
	return alg[:min(len(alg), 32)] + "-" + enc[:min(len(enc), 64)]
}

// readPages reads a list through to its last page.
func readPages(ctx context.Context, key nameKey, path string, each func(body []byte) error) error {
	query, size := "", 0
	for range maxPages {
		body, next, err := readPage(ctx, key, path, query)
		if err != nil {
			return err
		}
		if size += len(body); size > maxListSize {
			return fmt.Errorf("the list %s of %s is larger than %d bytes", path, key.repo, maxListSize)
		}
		if err := each(body); err != nil {
			return fmt.Errorf("reading the list %s of %s: %w", path, key.repo, err)
		}
		if next == "" || next == query {
			return nil
		}
		query = next
	}
	return fmt.Errorf("the list %s of %s has more than %d pages", path, key.repo, maxPages)
}

func readPage(ctx context.Context, key nameKey, path, query string) (body []byte, next string, err error) {
	resp, err := key.up.client.Do(ctx, &upstream.Request{
		Method:     http.MethodGet,
		Repository: key.repo,
		Path:       key.repo + path,
		Query:      query,
		Header:     http.Header{"Accept": {"application/json", ocispec.MediaTypeImageIndex}},
	})
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxListSize+1))
	if err != nil {
		return nil, "", fmt.Errorf("reading the list %s of %s from %s: %w", path, key.repo, resp.Endpoint, err)
	}
	return body, nextQuery(resp.Header.Values("Link")), nil
}

// nextQuery returns the query of the link whose relation is next (RFC 8288).
// Only the query is used: the host and path stay those that are configured.
func nextQuery(links []string) string {
	for _, header := range links {
		// A link is <target>; params, and a target may have commas in it.
		for _, rest, more := strings.Cut(header, "<"); more; {
			var target, params string
			target, rest, _ = strings.Cut(rest, ">")
			params, rest, more = strings.Cut(rest, "<")
			u, err := url.Parse(target)
			if err != nil || !isNext(strings.TrimRight(params, ", \t")) {
				continue
			}
			return strings.ReplaceAll(u.RawQuery, " ", "%20") // which is no link, and would be no request
		}
	}
	return ""
}

func isNext(params string) bool {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		if strings.EqualFold(name, "rel") && strings.EqualFold(value, "next") {
			return true
		}
	}
	return false
}
