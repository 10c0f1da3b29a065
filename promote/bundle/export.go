package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"entrepot/promote/transfer"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Source is where content for a bundle comes from: a node, or whatever serves images as
// HOST/UPSTREAM/REPOSITORY and files as UPSTREAM/PATH below a URL.
type Source struct {
	Client *transfer.Client
	Host   string // host:port of the registry
	URL    string // of the files, without a slash at the end
	// Parallel is how much is fetched at once; 0 means 8.
	Parallel int
	// Wrote is told of bytes that were written, by several goroutines; nil is not.
	Wrote func(n int)
	// Done is told of each name of which everything is written, by several goroutines;
	// nil is not.
	Done func(name string)
}

const defaultParallel = 8

// repository is that of an image at the source.
func (s *Source) repository(i *Image) transfer.Repository {
	return transfer.Repository{Host: s.Host, Name: i.Upstream + "/" + i.Repository}
}

// Fetch writes images, with everything attached to them, and files, as far as they are not
// there, and says in c what they consist of. Where something fails, what was before it is
// kept. The order of what is written is that of c, however it comes.
func (w *Writer) Fetch(ctx context.Context, s *Source, c *Contents) error {
	parallel := s.Parallel
	if parallel == 0 {
		parallel = defaultParallel
	}
	ctx, end := context.WithCancel(ctx)
	f := &fetching{Source: s, filling: w.fill(parallel), stop: end}
	err := f.images(ctx, c.Images, parallel)
	if err == nil {
		err = f.files(ctx, c.Files)
	}
	if err != nil {
		end() // what is on its way would be taken away
	}
	if failed := f.wait(); failed != nil && f.first.Load() != nil {
		err = *f.first.Load() // others may have failed for its sake
	} else if err == nil {
		err = failed
	}
	end()
	return err
}

// fetching is one Fetch.
type fetching struct {
	*Source
	*filling

	stop  context.CancelFunc
	first atomic.Pointer[error] // that came up
}

// part is a name on its way: it is done when all that it consists of is.
type part struct {
	name string
	left atomic.Int64
}

// partOver is told that something of a name is over.
func (f *fetching) partOver(p *part, err error) {
	if err != nil {
		err = fmt.Errorf("%s: %w", p.name, err)
		f.first.CompareAndSwap(nil, &err)
		f.stop()
		return
	}
	if p.left.Add(-1) == 0 && f.Done != nil {
		f.Done(p.name)
	}
}

// inspected is what an image consists of.
type inspected struct {
	whole transfer.Whole
	err   error
}

// images fetches images, looking so many ahead at what they consist of.
func (f *fetching) images(ctx context.Context, images []Image, ahead int) error {
	looks := make(chan chan inspected, ahead)
	go func() {
		defer close(looks)
		for i := range images {
			look := make(chan inspected, 1)
			select {
			case looks <- look: // when there is room
			case <-ctx.Done():
				return
			}
			go func() {
				whole, err := f.look(ctx, &images[i])
				look <- inspected{whole, err}
			}()
		}
	}()
	n := 0
	for look := range looks {
		image, got := &images[n], <-look
		n++
		name := image.Upstream + "/" + image.Ref()
		if got.err == nil {
			got.err = f.image(ctx, image, &got.whole, name)
		}
		if got.err != nil {
			f.stop()
			for look := range looks {
				<-look
			}
			return fmt.Errorf("%s: %w", name, got.err)
		}
	}
	return ctx.Err()
}

// look finds out what an image consists of.
func (f *fetching) look(ctx context.Context, i *Image) (transfer.Whole, error) {
	if i.Root.Size == 0 {
		if err := f.Resolve(ctx, i); err != nil {
			return transfer.Whole{}, err
		}
	}
	return f.Client.InspectWhole(ctx, f.repository(i), i.Root.Digest)
}

// image has an image's parts written, and says in i what it consists of.
func (f *fetching) image(ctx context.Context, i *Image, whole *transfer.Whole, name string) error {
	i.Root, i.Attached = whole.Root, nil
	for _, a := range whole.Attached {
		i.Attached = append(i.Attached, Attached{Subject: a.Subject, Tag: a.Tag, Descriptor: a.Descriptor})
	}
	repository := f.repository(i)
	p := &part{name: name}
	p.left.Store(1)
	add := func(d ocispec.Descriptor, read func(context.Context, io.Writer) error) error {
		p.left.Add(1)
		return f.add(ctx, d.Digest, d.Size, f.counted(read), func(err error) { f.partOver(p, err) })
	}
	for _, m := range whole.Manifests {
		err := add(m, func(ctx context.Context, to io.Writer) error {
			content, err := f.Client.ReadManifest(ctx, repository, m.Digest)
			if err == nil {
				_, err = to.Write(content)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, b := range whole.Blobs {
		err := add(b, func(ctx context.Context, to io.Writer) error {
			if err := f.Client.ReadBlob(ctx, repository, b, to); err != nil {
				return fmt.Errorf("blob %s: %w", b.Digest, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	f.partOver(p, nil)
	return nil
}

// counted tells Wrote what is read.
func (f *fetching) counted(read func(context.Context, io.Writer) error) func(context.Context, io.Writer) error {
	if f.Wrote == nil {
		return read
	}
	return func(ctx context.Context, to io.Writer) error {
		return read(ctx, writerFunc(func(b []byte) (int, error) {
			n, err := to.Write(b)
			f.Wrote(n)
			return n, err
		}))
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

// files has files written, and says in each how large it is.
func (f *fetching) files(ctx context.Context, files []File) error {
	for n := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		file := &files[n]
		name := file.Upstream + "/" + file.Path
		if err := f.file(ctx, file, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (f *fetching) file(ctx context.Context, file *File, name string) error {
	p := &part{name: name}
	p.left.Store(1)
	if h, ok := f.held[file.Digest]; ok {
		file.Size = h.size
		f.partOver(p, nil)
		return nil
	}
	store, err := f.Client.OpenFileStore(ctx, f.URL+"/"+file.Upstream)
	if err != nil {
		return err
	}
	if file.Size == 0 {
		info, err := store.Stat(ctx, file.Path)
		if err != nil {
			return err
		}
		if file.Size = info.Size; file.Size < 0 {
			return errors.New("the source does not say how large it is")
		}
	}
	info := transfer.FileInfo{Name: file.Path, Size: file.Size, SHA256: file.Digest}
	read := func(ctx context.Context, to io.Writer) error { return f.Client.ReadFile(ctx, store, info, to) }
	return f.add(ctx, file.Digest, file.Size, f.counted(read), func(err error) { f.partOver(p, err) })
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
