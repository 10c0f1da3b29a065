package proxy

import (
	"context"
	"errors"
	"fmt"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

// goal is what a fill is to bring, and by what it is known to be right: a blob by
// its digest, or the file that a name of an upstream is now.
type goal interface {
	// String names it for messages.
	fmt.Stringer
	// spool opens where its bytes go, with those that an earlier fill left, and
	// sets in to go on behind them. What has to learn from upstream which
	// version it is opens in first. Errors: *spoolError when the store failed,
	// *toldError when there is nothing to fetch, else those of in.
	spool(ctx context.Context, dir *blobstore.Dir, in *feed) (*blobstore.Partial, error)
	// whole reports that what an earlier fill left is all of it.
	whole(p *blobstore.Partial) bool
	// verify says whether bytes that have come to their end are right. Errors:
	// blobstore.ErrDigestMismatch.
	verify(p *blobstore.Partial) error
	// withheld reports that the last bytes are kept from readers until verify.
	withheld() bool
	// verifiers check bytes that are read from the start without a spool; none
	// when there is nothing to check them by.
	verifiers() []digest.Verifier
	// seekable reports that sources can go on at any byte of the same content,
	// now or later: what is spooled is worth keeping.
	seekable() bool
}

// blobGoal is a blob.
type blobGoal digest.Digest

func (g blobGoal) String() string { return string(g) }

func (g blobGoal) spool(ctx context.Context, dir *blobstore.Dir, in *feed) (*blobstore.Partial, error) {
	p, err := dir.Partial(ctx, digest.Digest(g))
	if err != nil {
		return nil, &spoolError{err}
	}
	in.offset = p.Size()
	return p, nil
}

func (g blobGoal) whole(p *blobstore.Partial) bool { return p.Verify() == nil }

func (g blobGoal) verify(p *blobstore.Partial) error { return p.Verify() }

func (g blobGoal) withheld() bool { return true }

func (g blobGoal) verifiers() []digest.Verifier {
	return []digest.Verifier{digest.Digest(g).Verifier()}
}

func (g blobGoal) seekable() bool { return true }

// toldError says that a fill is not needed: upstream told the digest of a file,
// and the store has it.
type toldError struct{ digest digest.Digest }

func (e *toldError) Error() string { return fmt.Sprintf("%s is in the store", e.digest) }

// isTold reports such an error, and the digest.
func isTold(err error) (digest.Digest, bool) {
	if told, ok := errors.AsType[*toldError](err); ok {
		return told.digest, true
	}
	return "", false
}
