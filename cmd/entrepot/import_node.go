package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"entrepot/blobstore"
	"entrepot/promote/bundle"
	"entrepot/promote/ledger"
	"entrepot/proxy/mirror"
	"entrepot/proxy/tree"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// placed is what a bundle brings to a node, checked against the node's configuration.
type placed struct {
	names []mirror.Name
	// staged is the bundle's ledger behind that of the node, whose ledgerID is id, until
	// it is committed; nil when the bundle has none.
	staged  *ledger.Staged
	id      string
	entries uint64
}

// known says whether a node has all entries of the bundle's ledger.
func (p *placed) known(n *node) error {
	if p.id == "" {
		return nil
	}
	if got := n.ledgers[p.id].State().Len(); got < p.entries {
		return fmt.Errorf("the ledger has %d entries where the node reads it, and %d in the bundle", got, p.entries)
	}
	return nil
}

// commit puts the ledger where the node reads it.
func (p *placed) commit(ctx context.Context) error {
	if p.staged == nil {
		return nil
	}
	err := p.staged.Commit(ctx)
	if err == nil {
		p.staged = nil
	}
	return err
}

// load takes the bundle into the store of a node. First comes the content, which nothing
// leads to yet; then the node pulls images from the bundle as from any upstream, which
// records what they consist of; then the ledger, which makes the names visible; and last
// what the names of files, without which it tells nobody of one. So an import that is
// broken off changes no name that was there, and the next goes on with what is there.
func (i *importing) load(ctx context.Context, cmd *cobra.Command, r *bundle.Reader, from string) error {
	cfg, err := loadConfig(i.config)
	if err != nil {
		return err
	}
	if cfg.Node == nil || cfg.Node.Store.S3 != nil {
		return fmt.Errorf("%s has no node with a store in a directory", i.config)
	}
	p, err := i.place(ctx, r, cfg.Node)
	if err != nil {
		return err
	}
	redirectUpstreams(cfg.Node, r.Contents.Upstreams, from)
	err = i.withNode(ctx, cfg, cmd.ErrOrStderr(), p, func(n *node) error {
		if err := i.bring(ctx, cmd.ErrOrStderr(), r, n.dir, p.names); err != nil {
			return err
		}
		return i.record(ctx, n, p.names, ledger.Image)
	})
	if err != nil {
		return err
	}
	if err := p.commit(ctx); err != nil {
		return fmt.Errorf("all content is in; putting the ledger in its place: %w", err)
	}
	i.stepped()
	return i.withNode(ctx, cfg, cmd.ErrOrStderr(), p, func(n *node) error { return i.record(ctx, n, p.names, ledger.File) })
}

// record has a node learn what names of a kind lead to.
func (i *importing) record(ctx context.Context, n *node, names []mirror.Name, kind ledger.Kind) error {
	names = slices.DeleteFunc(slices.Clone(names), func(n mirror.Name) bool { return n.Kind != kind })
	into := mirror.New(ctx, mirror.Config{Node: n.engine, Store: n.dir})
	err := into.Fetch(ctx, names, func(*mirror.Name, error) { i.stepped() })
	return errors.Join(err, ctx.Err()) // which may have come behind the last
}

func (i *importing) stepped() {
	if i.step != nil {
		i.step()
	}
}

// withNode has the node of a configuration, which knows what its ledgers say now, for as
// long as do takes.
func (i *importing) withNode(ctx context.Context, cfg *Config, stderr io.Writer, p *placed, do func(n *node) error) error {
	cfg.Log.Access, cfg.Log.Level = false, "error"
	logs := newLoggers(cfg.Log, stderr)
	defer logs.close()
	n := new(node)
	if p.staged != nil {
		n.staged = map[string]ledger.Reader{p.id: p.staged}
	}
	_, err := n.open(cfg.Node, logs, prometheus.NewRegistry(), readVersion()) //nolint:contextcheck // it lives until it is closed
	if errors.Is(err, blobstore.ErrInUse) {
		return fmt.Errorf("the node runs; stop it for the import: %w", err)
	}
	if err != nil {
		return err
	}
	for _, f := range n.follow {
		if failed := f.Poll(ctx); failed != nil {
			err = errors.Join(err, fmt.Errorf("reading the ledger that the bundle brought: %w", failed))
		}
	}
	if err == nil {
		err = p.known(n)
	}
	if err == nil {
		err = do(n)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, n.close(closing))
}

// place checks the bundle against the node's configuration, and its ledger against what
// is where the node reads it.
func (i *importing) place(ctx context.Context, r *bundle.Reader, cfg *NodeConfig) (*placed, error) {
	l, err := i.ledger(r, cfg)
	if err != nil {
		return nil, err
	}
	called := func(kind ledger.Kind, upstream string) []string {
		found, _ := ledgerOf(cfg, kind, upstream)
		if found == nil {
			return nil
		}
		return ledgerNames(found, upstream, nil)
	}
	state, p := new(ledger.State), new(placed)
	if l != nil && r.HasLedger() {
		if !strings.HasPrefix(l.URL, "file://") {
			return nil, fmt.Errorf("the ledger is at %s: an import puts it into a folder; write ledger.url as file://DIR", redacted(l.URL))
		}
		to, err := ledger.OpenStorage(l.URL)
		if err != nil {
			return nil, err
		}
		p.staged, p.id = ledger.NewStaged(to), ledgerID(l)
		if state, err = i.state(ctx, r, string(l.Key), p.staged); err != nil {
			return nil, err
		}
	}
	if err := r.Contents.Check(state, called, i.unproven); err != nil {
		return nil, err
	}
	p.entries, p.names = state.Len(), namesOf(r.Contents)
	return p, nil
}

// ledger is the one ledger that the upstreams of a bundle have in the node's
// configuration; nil where none is needed.
func (i *importing) ledger(r *bundle.Reader, cfg *NodeConfig) (l *LedgerConfig, err error) {
	for _, up := range r.Contents.Upstreams {
		found, has := ledgerOf(cfg, up.Kind, up.Name)
		switch {
		case !has && r.Contents.Has(up):
			return nil, fmt.Errorf("the bundle has %ss of %s, which is no upstream of the node: add it, with offline: true", up.Kind, up.Name)
		case found == nil:
			continue
		case l != nil && ledgerID(l) != ledgerID(found):
			return nil, errors.New("the upstreams of the bundle have different ledgers in the configuration, and it has one")
		}
		l = found
	}
	if l == nil && !i.unproven {
		return nil, errors.New("no upstream of the bundle has a ledger in the configuration, so that nothing proves its names; --unproven takes them as they are")
	}
	return l, nil
}

// namesOf are the names of a bundle.
func namesOf(c *bundle.Contents) []mirror.Name {
	var names []mirror.Name
	for n := range c.Images {
		image := &c.Images[n]
		names = append(names, mirror.Name{Upstream: image.Upstream, Kind: ledger.Image, Path: image.Ref(), Digest: image.Root.Digest, Size: image.Root.Size})
	}
	for n := range c.Files {
		f := &c.Files[n]
		names = append(names, mirror.Name{Upstream: f.Upstream, Kind: ledger.File, Path: f.Path, Digest: f.Digest, Size: f.Size})
	}
	return names
}

// bringing is content on its way from a bundle into a store.
type bringing struct {
	from *bundle.Reader
	to   *blobstore.Dir
	done map[digest.Digest]bool

	manifests []digest.Digest // of the image that is brought, each before what it names
}

// bring puts the content that names lead to into a store, verified, where it stays. What
// fails does not stop the rest.
func (i *importing) bring(ctx context.Context, stderr io.Writer, r *bundle.Reader, to *blobstore.Dir, names []mirror.Name) error {
	b := &bringing{from: r, to: to, done: map[digest.Digest]bool{}}
	show := newLines(stderr, len(names))
	defer show.end()
	attached := map[digest.Digest][]bundle.Attached{}
	for at := range r.Contents.Images {
		image := &r.Contents.Images[at]
		attached[image.Root.Digest] = append(attached[image.Root.Digest], image.Attached...)
	}
	var failed []error
	for at := range names {
		name := &names[at]
		bring := b.image
		if name.Kind == ledger.File {
			bring = b.blob
		}
		err := bring(ctx, name.Digest)
		for _, a := range attached[name.Digest] {
			err = errors.Join(err, b.image(ctx, a.Descriptor.Digest))
		}
		i.stepped()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
			continue
		}
		show.done(name.String())
	}
	return errors.Join(failed...)
}

// image brings a manifest, and what that names before it.
func (b *bringing) image(ctx context.Context, d digest.Digest) error {
	b.manifests = nil
	walker := tree.Walker{Visitor: b}
	if _, err := walker.Walk(ctx, d.String()); err != nil {
		return err
	}
	for _, d := range slices.Backward(b.manifests) {
		if err := b.blob(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// Manifest implements [tree.Visitor]. What is not in the bundle is missed by who asks for
// it, and what is too large is none.
func (b *bringing) Manifest(_ context.Context, reference string) (digest.Digest, []byte, error) {
	d := digest.Digest(reference)
	section, ok := b.from.Content(d)
	if !ok || b.done[d] {
		return d, nil, nil
	}
	b.manifests = append(b.manifests, d)
	if section.Size() > registry.MaxManifestSize {
		return d, nil, nil
	}
	body, err := io.ReadAll(section)
	if err == nil && d.Algorithm().FromBytes(body) != d {
		err = wrongBytes(d)
	}
	return d, body, err
}

// Blob implements [tree.Visitor].
func (b *bringing) Blob(ctx context.Context, blob ocispec.Descriptor) error {
	return b.blob(ctx, blob.Digest)
}

func (b *bringing) blob(ctx context.Context, d digest.Digest) error {
	section, ok := b.from.Content(d)
	if !ok || b.done[d] {
		return nil
	}
	if err := b.put(ctx, d, section); err != nil {
		return err
	}
	b.done[d] = true
	return nil
}

// put stores content, and has it stay.
func (b *bringing) put(ctx context.Context, d digest.Digest, section *io.SectionReader) error {
	if _, err := section.Seek(0, io.SeekStart); err != nil {
		return err
	}
	err := b.to.Put(ctx, d, section.Size(), section)
	if errors.Is(err, blobstore.ErrDigestMismatch) {
		return wrongBytes(d)
	}
	if err != nil {
		return err
	}
	return b.to.Hold(d)
}

func wrongBytes(d digest.Digest) error { return fmt.Errorf("the bundle has wrong bytes for %s", d) }

// ledgerOf is the ledger of an upstream in a node's configuration, if it has the upstream;
// nil without one.
func ledgerOf(cfg *NodeConfig, kind ledger.Kind, upstream string) (l *LedgerConfig, has bool) {
	if kind == ledger.Image {
		u, has := cfg.Upstreams[upstream]
		return u.Ledger, has
	}
	f, has := cfg.Files[upstream]
	return f.Ledger, has
}

// redirectUpstreams has a node pull from a bundle that is served at a URL.
func redirectUpstreams(cfg *NodeConfig, ups []bundle.Upstream, from string) {
	for _, up := range ups {
		url := []URL{URL(from + "/" + up.Name)}
		if u, ok := cfg.Upstreams[up.Name]; ok && up.Kind == ledger.Image {
			if u.Ledger != nil {
				u.Ledger.Names = ledgerNames(u.Ledger, up.Name, nil) // which the URL is not to change
			}
			u.Offline, u.URLs = false, url
			cfg.Upstreams[up.Name] = u
		}
		if f, ok := cfg.Files[up.Name]; ok && up.Kind == ledger.File {
			if f.Ledger != nil {
				f.Ledger.Names = ledgerNames(f.Ledger, up.Name, nil)
			}
			f.Offline, f.URLs = false, url
			cfg.Files[up.Name] = f
		}
	}
}
