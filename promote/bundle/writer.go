package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"entrepot/promote/ledger"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Writer writes a bundle. What is whole in one that was interrupted it keeps.
type Writer struct {
	vol  *volume
	held map[digest.Digest]held
	kept int64 // bytes of what was there
}

// Create begins a bundle at a path, or goes on with one. split is the most bytes that a
// part has; 0 is no parts. What is there is read and verified, and what is not whole at its
// end is taken away. Errors: fs.ErrExist for a bundle that is complete; ErrCorrupt for one
// that was begun with another split.
func Create(ctx context.Context, path string, split int64) (*Writer, error) {
	if _, err := os.Stat(path + sumsSuffix); err == nil {
		return nil, fmt.Errorf("%s: %w, and is complete", path, fs.ErrExist)
	}
	vol, err := openVolume(path, split)
	if err != nil {
		return nil, err
	}
	w := &Writer{vol: vol, held: map[digest.Digest]held{}}
	if err := w.resume(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("going on with %s: %w", path, err), vol.close())
	}
	return w, nil
}

// resume finds the whole blobs that are there.
func (w *Writer) resume(ctx context.Context) error {
	end := int64(0)
	err := scan(w.vol, w.vol.size, func(e entry, content io.Reader) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if e.name != layoutPath {
			d, ok := digestOfPath(e.name)
			if !ok {
				return false, nil // what is written last is written anew
			}
			sum := digest.SHA256.Digester()
			if n, err := io.Copy(sum.Hash(), content); err != nil || n != e.size || sum.Digest() != d {
				return false, nil //nolint:nilerr // it is not whole
			}
			w.held[d] = held{end, e.size}
			w.kept += e.size
		}
		end = e.end
		return true, nil
	})
	if err != nil {
		return err
	}
	if err := w.vol.truncate(end); err != nil || end > 0 {
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return w.put(layoutPath, layout)
}

// Kept is the bytes of what was there already.
func (w *Writer) Kept() int64 { return w.kept }

// Has says whether content is there.
func (w *Writer) Has(d digest.Digest) bool {
	_, ok := w.held[d]
	return ok
}

// Add writes content, unless it is there. read writes the bytes of it; what has not the
// size and the digest is taken away again. Errors: ErrCorrupt, those of read.
func (w *Writer) Add(d digest.Digest, size int64, read func(io.Writer) error) error {
	f := w.fill(1)
	err := f.add(context.Background(), d, size, func(_ context.Context, to io.Writer) error { return read(to) }, func(error) {})
	return errors.Join(err, f.wait())
}

// entry writes a file of the tar. A tar.Writer keeps nothing from one to the next.
func (w *Writer) entry(name string, size int64, write func(io.Writer) error) error {
	out := tar.NewWriter(w.vol)
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}); err != nil {
		return err
	}
	if err := write(out); err != nil {
		return err
	}
	return out.Flush() // which fails when not all of it came
}

func (w *Writer) put(name string, content []byte) error {
	return w.entry(name, int64(len(content)), func(to io.Writer) error {
		_, err := to.Write(content)
		return err
	})
}

// Finish writes the ledger, unless that is nil, and what the bundle is for, and the sums
// by which it is complete. The writer is closed.
func (w *Writer) Finish(ctx context.Context, c *Contents, log ledger.Reader, checkpoint ledger.Checkpoint) (err error) {
	defer func() { err = errors.Join(err, w.Close()) }()
	if log != nil {
		for path := range checkpoint.Objects() {
			object, _, err := log.Read(ctx, path, "")
			if err == nil {
				err = w.put(ledgerPrefix+path, object)
			}
			if err != nil {
				return fmt.Errorf("copying the ledger: %w", err)
			}
		}
		if err := w.put(ledgerPrefix+"checkpoint", checkpoint.Signed); err != nil {
			return err
		}
	}
	c.Version = contentsVersion
	contents, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	index, err := json.Marshal(c.index())
	if err != nil {
		return err
	}
	if err := errors.Join(w.put(contentsPath, contents), w.put(indexPath, index)); err != nil {
		return err
	}
	if _, err := w.vol.Write(make([]byte, 1024)); err != nil { // two empty blocks end a tar
		return err
	}
	if err := w.vol.sync(); err != nil {
		return err
	}
	return w.sums()
}

// sums writes the list of sums, last of all.
func (w *Writer) sums() error {
	var list bytes.Buffer
	for n := range w.vol.parts {
		sum := sha256.New()
		part := io.NewSectionReader(w.vol, int64(n)*w.vol.split, w.vol.partSize(n))
		if _, err := io.Copy(sum, part); err != nil {
			return err
		}
		fmt.Fprintf(&list, "%x  %s\n", sum.Sum(nil), filepath.Base(w.vol.part(n)))
	}
	return renameio.WriteFile(w.vol.path+sumsSuffix, list.Bytes(), 0o644)
}

// Close lets go of the files. A bundle that was not finished can be gone on with.
func (w *Writer) Close() error {
	err := w.vol.close()
	w.vol.parts = nil
	return err
}

// index lists the images by their full names, and what is attached to them.
func (c *Contents) index() *ocispec.Index {
	index := &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	seen := map[string]bool{}
	add := func(d ocispec.Descriptor, name string) {
		key := d.Digest.String() + " " + name
		if seen[key] {
			return
		}
		seen[key] = true
		d.Annotations = nil
		if name != "" {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		}
		index.Manifests = append(index.Manifests, d)
	}
	for i := range c.Images {
		image := &c.Images[i]
		add(image.Root, image.Upstream+"/"+image.Ref())
		for _, a := range image.Attached {
			name := ""
			if a.Tag != "" {
				name = image.Upstream + "/" + image.Repository + ":" + a.Tag
			}
			add(a.Descriptor, name)
		}
	}
	slices.SortStableFunc(index.Manifests, func(a, b ocispec.Descriptor) int {
		return strings.Compare(a.Annotations[ocispec.AnnotationRefName], b.Annotations[ocispec.AnnotationRefName])
	})
	return index
}
