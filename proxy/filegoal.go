package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

// fileGoal is the version of a file that upstream has when it is asked, whatever
// digest it turns out to have.
type fileGoal struct {
	source *fileSource
	// distrusts has content fetched though the store has what upstream says that
	// it is: where another upstream is private, it could be of that one.
	distrusts bool

	mu     sync.Mutex
	claims []claim // by which it is verified
}

func (g *fileGoal) String() string { return g.source.up.name + "/" + g.source.path }

// spool asks upstream which version it has, and what is claimed of it. Bytes
// that an earlier fill left of the same version are gone on with.
func (g *fileGoal) spool(ctx context.Context, dir *blobstore.Dir, in *feed) (*blobstore.Partial, error) {
	if err := in.open(ctx); err != nil {
		return nil, err
	}
	if err := g.gatherClaims(ctx, dir); err != nil {
		return nil, err
	}
	p, err := dir.PartialOf(ctx, g.id(in.size))
	if errors.Is(err, blobstore.ErrPartialOpen) { // by a fill that is ending
		p, err = dir.PartialOf(ctx, digest.FromString(rand.Text()))
	}
	if err != nil {
		return nil, &spoolError{err}
	}
	switch there := p.Size(); {
	case there == 0:
	case in.size >= 0 && there > in.size:
		if err := p.Reset(); err != nil {
			return nil, errors.Join(&spoolError{err}, p.Discard())
		}
	default:
		in.close()
		in.offset = there
	}
	return p, nil
}

// gatherClaims takes in what the headers and the files beside the file claim.
func (g *fileGoal) gatherClaims(ctx context.Context, dir *blobstore.Dir) error {
	g.source.mu.Lock()
	claims := g.source.claims
	g.source.mu.Unlock()
	for _, c := range claims {
		if d := c.digest(); d != "" && !g.distrusts {
			if _, err := dir.Stat(ctx, d); err == nil {
				return &toldError{d}
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	beside, ok, err := sidecarClaim(ctx, g.source.up, g.source.path)
	if err != nil {
		return err
	}
	if ok {
		claims = append(claims, beside)
	}
	g.mu.Lock()
	g.claims = claims
	g.mu.Unlock()
	return nil
}

// id tells the version from all others; where upstream gives no strong
// validator, from itself too.
func (g *fileGoal) id(size int64) digest.Digest {
	strong := g.source.meta().strong()
	if strong == "" {
		return digest.FromString(rand.Text())
	}
	return digest.FromString(fmt.Sprintf("file %q %q %q %q %d", g.source.up.name, g.source.path, g.source.query, strong, size))
}

func (g *fileGoal) whole(*blobstore.Partial) bool { return false }

func (g *fileGoal) verify(p *blobstore.Partial) error {
	got, err := p.Digest()
	if err != nil {
		return err
	}
	for _, v := range g.verifiers() {
		c := v.(claimVerifier)
		if want := c.digest(); want == got {
			continue
		}
		file, err := p.OpenReader()
		if err != nil {
			return fmt.Errorf("verifying %s by %s: %w", g, c.by, err)
		}
		_, err = io.Copy(c, io.NewSectionReader(file, 0, p.Size()))
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("verifying %s by %s: %w", g, c.by, err)
		}
		if !c.Verified() {
			return fmt.Errorf("%s is not what %s says: %w", g, c.by, blobstore.ErrDigestMismatch)
		}
	}
	return nil
}

func (g *fileGoal) withheld() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.claims) > 0
}

func (g *fileGoal) verifiers() []digest.Verifier {
	g.mu.Lock()
	defer g.mu.Unlock()
	var verifiers []digest.Verifier
	for _, c := range g.claims {
		verifiers = append(verifiers, c.verifier())
	}
	return verifiers
}

// seekable needs what If-Range can be asked with.
func (g *fileGoal) seekable() bool {
	m := g.source.meta()
	return m != nil && m.strong() != ""
}
