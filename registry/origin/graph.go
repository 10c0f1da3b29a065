package origin

import (
	"context"
	"errors"
	"fmt"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

// node is a manifest of a repository, among the others.
type node struct {
	record manifestRecord
	// content is what it names; nothing where it is of a kind that cannot be
	// read.
	content *content
}

// names adds all that a manifest names to a set.
func (n *node) names(set map[digest.Digest]struct{}) {
	for _, list := range [][]digest.Digest{n.content.blobs, n.content.elsewhere, n.content.manifests} {
		for _, d := range list {
			set[d] = struct{}{}
		}
	}
}

// readGraph reads the manifests of a repository that are not in read yet, and
// takes out of read those that are gone.
func (g *collection) readGraph(ctx context.Context, repository string, read map[digest.Digest]*node) error {
	list, err := g.names.list(ctx, manifestRecords, repository)
	if err != nil {
		return err
	}
	there := make(map[digest.Digest]struct{}, len(list))
	for _, name := range list {
		d := digest.Digest(name)
		there[d] = struct{}{}
		if read[d] != nil {
			continue
		}
		n, err := g.readNode(ctx, repository, d)
		if err != nil {
			return err
		}
		if n == nil {
			continue // deleted since it was listed
		}
		read[d] = n
	}
	for d := range read {
		if _, ok := there[d]; !ok {
			delete(read, d)
		}
	}
	return nil
}

// readNode reads a manifest; it is nil when the repository has none such.
func (g *collection) readNode(ctx context.Context, repository string, d digest.Digest) (*node, error) {
	record, err := g.names.manifestRecord(ctx, repository, d)
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	body, err := g.storedManifest(ctx, d)
	if err != nil {
		return nil, err
	}
	// It was parsed when it was pushed; rules that are stricter by now do not
	// make garbage of what it names.
	c, err := parseManifest(record.MediaType, body)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d, err)
	}
	return &node{record, c}, nil
}

// removeUntagged takes manifests out of a repository whose lock is held, and
// out of read: those that no tag leads to and that are old enough.
func (g *collection) removeUntagged(ctx context.Context, repository string, read map[digest.Digest]*node) error {
	tags, err := g.readTags(ctx, repository)
	if err != nil {
		return err
	}
	referrers := map[digest.Digest][]digest.Digest{}
	var next []digest.Digest // to be kept, and what they lead to
	for _, d := range tags {
		next = append(next, d)
	}
	for d, n := range read {
		if n.record.Subject != "" {
			referrers[n.record.Subject] = append(referrers[n.record.Subject], d)
		}
		if !n.record.Pushed.Before(g.oldest) {
			next = append(next, d)
		}
	}
	kept := map[digest.Digest]struct{}{}
	for len(next) > 0 {
		d := next[len(next)-1]
		next = next[:len(next)-1]
		if _, ok := kept[d]; ok {
			continue
		}
		kept[d] = struct{}{}
		if n := read[d]; n != nil {
			next = append(next, n.content.manifests...)
		}
		next = append(next, referrers[d]...)
	}
	for d, n := range read {
		if _, ok := kept[d]; ok {
			continue
		}
		g.done.Manifests++
		delete(read, d)
		if g.options.DryRun {
			continue
		}
		if err := g.removeManifest(ctx, repository, d, &n.record); err != nil {
			return err
		}
	}
	return nil
}
