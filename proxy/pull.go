package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync/atomic"
	"time"

	"entrepot/blobstore"
	"entrepot/blobstore/pause"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// What is pulled is brought into the local store for whoever may ask for it, by
// somebody who does not: a mirror. It is what requests would have brought.

// PullManifest brings a manifest, by its tag or digest, into the store.
func (n *Node) PullManifest(ctx context.Context, upstream, repo, ref string) (*registry.Manifest, error) {
	req := registry.Request{Kind: registry.KindManifest, Namespace: upstream, Repository: repo, N: -1, Tag: ref}
	up := n.upstreams[upstream]
	switch {
	case isDigest(ref):
		req.Tag, req.Digest = "", digest.Digest(ref)
	case up != nil: // as upstream has it now
		n.tags.expire(nameKey{up, repo, ref}, &up.policy)
	}
	m, _, err := n.Manifest(ctx, &req)
	if err != nil {
		return nil, err
	}
	return m, n.settleSmall(ctx, m.Digest, m.Body)
}

// settleSmall puts into the local store what may be in memory alone, and is known to
// be right.
func (n *Node) settleSmall(ctx context.Context, d digest.Digest, b []byte) error {
	if _, err := n.local.Stat(ctx, d); err == nil {
		return nil
	}
	return n.local.Put(ctx, d, int64(len(b)), bytes.NewReader(b))
}

// PullBlob brings a blob of an image into the store.
func (n *Node) PullBlob(ctx context.Context, upstream, repo string, d digest.Digest) error {
	err := n.pull(ctx, d, func() (registry.Content, error) {
		req := registry.Request{Kind: registry.KindBlob, Namespace: upstream, Repository: repo, Digest: d, N: -1}
		blob, _, err := n.Blob(ctx, &req)
		return blob.Content, err
	})
	if up := n.upstreams[upstream]; up != nil && err == nil {
		// Where it came for another repository, this one is to be seen to hold it, too.
		err = n.holders.vouch(ctx, nameKey{up, repo, string(d)}, -1)
	}
	return err
}

// PullFile brings a file, by its decoded path, into the store. d is what its name has
// to lead to.
func (n *Node) PullFile(ctx context.Context, upstream, path string, d digest.Digest) error {
	open := func() (registry.Content, error) {
		req := registry.FileRequest{Path: upstream + "/" + (&url.URL{Path: path}).EscapedPath()}
		file, _, err := n.File(ctx, &req)
		return file.Content, err
	}
	if err := n.pull(ctx, d, open); err != nil {
		return err
	}
	if up := n.fileUpstreams[upstream]; up != nil {
		if v, known := n.files.peek(fileKey(up, path)); known && v.digest == d {
			return nil
		}
	}
	// The content was here under another name: this one is to be described, too.
	content, err := open()
	if err == nil && content != nil { // nil where clients are sent to the bucket
		err = content.Close()
	}
	return err
}

// errNotKept says that content came and is not in the store.
var errNotKept = errors.New("it was served and not kept: the store has no room, or the name leads to something else")

// pull reads content to its end, unless it is in the store, or the bucket behind it.
func (n *Node) pull(ctx context.Context, d digest.Digest, open func() (registry.Content, error)) error {
	if _, err := n.local.Stat(ctx, d); err == nil {
		return nil
	}
	if b, ok := n.memory.Get(d); ok {
		return n.settleSmall(ctx, d, b)
	}
	if n.remote.up() {
		if _, err := n.remote.store.Stat(ctx, d); err == nil {
			return nil
		}
	}
	content, err := open()
	if err != nil {
		return err
	}
	if content == nil {
		return fmt.Errorf("pulling %s: there is no content", d)
	}
	_, err = content.WriteRange(ctx, io.Discard, 0, -1)
	_ = content.Close()
	if err != nil {
		return err
	}
	return n.settled(ctx, d)
}

// settled waits for what was read to its end to be in the store: a fill commits
// after its readers have everything.
func (n *Node) settled(ctx context.Context, d digest.Digest) error {
	if f := n.fills.of(d); f != nil {
		select {
		case <-f.finished:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if _, err := n.local.Stat(ctx, d); err != nil {
		return fmt.Errorf("pulling %s: %w", d, errNotKept)
	}
	return nil
}

// PullTags lists a repository's tags as upstream has them now.
func (n *Node) PullTags(ctx context.Context, upstream, repo string) ([]string, error) {
	if up := n.upstreams[upstream]; up != nil {
		n.lists.expire(nameKey{up, repo, "tags"}, &up.policy)
	}
	tags, _, _, err := n.Tags(ctx, &registry.Request{Kind: registry.KindTags, Namespace: upstream, Repository: repo, N: -1})
	return tags, err
}

// PullReferrers lists what refers to a manifest as upstream has it now.
func (n *Node) PullReferrers(ctx context.Context, upstream, repo string, d digest.Digest) ([]ocispec.Descriptor, error) {
	if up := n.upstreams[upstream]; up != nil {
		n.referrers.expire(nameKey{up, repo, string(d)}, &up.policy)
	}
	found, _, err := n.Referrers(ctx, &registry.Request{Kind: registry.KindReferrers, Namespace: upstream, Repository: repo, Digest: d, N: -1})
	return found, err
}

// Keep has the bucket hold content that was pulled, and returns when it does. Without a
// bucket there is nothing to do.
func (n *Node) Keep(ctx context.Context, d digest.Digest) error {
	if n.remote == nil {
		return nil
	}
	_, err := n.remote.store.Stat(ctx, d)
	if errors.Is(err, blobstore.ErrNotExist) {
		err = n.remote.uploadBlob(ctx, d)
	}
	if err != nil {
		return fmt.Errorf("keeping %s in the bucket: %w", d, err)
	}
	n.remote.spare(string(d), false)
	return ignoreAbsent(n.local.DeleteRecord(ctx, uploadRecords+"/"+string(d)))
}

// Drop removes content from the local store. Whoever asks for it has it fetched
// again. That it is not there is no error.
func (n *Node) Drop(ctx context.Context, d digest.Digest) error {
	n.memory.Remove(d)
	return ignoreAbsent(n.local.Delete(ctx, d))
}

// Quarantine puts aside what was found to be wrong in the local store.
func (n *Node) Quarantine(d digest.Digest, reason error) {
	n.memory.Remove(d)
	n.local.PutAside(d, reason)
}

// paceKey is of the context value that WithPace sets.
type paceKey struct{}

// WithPace is a context in which what is pulled comes no faster than a limiter lets
// it, in bytes a second. Clients that ask for the same meanwhile are not made to
// wait: from then on it comes as fast as it can.
func WithPace(ctx context.Context, pace *rate.Limiter) context.Context {
	return context.WithValue(ctx, paceKey{}, pace)
}

// paced slows sources down where the context says so.
func paced(ctx context.Context, sources []source) []source {
	pace, _ := ctx.Value(paceKey{}).(*rate.Limiter)
	if pace == nil {
		return sources
	}
	slow := make([]source, len(sources))
	hurried := new(atomic.Bool)
	for i, s := range sources {
		slow[i] = &pacedSource{source: s, pace: pace, hurried: hurried}
	}
	return slow
}

// pacedSource is a source of which a fill takes no more than a limiter lets it, until
// somebody is in a hurry.
type pacedSource struct {
	source

	pace    *rate.Limiter
	hurried *atomic.Bool
}

// hurry has a fill's sources go as fast as they can, once somebody joins who has
// sources without a pace.
func hurry(have, joining []source) {
	for _, s := range joining {
		if _, slow := s.(*pacedSource); slow {
			return
		}
	}
	for _, s := range have {
		if p, ok := s.(*pacedSource); ok {
			p.hurried.Store(true)
		}
	}
}

func (s *pacedSource) same(other source) bool {
	if o, ok := other.(*pacedSource); ok {
		other = o.source
	}
	return s.source.same(other)
}

func (s *pacedSource) open(ctx context.Context, offset, length, size int64) (io.ReadCloser, int64, error) {
	body, total, err := s.source.open(ctx, offset, length, size)
	if err != nil {
		return nil, 0, err
	}
	return &pacedBody{ReadCloser: body, ctx: ctx, source: s}, total, nil
}

type pacedBody struct {
	io.ReadCloser

	ctx    context.Context //nolint:containedctx // of the fill that reads
	source *pacedSource
}

// Read takes what is in the bucket and waits for the bytes that it did not have:
// before the next read, so that those who hurry are not held up by this one.
func (b *pacedBody) Read(p []byte) (int, error) {
	if !b.source.hurried.Load() {
		p = p[:min(len(p), b.source.pace.Burst())]
	}
	n, err := b.ReadCloser.Read(p)
	if n > 0 && !b.source.hurried.Load() {
		if wait := b.source.pace.ReserveN(time.Now(), n).Delay(); wait > 0 && pause.For(b.ctx, wait) != nil {
			return n, b.ctx.Err()
		}
	}
	return n, err
}
