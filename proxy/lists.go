package proxy

import (
	"bytes"
	"cmp"
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
	// decodedSize is how many times its size a record of a list takes while it is decoded,
	// about.
	decodedSize = 4
	// listLoads is how many records of lists are read at once.
	listLoads = 4
)

// listRecord is the JSON value of list and referrer records.
type listRecord[T any] struct {
	Items   []T       `json:"items"`
	Checked time.Time `json:"checked"`
}

// newLists makes the names of one kind of list, whose items weigh so much in memory.
func newLists[T any](n *Node, kind string, weigh func(T) int64, same func(a, b T) bool, fetch func(context.Context, nameKey, *listing[T]) error) *names[[]T] {
	l := newNames[[]T](maxLists)
	l.spawn = n.spawn
	l.equal = func(a, b []T) bool { return slices.EqualFunc(a, b, same) }
	l.check = func(ctx context.Context, key nameKey, _ []T, _, _ bool) ([]T, error) {
		list := &listing[T]{weigh: weigh, items: []T{}, room: room{of: n.listMemory}}
		if err := fetch(ctx, key, list); err != nil {
			list.room.close()
			return nil, err
		}
		keep(&list.room, list.items)
		return list.items, nil
	}
	l.load = func(key nameKey) ([]T, time.Time, bool, error) {
		// A few at a time: how large a record is, only reading it tells.
		n.listLoading <- struct{}{}
		defer func() { <-n.listLoading }()
		b, err := n.record(key.recordKey(kind))
		taken := room{of: n.listMemory}
		if full := taken.grow(decodedSize * int64(len(b))); full != nil {
			return nil, time.Time{}, false, full
		}
		var r listRecord[T]
		ok := n.decodeRecord(key.recordKey(kind), b, err, &r)
		taken.close()
		for i := range r.Items {
			if full := taken.grow(weigh(r.Items[i])); full != nil {
				taken.close()
				return nil, time.Time{}, false, full
			}
		}
		keep(&taken, r.Items)
		return r.Items, r.Checked, ok, nil
	}
	l.save = func(key nameKey, items []T, checked time.Time, changed bool) {
		n.writeRecord(key.recordKey(kind), listRecord[T]{items, checked}, changed)
	}
	l.drop = func(key nameKey) { n.dropRecord(key.recordKey(kind)) }
	l.touch = func(key nameKey) { n.touchRecord(key.recordKey(kind)) }
	return l
}

// listing is a list on its way from upstream.
type listing[T any] struct {
	weigh  func(T) int64
	items  []T
	weight int64
	room   room
}

// add takes one more item in. Errors: [*admission.Busy], errListTooLarge.
func (l *listing[T]) add(item T) error {
	n := l.weigh(item)
	if l.weight += n; l.weight > maxListWeight {
		return errListTooLarge
	}
	l.items = append(l.items, item)
	return l.room.grow(n)
}

var errListTooLarge = fmt.Errorf("it is larger than %d MiB in memory", maxListWeight>>20)

// addArray adds what a key of a JSON object has, one by one: what a list is in memory
// can be a hundred times what it was on the wire.
func (l *listing[T]) addArray(body []byte, key string) error {
	in := json.NewDecoder(bytes.NewReader(body))
	if token, err := in.Token(); err != nil || token != json.Delim('{') {
		return fmt.Errorf("it is no JSON object: %w", cmp.Or(err, errNoList))
	}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return err
		}
		if text, _ := name.(string); !strings.EqualFold(text, key) {
			if err := skip(in); err != nil {
				return err
			}
			continue
		}
		if err := l.addItems(in); err != nil {
			return err
		}
	}
	_, err := in.Token()
	return err
}

func (l *listing[T]) addItems(in *json.Decoder) error {
	switch token, err := in.Token(); {
	case err != nil:
		return err
	case token == nil: // null
		return nil
	case token != json.Delim('['):
		return errNoList
	}
	for in.More() {
		var item T
		if err := in.Decode(&item); err != nil {
			return err
		}
		if err := l.add(item); err != nil {
			return err
		}
	}
	_, err := in.Token()
	return err
}

var errNoList = errors.New("it has no list where one is to be")

// skip passes over a value, without keeping it.
func skip(in *json.Decoder) error {
	for depth := 0; ; {
		token, err := in.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
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
func (n *Node) fetchTags(ctx context.Context, key nameKey, list *listing[string]) error {
	return readPages(ctx, key, "/tags/list", n.listMemory, func(body []byte) error { return list.addArray(body, "tags") })
}

// fetchReferrers reads all referrers of a manifest: from the referrers API, or
// where upstream has none, from the index that clients keep under a tag in its
// place (OCI Distribution v1.1, "Referrers Tag Schema").
func (n *Node) fetchReferrers(ctx context.Context, key nameKey, list *listing[ocispec.Descriptor]) error {
	err := readPages(ctx, key, "/referrers/"+key.ref, n.listMemory, func(body []byte) error { return list.addArray(body, "manifests") })
	var ue *upstream.Error
	if !errors.As(err, &ue) || ue.Kind != upstream.NotFound {
		return err
	}
	tag := nameKey{key.up, key.repo, referrersTag(digest.Digest(key.ref))}
	m, err := n.fetchManifest(ctx, tag, false)
	if errors.As(err, &ue) && ue.Kind == upstream.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := list.addArray(m.Body, "manifests"); err != nil {
		return fmt.Errorf("reading the referrers index %s: %w", tag.ref, err)
	}
	return nil
}

// referrersTag is the digest with ":" replaced, the algorithm cut to 32
// characters and the encoding to 64.
func referrersTag(d digest.Digest) string {
	alg, enc := d.Algorithm().String(), d.Encoded()
	return alg[:min(len(alg), 32)] + "-" + enc[:min(len(enc), 64)]
}

// readPages reads a list through to its last page.
func readPages(ctx context.Context, key nameKey, path string, memory *listMemory, each func(body []byte) error) error {
	query, left := "", maxListSize
	for range maxPages {
		taken := room{of: memory}
		body, next, err := readPage(ctx, key, path, query, left, &taken)
		if err != nil {
			taken.close()
			return err
		}
		left -= len(body)
		err = each(body)
		taken.close()
		if err != nil {
			return fmt.Errorf("reading the list %s of %s: %w", path, key.repo, err)
		}
		if next == "" || next == query {
			return nil
		}
		query = next
	}
	return fmt.Errorf("the list %s of %s has more than %d pages", path, key.repo, maxPages)
}

// readPage reads one page, of at most left bytes, whose memory is counted in taken.
func readPage(ctx context.Context, key nameKey, path, query string, left int, taken *room) (body []byte, next string, err error) {
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
	body, err = io.ReadAll(&countedReader{io.LimitReader(resp.Body, int64(left)+1), taken})
	if err != nil {
		return nil, "", fmt.Errorf("reading the list %s of %s from %s: %w", path, key.repo, resp.Endpoint, err)
	}
	if len(body) > left {
		return nil, "", fmt.Errorf("the list %s of %s is larger than %d bytes", path, key.repo, maxListSize)
	}
	return body, nextQuery(resp.Header.Values("Link")), nil
}

// countedReader counts what is read into memory, twice: who reads all of it copies it
// as it grows.
type countedReader struct {
	io.Reader
	taken *room
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if full := c.taken.grow(2 * int64(n)); full != nil {
		return n, full
	}
	return n, err
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
