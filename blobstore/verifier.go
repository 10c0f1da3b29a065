package blobstore

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
)

// Verifier reads single blobs of a [Dir] from the disk, past its cache, and says
// whether they are what they were. It is used by one goroutine.
type Verifier struct {
	dir    *Dir
	reader *scrubReader
}

// Verifier makes a verifier that reads at most rate bytes a second, where opening
// a blob counts as 64 KiB; 0 is no bound. It has to be closed.
func (d *Dir) Verifier(rate int64) (*Verifier, error) {
	reader, err := newScrubReader(rate, func(int) {})
	if err != nil {
		return nil, err
	}
	return &Verifier{dir: d, reader: reader}, nil
}

// Close frees what the verifier has.
func (v *Verifier) Close() { v.reader.close() }

// Verify reads a blob, which does not count as a use of it, and returns its size.
// It changes nothing. Errors: ErrNotExist, ErrDigestMismatch, ErrInvalidDigest, the
// context's, and of reading.
func (v *Verifier) Verify(ctx context.Context, dgst digest.Digest) (size int64, err error) {
	s, err := parseDigest(dgst)
	if err != nil {
		return 0, err
	}
	e := v.dir.index.entry(&s)
	if e == nil {
		return 0, absent(dgst)
	}
	err = v.reader.verify(ctx, &s, v.dir.blobFile(dgst), e.size)
	if errors.Is(err, errGone) && !v.dir.index.holds(e) { // evicted meanwhile
		return 0, absent(dgst)
	}
	if errors.Is(err, errGone) {
		err = errors.Join(ErrDigestMismatch, err)
	}
	return e.size, err
}

// PutAside moves a blob that was found to be wrong to the quarantine.
func (d *Dir) PutAside(dgst digest.Digest, reason error) {
	s, err := parseDigest(dgst)
	if err != nil {
		return
	}
	if e := d.index.entry(&s); e != nil {
		d.quarantine(e, reason)
	}
}

// S3Verifier is what [Verifier] is, of a bucket. It is used by one goroutine.
type S3Verifier struct {
	s3     *S3
	reader *scrubReader
}

// Verifier makes a verifier that reads at most rate bytes a second, where a request
// counts as 64 KiB; 0 is no bound. It has to be closed.
func (s *S3) Verifier(rate int64) (*S3Verifier, error) {
	reader, err := newScrubReader(rate, func(int) {})
	if err != nil {
		return nil, err
	}
	return &S3Verifier{s3: s, reader: reader}, nil
}

// Close frees what the verifier has.
func (v *S3Verifier) Close() { v.reader.close() }

// Verify reads a blob and returns its size. Errors: ErrNotExist, ErrDigestMismatch,
// ErrInvalidDigest, the context's, and of reading.
func (v *S3Verifier) Verify(ctx context.Context, d digest.Digest) (size int64, err error) {
	return v.s3.verify(ctx, v.reader, d)
}
