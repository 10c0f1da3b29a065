package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	"entrepot/blobstore/pause"

	"github.com/opencontainers/go-digest"
)

// CopyFile copies a file, unless it is at the destination, and returns what is
// there then. What is there is compared by SHA256, which is read from the
// content where the store does not know it.
//
// Errors: ErrNotFound (source), ErrCorrupt (the source has other bytes),
// ErrConflict (the destination has, and Overwrite is false).
func (c *Client) CopyFile(ctx context.Context, what FileCopy) (FileCopied, error) {
	done, err := c.copyFile(ctx, &what)
	if err != nil {
		err = fmt.Errorf("copying %s from %s to %s: %w", what.Name, what.From, what.To, err)
	}
	return done, err
}

func (c *Client) copyFile(ctx context.Context, what *FileCopy) (FileCopied, error) {
	if err := what.SHA256.Validate(); err != nil || what.SHA256.Algorithm() != digest.SHA256 {
		return FileCopied{}, failf(ErrUnsupported, "%.100q is no sha256 digest", what.SHA256)
	}
	there, err := c.SumFile(ctx, what.To, what.Name, false)
	switch {
	case err == nil && there.SHA256 == what.SHA256:
		return FileCopied{FileInfo: there, Present: true}, nil
	case err == nil && !what.Overwrite:
		return FileCopied{FileInfo: there}, takenBy(there)
	case err != nil && !errors.Is(err, ErrNotFound):
		return FileCopied{}, err
	}
	if mounter, ok := what.To.(Mounter); ok {
		// The source need not even have it any more. A server that does not
		// know what it is asked is sent the content.
		if size, err := mounter.HasContent(ctx, what.SHA256); err == nil {
			err = mounter.Mount(ctx, what.Name, what.SHA256, what.Overwrite)
			if !errors.Is(err, ErrNotFound) {
				return FileCopied{FileInfo: FileInfo{Name: what.Name, Size: size, SHA256: what.SHA256}}, err
			}
		}
	}
	info, err := what.From.Stat(ctx, what.Name)
	if err != nil {
		return FileCopied{}, err
	}
	if info.SHA256 != "" && info.SHA256 != what.SHA256 {
		return FileCopied{}, failf(ErrCorrupt, "%s has %s of %s, not %s", what.From, info.SHA256, what.Name, what.SHA256)
	}
	if info.Size < 0 {
		return FileCopied{}, failf(ErrUnsupported, "%s does not say how large it is", what.From)
	}
	info.SHA256 = what.SHA256
	return FileCopied{FileInfo: info}, c.putFile(ctx, what, info)
}

func takenBy(there FileInfo) error {
	return failf(ErrConflict, "%s is there with %s", there.Name, there.SHA256)
}

// compare says whether a store has a file already. Errors: ErrConflict, when it has
// another by the name, which may not be replaced.
func (c *Client) compare(ctx context.Context, store FileStore, file FileInfo, overwrite bool) (bool, error) {
	there, err := c.SumFile(ctx, store, file.Name, false)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case there.SHA256 == file.SHA256:
		return true, nil
	case overwrite:
		return false, nil
	}
	return false, takenBy(there)
}

// putFile sends a file until it has arrived, or has failed for good.
func (c *Client) putFile(ctx context.Context, what *FileCopy, info FileInfo) error {
	for failed := 1; ; failed++ {
		source := &fileSource{client: c, ctx: ctx, store: what.From, info: info, progress: c.cfg.Progress}
		err := what.To.Put(ctx, info, what.Overwrite, source)
		source.close()
		switch {
		case err == nil:
			return nil
		case source.err != nil:
			return source.err
		case ctx.Err() != nil, failed >= c.cfg.Attempts:
			return writing(err)
		case !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrRateLimited):
			return writing(err)
		}
		if cause := pause.For(ctx, c.cfg.backoff(failed)); cause != nil {
			return fmt.Errorf("%w, after: %w", cause, err)
		}
	}
}

// SumFile describes a file with its SHA256, which is read from the content when
// the store does not know it, or always if deep.
// Errors: ErrNotFound; ErrCorrupt when a deep look finds another SHA256, or
// another size, than the store says.
func (c *Client) SumFile(ctx context.Context, store FileStore, name string, deep bool) (FileInfo, error) {
	info, err := store.Stat(ctx, name)
	if err != nil || info.SHA256 != "" && !deep {
		return info, err
	}
	source := &fileSource{client: c, ctx: ctx, store: store, info: FileInfo{Name: name, Size: info.Size}, progress: silence{}}
	defer source.close()
	sum := digest.SHA256.Digester()
	n, err := io.Copy(sum.Hash(), source)
	if err != nil {
		return info, fmt.Errorf("reading %s from %s: %w", name, store, err)
	}
	if info.SHA256 != "" && info.SHA256 != sum.Digest() {
		return info, failf(ErrCorrupt, "%s has bytes of %s under %s, which it says is %s", store, sum.Digest(), name, info.SHA256)
	}
	info.Size, info.SHA256 = n, sum.Digest()
	return info, nil
}

// fileSource reads a file of a store. What breaks goes on at the byte where it
// broke.
type fileSource struct {
	client   *Client
	ctx      context.Context //nolint:containedctx // of the copy that it is read for
	store    FileStore
	info     FileInfo
	progress Progress

	body   io.ReadCloser
	at     int64
	breaks breaks
	err    error // why nothing can be read any more
}

// Read implements [io.Reader].
func (s *fileSource) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	for {
		if s.body == nil {
			if s.body, s.err = s.store.Open(s.ctx, s.info.Name, s.at); s.err != nil {
				return 0, s.err
			}
		}
		n, err := s.body.Read(p)
		s.at += int64(n)
		s.progress.Transferred(int64(n))
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			continue
		case errors.Is(err, io.EOF) && (s.info.Size < 0 || s.at >= s.info.Size):
			return 0, io.EOF
		}
		s.close()
		if s.err = s.broke(err); s.err != nil {
			return 0, s.err
		}
	}
}

// broke decides whether to go on after a break.
func (s *fileSource) broke(err error) error {
	return s.breaks.another(s.ctx, &s.client.cfg, s.at, err, func() string { return fmt.Sprintf("reading %s from %s", s.info.Name, s.store) })
}

func (s *fileSource) close() {
	if s.body != nil {
		s.body.Close()
		s.body = nil
	}
}

// verifiedFile passes on the bytes of a file. It withholds the last of them
// until it has seen that all are right: nobody gets the whole of a wrong file.
type verifiedFile struct {
	r    io.Reader
	file FileInfo
	hash hash.Hash
	read int64
	err  error
}

func newVerifiedFile(file FileInfo, r io.Reader) *verifiedFile {
	return &verifiedFile{r: r, file: file, hash: digest.SHA256.Hash()}
}

// Read implements [io.Reader]. Errors: ErrCorrupt.
func (v *verifiedFile) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.read == v.file.Size {
		// Only an empty file is not verified yet.
		if v.err = v.end(); v.err == nil {
			v.err = io.EOF
		}
		return 0, v.err
	}
	n, err := v.r.Read(p[:min(int64(len(p)), v.file.Size-v.read)])
	v.hash.Write(p[:n])
	v.read += int64(n)
	switch {
	case v.read == v.file.Size:
		if v.err = v.end(); v.err != nil {
			return 0, v.err
		}
	case errors.Is(err, io.EOF):
		v.err = failf(ErrCorrupt, "%s ended after %d bytes, %d are announced", v.file.Name, v.read, v.file.Size)
	case err != nil:
		v.err = err
	}
	return n, v.err
}

// end looks for bytes beyond the size, and compares the digest.
func (v *verifiedFile) end() error {
	if n, err := io.ReadFull(v.r, make([]byte, 1)); n > 0 {
		return failf(ErrCorrupt, "%s has more than the %d bytes that are announced", v.file.Name, v.file.Size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, v.hash); got != v.file.SHA256 {
		return failf(ErrCorrupt, "%s has bytes of %s, not of %s", v.file.Name, got, v.file.SHA256)
	}
	return nil
}
