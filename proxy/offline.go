package proxy

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"entrepot/promote/ledger"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// offlineTags lists the tags of a repository of an upstream to which there is no network:
// those of the ledger whose images were brought here, and those that were brought without.
//
//nolint:contextcheck // what is loaded of records is for every later request
func (n *Node) offlineTags(ctx context.Context, up *upstreamState, repo string, req *registry.Request) ([]string, bool, registry.CacheStatus, error) {
	failed := registry.CacheStatus{Outcome: registry.OutcomeError, Upstream: up.name}
	var tags []string
	if up.ledger.Ledger != nil {
		for e := range up.ledger.Ledger.State().Names() {
			colon := strings.LastIndexByte(e.Name, ':')
			if e.Kind != ledger.Image || colon < 0 || strings.Contains(e.Name, "@") || !slices.Contains(up.repositories(&e), repo) {
				continue
			}
			tag := e.Name[colon+1:]
			now, _ := up.promoted(repo, tag)
			if _, brought := n.known(nameKey{up, repo, string(e.Digest)}); brought && now.Sequence == e.Sequence && up.revoked(e.Digest) == nil {
				tags = append(tags, tag)
			}
		}
	}
	prefix := nameKey{up, repo, ""}.recordKey(tagRecords)
	for key, err := range n.local.RecordKeys(ctx, strings.TrimSuffix(prefix, "/")) {
		if err != nil {
			return nil, false, failed, err
		}
		tag := strings.TrimPrefix(key, prefix)
		if _, promoted := up.promoted(repo, tag); !promoted && !strings.Contains(tag, "/") {
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 {
		return nil, false, failed, registry.Errorf(errcode.ErrorCodeNameUnknown, "nothing of %s was brought here, and %s is offline", repo, up.name)
	}
	slices.Sort(tags)
	tags, more := page(slices.Compact(tags), req.Last, req.N)
	return tags, more, registry.CacheStatus{Outcome: registry.OutcomeHit, Upstream: up.name}, nil
}

// fileKey is the key of a file without a query, by its decoded path.
func fileKey(up *upstreamState, path string) nameKey {
	return nameKey{up: up, repo: (&url.URL{Path: path}).EscapedPath()}
}

// HasFile says whether a file, by its decoded path, was brought to the node with the
// content that its ledger has for it.
func (n *Node) HasFile(upstream, path string) bool {
	up := n.fileUpstreams[upstream]
	if up == nil {
		return false
	}
	e, known := up.promotedFile(path)
	v, brought := n.files.peek(fileKey(up, path))
	return known && n.hasVersion(context.Background(), v, brought, e.Digest)
}

// hasVersion says whether a name was brought, and the content that its ledger has for it
// is here: the record may be of the version before, or of the one behind, while an import
// is between them.
func (n *Node) hasVersion(ctx context.Context, v *fileVersion, brought bool, d digest.Digest) bool {
	if !brought || v.digest == "" {
		return false
	}
	_, err := n.local.Stat(ctx, d)
	return err == nil
}
