package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"entrepot/promote/transfer"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Source is where content for a bundle comes from: a node, or whatever serves images as
// HOST/UPSTREAM/REPOSITORY and files as UPSTREAM/PATH below a URL.
type Source struct {
	Client *transfer.Client
	Host   string // host:port of the registry
	URL    string // of the files, without a slash at the end
}

// repository is that of an image at the source.
func (s *Source) repository(i *Image) transfer.Repository {
	return transfer.Repository{Host: s.Host, Name: i.Upstream + "/" + i.Repository}
}

// AddImage writes an image and everything attached to it, as far as it is not there, and
// says in i what it consists of. Its root's digest is known; its tag's is, too.
func (w *Writer) AddImage(ctx context.Context, s *Source, i *Image) error {
	whole, err := s.Client.InspectWhole(ctx, s.repository(i), i.Root.Digest)
	if err != nil {
		return err
	}
	i.Root, i.Attached = whole.Root, nil
	for _, a := range whole.Attached {
		i.Attached = append(i.Attached, Attached{Subject: a.Subject, Tag: a.Tag, Descriptor: a.Descriptor})
	}
	for _, m := range whole.Manifests {
		if w.Has(m.Digest) {
			continue
		}
		content, err := s.Client.ReadManifest(ctx, s.repository(i), m.Digest)
		if err != nil {
			return err
		}
		if err := w.Add(m.Digest, int64(len(content)), copyTo(content)); err != nil {
			return err
		}
	}
	for _, b := range whole.Blobs {
		err := w.Add(b.Digest, b.Size, func(to io.Writer) error { return s.Client.ReadBlob(ctx, s.repository(i), b, to) })
		if err != nil {
			return fmt.Errorf("blob %s: %w", b.Digest, err)
		}
	}
	return nil
}

func copyTo(content []byte) func(io.Writer) error {
	return func(to io.Writer) error {
		_, err := io.Copy(to, bytes.NewReader(content))
		return err
	}
}

// AddFile writes a file, unless its content is there, and says in f how large it is.
func (w *Writer) AddFile(ctx context.Context, s *Source, f *File) error {
	if w.Has(f.Digest) {
		f.Size = w.held[f.Digest]
		return nil
	}
	store, err := s.Client.OpenFileStore(ctx, s.URL+"/"+f.Upstream)
	if err != nil {
		return err
	}
	if f.Size == 0 {
		info, err := store.Stat(ctx, f.Path)
		if err != nil {
			return err
		}
		if f.Size = info.Size; f.Size < 0 {
			return errors.New("the source does not say how large it is")
		}
	}
	file := transfer.FileInfo{Name: f.Path, Size: f.Size, SHA256: f.Digest}
	return w.Add(f.Digest, f.Size, func(to io.Writer) error { return s.Client.ReadFile(ctx, store, file, to) })
}

// Resolve asks the source what an image's tag is, and says so in i: of names that no
// ledger has.
func (s *Source) Resolve(ctx context.Context, i *Image) error {
	d, err := s.Client.Resolve(ctx, transfer.Ref{Repository: s.repository(i), Tag: i.Tag, Digest: i.Root.Digest})
	if err == nil {
		i.Root = ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	}
	return err
}
