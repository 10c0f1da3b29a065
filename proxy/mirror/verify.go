package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"entrepot/blobstore"
	"entrepot/promote/ledger"
	"entrepot/proxy/tree"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// VerifyConfig says how [Mirror.Verify] works.
type VerifyConfig struct {
	// Repair has it fetch again what is missing or wrong.
	Repair bool
	// Rate bounds what is read, in bytes a second; 0 is no bound.
	Rate int64
	// Report is told of each thing that is wrong, and now and then, with nil, how far
	// it is. Nil tells nobody.
	Report func(Verified, *Finding)
}

// Verified is what was verified.
type Verified struct {
	Names    int   `json:"names"`    // selected
	Right    int   `json:"right"`    // of them, those of which every byte is right
	Blobs    int   `json:"blobs"`    // read, and right
	Bytes    int64 `json:"bytes"`    // of them
	Findings int   `json:"findings"` // what is missing or wrong
	Repaired int   `json:"repaired"` // images and files that were fetched again
}

// Finding is something that is not as the ledger says.
type Finding struct {
	// Name is one of those that need it, as clients write it.
	Name    string        `json:"name"`
	Digest  digest.Digest `json:"digest"`
	Problem Problem       `json:"problem"`
	Detail  string        `json:"detail"`
}

// Problem is what is wrong with content.
type Problem string

// The problems.
const (
	Missing    Problem = "missing"    // it is not in the store
	Corrupt    Problem = "corrupt"    // it has other bytes
	Unreadable Problem = "unreadable" // the disk does not give it
	Unknown    Problem = "unknown"    // what is attached to an image was not looked for yet
)

// verifying is one run.
type verifying struct {
	*Mirror

	opts    VerifyConfig
	reader  verifier
	problem map[digest.Digest]Problem // of what was read; "" is right
	done    Verified
	broken  []Name // with something wrong
}

// Verify reads everything that is selected, each blob once, and compares it with what
// the ledger says: a name's digest is the ledger's, and all below it follows from that.
// Nothing is fetched or changed, unless Repair is set. What is wrong is no error.
// Errors: the context's, that of the ledger, and of repairing.
func (m *Mirror) Verify(ctx context.Context, cfg VerifyConfig) (Verified, error) {
	names, _, err := m.selected(ctx)
	if err != nil {
		return Verified{}, err
	}
	reader, err := m.contents.verifier(cfg.Rate)
	if err != nil {
		return Verified{}, err
	}
	defer reader.Close()
	v := &verifying{Mirror: m, opts: cfg, reader: reader, problem: map[digest.Digest]Problem{}}
	v.done.Names = len(names)
	known := map[root]bool{} // whether it is right
	for i := range names {
		r := rootOf(&names[i])
		right, seen := known[r]
		if !seen {
			if right, err = v.root(ctx, &r, names[i].String()); err != nil {
				return v.done, err
			}
			known[r] = right
			if !right {
				v.broken = append(v.broken, names[i])
			}
			v.tell(nil)
		}
		if right {
			v.done.Right++
		}
	}
	if !cfg.Repair {
		return v.done, nil
	}
	return v.done, v.repair(ctx)
}

func (v *verifying) tell(f *Finding) {
	if v.opts.Report != nil {
		v.opts.Report(v.done, f)
	}
}

// root verifies content and all that it consists of.
func (v *verifying) root(ctx context.Context, r *root, name string) (right bool, err error) {
	if r.kind == ledger.File {
		return v.blob(ctx, r.digest, name)
	}
	var held image
	roots := []digest.Digest{r.digest}
	right = true
	if err := v.readRecord(ctx, r.key(), &held); err != nil || !held.Complete {
		right = false
		v.found(&Finding{Name: name, Digest: r.digest, Problem: Unknown, Detail: "it was never held completely"})
	}
	parts := &parts{verifying: v, name: name, right: right}
	walker := tree.Walker{Visitor: parts}
	for _, d := range append(roots, held.Attached...) {
		if _, err := walker.Walk(ctx, d.String()); err != nil {
			return false, err
		}
	}
	return parts.right, nil
}

// parts are those of an image that is verified. What is wrong does not end the walk.
type parts struct {
	*verifying

	name  string
	right bool // all of them so far
}

// Manifest implements [tree.Visitor].
func (p *parts) Manifest(ctx context.Context, reference string) (digest.Digest, []byte, error) {
	d := digest.Digest(reference)
	right, err := p.blob(ctx, d, p.name)
	if p.right = p.right && right; err != nil || !right {
		return d, nil, err
	}
	body, err := p.manifest(ctx, d)
	return d, body, err
}

// Blob implements [tree.Visitor].
func (p *parts) Blob(ctx context.Context, d ocispec.Descriptor) error {
	right, err := p.blob(ctx, d.Digest, p.name)
	p.right = p.right && right
	return err
}

// manifest reads what was verified; a large blob of a build cache is none.
func (v *verifying) manifest(ctx context.Context, d digest.Digest) ([]byte, error) {
	r, info, err := v.contents.Open(ctx, d, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info.Size > registry.MaxManifestSize {
		return nil, nil
	}
	return io.ReadAll(r)
}

// blob verifies one blob, once.
func (v *verifying) blob(ctx context.Context, d digest.Digest, name string) (right bool, err error) {
	problem, seen := v.problem[d]
	if seen {
		return problem == "", nil
	}
	size, err := v.reader.Verify(ctx, d)
	switch {
	case err == nil:
		v.done.Blobs++
		v.done.Bytes += size
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, blobstore.ErrNotExist):
		problem = Missing
	case errors.Is(err, blobstore.ErrDigestMismatch):
		problem = Corrupt
	default:
		problem = Unreadable
	}
	v.problem[d] = problem
	if problem != "" {
		v.found(&Finding{Name: name, Digest: d, Problem: problem, Detail: err.Error()})
	}
	return problem == "", nil
}

func (v *verifying) found(f *Finding) {
	v.done.Findings++
	v.tell(f)
}

// repair puts aside what is wrong, and fetches again what lacks something.
func (v *verifying) repair(ctx context.Context) error {
	if err := v.contents.look(ctx, true); err != nil { // what is missing is not known to be
		return err
	}
	var failed []error
	for d, problem := range v.problem {
		if problem == Corrupt || problem == Unreadable {
			failed = append(failed, v.contents.putAside(ctx, d, fmt.Errorf("verifying the mirror found it to be %s", problem)))
		}
	}
	tags := tagLists{lists: map[string][]string{}}
	for i := range v.broken {
		n := &v.broken[i]
		if err := v.fetchRoot(ctx, n, &tags, func(int64) {}); err != nil {
			failed = append(failed, fmt.Errorf("fetching %s again: %w", n, err))
			continue
		}
		v.done.Repaired++
		v.tell(nil)
	}
	return errors.Join(failed...)
}
