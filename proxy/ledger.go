package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"entrepot/blobstore"
	"entrepot/promote/ledger"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// Ledger is what an upstream's ledger says, kept up to date by somebody else:
// a [ledger.Follower] is one.
type Ledger interface {
	// Lookup returns the newest entry about a full name, which may say that it
	// was deleted. It reports false for a name that the ledger never had.
	Lookup(fullName string) (ledger.Entry, bool)
	// Revoked says whether no cache may serve a digest any more, and why.
	Revoked(d digest.Digest) (reason string, revoked bool)
	// State is all of it.
	State() *ledger.State
	// Status says how far it is.
	Status() ledger.FollowerStatus
}

// LedgerConfig has a node take an upstream's names from its ledger. Names that
// the ledger has, or had, are never asked for upstream; others are treated as
// without a ledger.
type LedgerConfig struct {
	Ledger Ledger
	// Names are what the ledger calls the upstream: destinations that hold its
	// repositories, such as "registry.k8s.io". The first that has a name counts.
	Names []string
}

// unheard is how long after its last word a ledger counts as out of reach, so
// that what is served by it is marked as stale.
const unheard = time.Minute

// promoted is what the ledger has about a tag, if the upstream has a ledger
// that knows it.
func (up *upstreamState) promoted(repo, tag string) (ledger.Entry, bool) {
	if up.ledger.Ledger == nil {
		return ledger.Entry{}, false
	}
	for _, name := range up.ledger.Names {
		if e, known := up.ledger.Ledger.Lookup(name + "/" + repo + ":" + tag); known {
			return e, true
		}
	}
	return ledger.Entry{}, false
}

// revoked is the answer for content that the upstream's ledger forbids (RFC
// 7725), nil for all other.
func (up *upstreamState) revoked(d digest.Digest) error {
	if up.ledger.Ledger == nil {
		return nil
	}
	reason, revoked := up.ledger.Ledger.Revoked(d)
	if !revoked {
		return nil
	}
	e := registry.Errorf(errcode.ErrorCodeDenied, "%s was revoked by %s: %s", d, up.name, reason)
	e.Status = http.StatusUnavailableForLegalReasons
	return e
}

// promotedManifest answers a tag that the ledger knows.
func (n *Node) promotedManifest(ctx context.Context, up *upstreamState, repo, tag string, e *ledger.Entry, head bool) (*registry.Manifest, registry.CacheStatus, error) {
	cs := registry.CacheStatus{Outcome: registry.OutcomeHit, Upstream: up.name}
	if !e.Exists() {
		why := ""
		if e.Reason != "" {
			why = ": " + e.Reason
		}
		return nil, cs, registry.Errorf(errcode.ErrorCodeManifestUnknown, "%s/%s:%s was deleted on %s%s",
			up.name, repo, tag, e.Time.Format(time.RFC3339), why)
	}
	if err := up.revoked(e.Digest); err != nil {
		return nil, cs, err
	}
	m, cs, err := n.manifestByDigest(ctx, up, repo, e.Digest, head)
	if err == nil && cs.Outcome == registry.OutcomeHit && time.Since(up.ledger.Ledger.Status().Checked) > unheard {
		cs.Outcome, cs.Detail = registry.OutcomeStale, "ledger-out-of-reach"
	}
	return m, cs, err
}

// LedgerChanged takes in new entries of the ledger of an upstream, whether of
// images or of files, once its Lookup and Revoked answer by them: what lists of
// tags hold is asked for again, and what was revoked is removed from the stores.
func (n *Node) LedgerChanged(ctx context.Context, upstream string, entries []ledger.Entry) {
	up := n.upstreams[upstream]
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Action == ledger.Revoke:
			n.remove(ctx, e.Digest)
		case e.Kind == ledger.Image && up != nil:
			for _, repo := range up.repositories(e) {
				if up.client.Offline() {
					continue
				}
				n.lists.expire(nameKey{up, repo, "tags"}, &up.policy)
				n.absent.forget(nameKey{up, repo, string(e.Digest)})
			}
		}
	}
}

// repositories are those of the upstream that an image's entry is about.
func (up *upstreamState) repositories(e *ledger.Entry) []string {
	image := e.Name
	if at := strings.IndexAny(image, ":@"); at >= 0 {
		image = image[:at]
	}
	var repos []string
	for _, destination := range e.Destinations {
		for _, name := range up.ledger.Names {
			if repo, ok := strings.CutPrefix(destination+"/"+image, name+"/"); ok {
				repos = append(repos, repo)
			}
		}
	}
	return repos
}

// remove takes revoked content out of all stores.
func (n *Node) remove(ctx context.Context, d digest.Digest) {
	n.memory.Remove(d)
	err := n.local.Delete(ctx, d)
	if n.remote != nil {
		err = errors.Join(ignoreAbsent(err), n.remote.remove(ctx, d))
	}
	switch {
	case ignoreAbsent(err) != nil:
		n.log.Error("removing revoked content; it is not served, but it is there", "digest", d, "error", err)
	case err == nil:
		n.log.Info("removed revoked content", "digest", d)
	}
}

// remove deletes a blob from the remote store. That it is not there is no error.
func (r *remoteStore) remove(ctx context.Context, d digest.Digest) error {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	if err := ignoreAbsent(r.store.Delete(ctx, d)); err != nil {
		return fmt.Errorf("removing %s from the shared store: %w", d, err)
	}
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, blobstore.ErrNotExist) {
		return nil
	}
	return err
}

// removeRevoked removes, when the node starts, what was revoked while it did
// not run.
func (n *Node) removeRevoked(ctx context.Context) {
	for up := range n.all() {
		if up.ledger.Ledger == nil {
			continue
		}
		for e := range up.ledger.Ledger.State().Revocations() {
			if ctx.Err() != nil {
				return
			}
			n.remove(ctx, e.Digest)
		}
	}
}

// forbidden says whether any upstream's ledger forbids content.
func (n *Node) forbidden(d digest.Digest) bool {
	for up := range n.all() {
		if up.revoked(d) != nil {
			return true
		}
	}
	return false
}
