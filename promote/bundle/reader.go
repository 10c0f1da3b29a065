package bundle

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// entry is a file in a tar.
type entry struct {
	name     string
	size, at int64
	end      int64 // of its last block
}

// scan reads a tar's entries, until each is false. What is cut short at its end ends it.
func scan(r io.ReaderAt, size int64, each func(entry, io.Reader) (bool, error)) error {
	section := io.NewSectionReader(r, 0, size)
	in := tar.NewReader(section)
	for {
		header, err := in.Next()
		if err != nil {
			return nil //nolint:nilerr // the end, or what is left of it
		}
		at, err := section.Seek(0, io.SeekCurrent) // a tar.Reader reads no more than the header
		if err != nil {
			return err
		}
		e := entry{name: header.Name, size: header.Size, at: at, end: at + (header.Size+511)/512*512}
		if header.Typeflag != tar.TypeReg || e.end > size {
			return nil
		}
		if more, err := each(e, io.NewSectionReader(r, at, header.Size)); err != nil || !more {
			return err
		}
	}
}

// Reader reads a bundle. It is safe for concurrent use.
type Reader struct {
	Contents *Contents

	parts   []*os.File
	sizes   []int64
	size    int64
	entries map[string]entry
}

// Open opens a bundle by the path that it was written to, by its parts, or by the folder
// that it lies in, and compares every byte with the sums beside it.
// Errors: ErrIncomplete, ErrCorrupt.
func Open(ctx context.Context, paths ...string) (_ *Reader, err error) {
	sums, err := findSums(paths)
	if err != nil {
		return nil, err
	}
	r := &Reader{entries: map[string]entry{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := r.openParts(ctx, sums); err != nil {
		return nil, err
	}
	err = scan(r, r.size, func(e entry, _ io.Reader) (bool, error) {
		r.entries[e.name] = e
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	b, err := r.read(contentsPath, maxContents)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	r.Contents, err = parseContents(b)
	return r, err
}

// maxContents bounds entrepot.json, in bytes.
const maxContents = 256 << 20

// findSums finds the list of sums of what is given.
func findSums(paths []string) (string, error) {
	found := map[string]bool{}
	for _, path := range paths {
		candidates := []string{path + sumsSuffix, regexp.MustCompile(`\.[0-9]{3,}$`).ReplaceAllString(path, "") + sumsSuffix}
		if strings.HasSuffix(path, sumsSuffix) {
			candidates = []string{path}
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			candidates, _ = filepath.Glob(filepath.Join(path, "*"+sumsSuffix)) // the pattern is well-formed
		}
		for _, c := range candidates {
			if _, err := os.Stat(c); err == nil {
				found[c] = true
			}
		}
	}
	switch len(found) {
	case 1:
		for sums := range found {
			return sums, nil
		}
	case 0:
		return "", fmt.Errorf("%w: there is no list of sums (%s) beside %s", ErrIncomplete, "*"+sumsSuffix, strings.Join(paths, " "))
	}
	return "", fmt.Errorf("there are %d bundles; give one of them", len(found))
}

// openParts opens the parts that a list of sums names, and compares them with it.
func (r *Reader) openParts(ctx context.Context, sums string) error {
	list, err := os.ReadFile(sums)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(strings.NewReader(string(list))); lines.Scan(); {
		want, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok || name != filepath.Base(name) {
			return fmt.Errorf("%w: %s has a line %q", ErrCorrupt, sums, lines.Text())
		}
		f, err := os.Open(filepath.Join(filepath.Dir(sums), name)) //nolint:gosec // beside the list
		if err != nil {
			return fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
		r.parts = append(r.parts, f)
		sum := sha256.New()
		n, err := io.Copy(sum, &stopped{ctx, f})
		if err != nil {
			return err
		}
		if got := fmt.Sprintf("%x", sum.Sum(nil)); got != want {
			return fmt.Errorf("%w: %s has the SHA-256 %s, and had %s", ErrCorrupt, name, got, want)
		}
		r.sizes = append(r.sizes, n)
		r.size += n
	}
	return nil
}

// stopped is a reader that a context stops.
type stopped struct {
	ctx context.Context //nolint:containedctx // of the reads
	r   io.Reader
}

func (s *stopped) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// ReadAt implements [io.ReaderAt] over all parts.
func (r *Reader) ReadAt(p []byte, offset int64) (n int, err error) {
	for i, f := range r.parts {
		if offset >= r.sizes[i] {
			offset -= r.sizes[i]
			continue
		}
		read, err := f.ReadAt(p[n:n+int(min(int64(len(p)-n), r.sizes[i]-offset))], offset)
		n += read
		if err != nil && !errors.Is(err, io.EOF) || n == len(p) {
			return n, err
		}
		offset = 0
	}
	return n, io.EOF
}

// Close closes the parts.
func (r *Reader) Close() error {
	var errs []error
	for _, f := range r.parts {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// read returns a small file of the bundle.
func (r *Reader) read(name string, limit int64) ([]byte, error) {
	e, ok := r.entries[name]
	if !ok {
		return nil, fmt.Errorf("the bundle has no %s", name)
	}
	if e.size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, e.size, limit)
	}
	b := make([]byte, e.size)
	_, err := r.ReadAt(b, e.at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}

// Content is the part of the bundle that has some content, which may be damaged; false
// when there is none.
func (r *Reader) Content(d digest.Digest) (*io.SectionReader, bool) {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return nil, false
	}
	e, ok := r.entries[blobPath(d)]
	if !ok {
		return nil, false
	}
	return io.NewSectionReader(r, e.at, e.size), true
}

// HasLedger says whether the names of the bundle can be proven.
func (r *Reader) HasLedger() bool {
	_, ok := r.entries[ledgerPrefix+"checkpoint"]
	return ok
}

// Read implements [ledger.Reader]: a bundle has a ledger as a web server would.
func (r *Reader) Read(ctx context.Context, path string, _ ledger.Version) ([]byte, ledger.Version, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	const largest = 32 << 20 // bytes, of a bundle of entries
	if _, ok := r.entries[ledgerPrefix+path]; !ok {
		return nil, "", fmt.Errorf("reading %s in the bundle: %w", path, ledger.ErrNotExist)
	}
	b, err := r.read(ledgerPrefix+path, largest)
	return b, "", err
}

// images are those of a repository.
func (r *Reader) images(upstream, repository string) []*Image {
	var found []*Image
	for i := range r.Contents.Images {
		if image := &r.Contents.Images[i]; image.Upstream == upstream && image.Repository == repository {
			found = append(found, image)
		}
	}
	return slices.Clip(found)
}
