package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// maxAttached bounds what may be attached to one image.
const maxAttached = 10_000

// attachments copies what is about manifests that are at the destination, and
// what is about that, and so on. It works level by level: unlike what a
// manifest names, attachments can name each other in a circle.
func (j *copying) attachments(ctx context.Context, subjects []ocispec.Descriptor) error {
	seen := make(map[digest.Digest]bool)
	for len(subjects) > 0 {
		var level []ocispec.Descriptor
		for _, s := range subjects {
			if !seen[s.Digest] {
				seen[s.Digest] = true
				level = append(level, s)
			}
		}
		if len(seen) > maxAttached {
			return failf(ErrUnsupported, "more than %d manifests are attached to it", maxAttached)
		}
		found := make([][]ocispec.Descriptor, len(level))
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(breadth)
		for i, subject := range level {
			group.Go(func() (err error) {
				found[i], err = j.about(groupCtx, subject)
				if err != nil {
					err = fmt.Errorf("copying what is about %s: %w", subject.Digest, err)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		subjects = slices.Concat(found...)
	}
	return nil
}

// about copies the referrers and the cosign tags of one manifest, and returns
// the manifests of these.
func (j *copying) about(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	all, err := j.referrers(ctx, subject)
	if err != nil {
		return nil, err
	}
	for _, suffix := range cosignSuffixes() {
		more, err := j.cosignTag(ctx, subject, fallbackTag(subject.Digest)+suffix)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func (j *copying) referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	listed, err := j.client.sources.listReferrers(ctx, j.client, j.from, subject.Digest)
	if err != nil {
		return nil, err
	}
	var all, referrers []ocispec.Descriptor
	for _, d := range listed {
		m, err := j.client.sources.manifest(ctx, j.from, d.Digest)
		if errors.Is(err, ErrNotFound) {
			j.mu.Lock()
			j.done.Lost = append(j.done.Lost, d.Digest)
			j.mu.Unlock()
			continue
		}
		if err != nil {
			return nil, err
		}
		if m.subject == nil || m.subject.Digest != subject.Digest {
			continue // the list says so, but the manifest does not
		}
		below, err := j.tree(ctx, m.Descriptor, m)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
		referrers = append(referrers, m.Descriptor)
		j.attached(Attachment{Subject: subject.Digest, Descriptor: m.Descriptor})
	}
	if len(referrers) == 0 {
		return all, nil
	}
	return all, j.list(ctx, subject.Digest, referrers)
}

func (j *copying) attached(a Attachment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done.Attached = append(j.done.Attached, a)
}

// list makes the destination list referrers that it holds. One with the
// referrers API does so by itself; for others the list is kept at a tag
// (OCI Distribution Specification v1.1, "Referrers Tag Schema").
func (j *copying) list(ctx context.Context, subject digest.Digest, referrers []ocispec.Descriptor) error {
	c := j.client
	key := j.to.String() + "@" + subject.String()
	// Waiting is no help here: each has referrers of its own to add. But only
	// one may at a time.
	for added := false; !added; {
		err := c.listings.do(ctx, key, func() error {
			added = true
			return j.addToList(ctx, subject, referrers)
		})
		if err != nil && added {
			return fmt.Errorf("listing the referrers of %s: %w", subject, err)
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (j *copying) addToList(ctx context.Context, subject digest.Digest, referrers []ocispec.Descriptor) error {
	there, byAPI, err := j.client.listReferrers(ctx, j.to, subject)
	if err != nil || byAPI {
		return err
	}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: there,
	}
	for _, r := range referrers {
		if !slices.ContainsFunc(there, func(d ocispec.Descriptor) bool { return d.Digest == r.Digest }) {
			index.Manifests = append(index.Manifests, r)
		}
	}
	if len(index.Manifests) == len(there) {
		return nil
	}
	content, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("encoding the list: %w", err)
	}
	return j.to.put(ctx, fallbackTag(subject), &manifest{
		content: content,
		Descriptor: ocispec.Descriptor{
			MediaType: index.MediaType, Digest: digest.FromBytes(content), Size: int64(len(content)),
		},
	})
}

// cosignTag copies what cosign keeps at a tag about a subject. If something
// else is at the tag of the destination, it gives way only to what has all of
// its layers, each of which is a signature or an attestation.
func (j *copying) cosignTag(ctx context.Context, subject ocispec.Descriptor, tag string) ([]ocispec.Descriptor, error) {
	may, err := j.client.mayHaveTag(ctx, j.from, tag)
	if err != nil || !may {
		return nil, err
	}
	theirs, err := j.from.manifest(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := j.tree(ctx, theirs.Descriptor, theirs)
	if err != nil {
		return nil, err
	}
	ours, err := j.to.manifest(ctx, tag)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	switch {
	case ours == nil, ours.Digest != theirs.Digest && theirs.includes(ours):
		err = j.to.put(ctx, tag, theirs)
	case ours.Digest != theirs.Digest && !ours.includes(theirs):
		j.mu.Lock()
		j.done.Kept = append(j.done.Kept, tag)
		j.mu.Unlock()
		return all, nil
	}
	if err == nil {
		j.attached(Attachment{Subject: subject.Digest, Tag: tag, Descriptor: theirs.Descriptor})
	}
	return all, err
}

// includes says whether every layer of another manifest is one of m, too. The
// config counts for nothing: it lists the layers.
func (m *manifest) includes(other *manifest) bool {
	for _, layer := range other.layers() {
		if !slices.ContainsFunc(m.layers(), func(d ocispec.Descriptor) bool { return d.Digest == layer.Digest }) {
			return false
		}
	}
	return !isIndexType(m.MediaType) && m.MediaType == other.MediaType
}

// layers are the blobs without the config, which comes first.
func (m *manifest) layers() []ocispec.Descriptor { return m.blobs[min(1, len(m.blobs)):] }

// fallbackTag is where the referrers of a digest are listed when a registry has
// no API for it, and what cosign's tags begin with.
func fallbackTag(d digest.Digest) string {
	return string(d.Algorithm()) + "-" + d.Encoded()[:min(len(d.Encoded()), 64)]
}

// listReferrers lists what a repository says are the referrers of a digest, and
// whether it has the referrers API.
func (c *Client) listReferrers(ctx context.Context, r *repo, d digest.Digest) (list []ocispec.Descriptor, byAPI bool, err error) {
	if !c.known.lacksAPI(r) {
		list, err = r.referrers(ctx, d)
		told, _ := errors.AsType[*Error](err)
		switch {
		case err == nil:
			return list, true, nil
		case told == nil:
			return nil, false, err
		case !told.is(ErrNotFound, ErrRefused, ErrUnauthorized):
			return nil, false, err
		}
		// Manifests of the repository could be read: it is the API that is not
		// there, whatever the answer calls it.
		c.known.setLacksAPI(r)
	}
	tag := fallbackTag(d)
	if r.scope == c.reader(r.Repository).scope { // a source
		may, err := c.mayHaveTag(ctx, r, tag)
		if err != nil || !may {
			return nil, false, err
		}
	}
	m, err := r.manifest(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if !isIndexType(m.MediaType) {
		return nil, false, nil // somebody's own tag
	}
	return m.children, false, nil
}

// referrers asks the referrers API.
func (r *repo) referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	var list []ocispec.Descriptor
	err := r.host.pages(ctx, r.request(http.MethodGet, "referrers/"+d.String()), func(page []byte) error {
		var index ocispec.Index
		if err := json.Unmarshal(page, &index); err != nil {
			return err
		}
		if !isIndexType(index.MediaType) {
			return errors.New("the answer is no index")
		}
		list = append(list, index.Manifests...)
		for _, d := range index.Manifests {
			if err := d.Digest.Validate(); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// mayHaveTag says whether a source may have a tag that attachments are kept at.
// The tags of a repository are listed once, which saves several questions for
// each of its manifests; if they cannot be listed, every answer is yes.
func (c *Client) mayHaveTag(ctx context.Context, r *repo, tag string) (bool, error) {
	key := r.String()
	if tags, known := c.known.attachmentTags(key); known {
		return tags == nil || tags[tag], nil
	}
	err := c.listings.do(ctx, "tags "+key, func() error {
		if _, known := c.known.attachmentTags(key); known {
			return nil
		}
		list, err := r.tags(ctx)
		told, _ := errors.AsType[*Error](err)
		switch {
		case err == nil:
			c.known.setAttachmentTags(key, append([]string{}, list...))
		case told == nil, told.is(ErrUnavailable, ErrRateLimited):
			return err
		default:
			c.known.setAttachmentTags(key, nil)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	tags, _ := c.known.attachmentTags(key)
	return tags == nil || tags[tag], nil
}

func (m *memory) attachmentTags(key string) (tags map[string]bool, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tags, known = m.tags[key]
	return tags, known
}

// setAttachmentTags remembers which of a repository's tags may be about a
// digest; a nil list means that nobody knows.
func (m *memory) setAttachmentTags(key string, list []string) {
	var tags map[string]bool
	if list != nil {
		tags = make(map[string]bool)
	}
	for _, tag := range list {
		if algorithm, _, found := strings.Cut(tag, "-"); found && strings.HasPrefix(algorithm, "sha") {
			tags[tag] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tags == nil {
		m.tags = make(map[string]map[string]bool)
	}
	m.tags[key] = tags
}

func (m *memory) lacksAPI(r *repo) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.noAPI[r.String()]
}

func (m *memory) setLacksAPI(r *repo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.noAPI == nil {
		m.noAPI = make(map[string]bool)
	}
	m.noAPI[r.String()] = true
}
