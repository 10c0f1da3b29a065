package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Unattached counts what one repository has about the manifests of an image and
// another has not: referrers, and what cosign keeps at tags. It is what
// [Client.Copy] would attach to an image that is there already. What is about
// an attachment is looked at only when that is copied.
// Errors: ErrNotFound when to has not got the image.
func (c *Client) Unattached(ctx context.Context, from, to Repository, d digest.Digest) (int, error) {
	image, err := c.Inspect(ctx, to, d)
	if err != nil {
		return 0, err
	}
	source, destination := c.reader(from), c.reader(to)
	var count atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(breadth)
	for _, m := range image.Manifests {
		group.Go(func() error {
			referrers, err := c.newReferrers(groupCtx, source, destination, m.Digest)
			if err != nil {
				return err
			}
			tags, err := c.newCosignTags(groupCtx, source, destination, m.Digest)
			count.Add(int64(referrers + tags))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, fmt.Errorf("comparing what is about %s in %s and %s: %w", d, from, to, err)
	}
	return int(count.Load()), nil
}

func (c *Client) newReferrers(ctx context.Context, from, to *repo, subject digest.Digest) (int, error) {
	theirs, err := c.sources.listReferrers(ctx, c, from, subject)
	if errors.Is(err, ErrNotFound) || err == nil && len(theirs) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	ours, _, err := c.listReferrers(ctx, to, subject)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	count := 0
	for _, t := range theirs {
		if slices.ContainsFunc(ours, func(o ocispec.Descriptor) bool { return o.Digest == t.Digest }) {
			continue
		}
		// Copy takes a referrer by what its manifest says, not by the list.
		m, err := c.sources.manifest(ctx, from, t.Digest)
		switch {
		case errors.Is(err, ErrNotFound): // the list is stale
		case err != nil:
			return 0, err
		case m.subject != nil && m.subject.Digest == subject:
			count++
		}
	}
	return count, nil
}

func (c *Client) newCosignTags(ctx context.Context, from, to *repo, subject digest.Digest) (int, error) {
	count := 0
	for _, suffix := range cosignSuffixes() {
		tag := fallbackTag(subject) + suffix
		may, err := c.mayHaveTag(ctx, from, tag)
		if errors.Is(err, ErrNotFound) || err == nil && !may {
			continue
		}
		if err != nil {
			return 0, err
		}
		theirs, err := from.manifest(ctx, tag)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		ours, err := to.manifest(ctx, tag)
		switch {
		case errors.Is(err, ErrNotFound):
			count++
		case err != nil:
			return 0, err
		case ours.Digest != theirs.Digest && theirs.includes(ours):
			count++
		}
	}
	return count, nil
}

// cosignSuffixes are of the tags of signatures, attestations and bills of
// materials: "sha256-<hex>.sig".
func cosignSuffixes() []string { return []string{".sig", ".att", ".sbom"} }
