package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// tempDir is where files are until they are whole. It lies below the base,
	// because a file can be renamed within one file system only.
	tempDir = ".entrepot-tmp"
	// tempLifetime is how long the rest of an interrupted copy remains, at
	// least.
	tempLifetime = 24 * time.Hour
)

// dirStore is a directory. Links that lead out of it are refused.
type dirStore struct {
	client *Client
	base   string
}

func newDirStore(c *Client, base string) *dirStore { return &dirStore{client: c, base: base} }

// String implements [FileStore].
func (s *dirStore) String() string { return "file://" + s.base }

// open opens the base, below which everything stays: see [os.Root].
func (s *dirStore) open(name string) (*os.Root, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	if first, _, _ := strings.Cut(name, "/"); first == tempDir {
		return nil, failf(ErrUnsupported, "file name %q: %s is for files that are not whole yet", name, tempDir)
	}
	root, err := os.OpenRoot(s.base)
	if err != nil {
		return nil, dirError(err)
	}
	return root, nil
}

// closeRoot closes a directory that was only read through; there is nothing to
// lose.
func closeRoot(root *os.Root) { _ = root.Close() }

// dirError gives an error of the file system its kind.
func dirError(err error) error {
	if _, ok := errors.AsType[*Error](err); err == nil || ok {
		return err
	}
	kind := ErrRefused
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		kind = ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		kind = ErrUnauthorized
	}
	return &Error{Kind: kind, Err: err}
}

// Stat implements [FileStore].
func (s *dirStore) Stat(_ context.Context, name string) (FileInfo, error) {
	root, err := s.open(name)
	if err != nil {
		return FileInfo{}, err
	}
	defer closeRoot(root)
	return statFile(root, name)
}

func statFile(root *os.Root, name string) (FileInfo, error) {
	info, err := root.Stat(name)
	if err != nil {
		return FileInfo{}, dirError(err)
	}
	if !info.Mode().IsRegular() {
		return FileInfo{}, failf(ErrNotFound, "%s is no file, but %s", name, info.Mode().Type())
	}
	return FileInfo{Name: name, Size: info.Size(), ModTime: info.ModTime()}, nil
}

// Open implements [FileStore].
func (s *dirStore) Open(_ context.Context, name string, offset int64) (io.ReadCloser, error) {
	root, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer closeRoot(root)
	if _, err := statFile(root, name); err != nil { // opening a pipe would wait
		return nil, err
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, dirError(err)
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		file.Close()
		return nil, dirError(err)
	}
	return file, nil
}

// Put implements [FileStore].
func (s *dirStore) Put(ctx context.Context, file FileInfo, overwrite bool, r io.Reader) error {
	if err := os.MkdirAll(s.base, 0o755); err != nil { //nolint:gosec // a file store is to be read by servers
		return dirError(err)
	}
	root, err := s.open(file.Name)
	if err != nil {
		return err
	}
	defer closeRoot(root)
	if done, err := s.client.compare(ctx, s, file, overwrite); done || err != nil {
		return err
	}
	temp, err := writeTemp(ctx, root, file, r)
	if err != nil {
		return dirError(err)
	}
	defer func() { _ = root.Remove(temp) }() // it is gone when it was renamed
	if err := root.MkdirAll(path.Dir(file.Name), 0o755); err != nil {
		return dirError(err)
	}
	if overwrite {
		err = root.Rename(temp, file.Name)
	} else {
		err = root.Link(temp, file.Name) // a rename would replace what came meanwhile
	}
	if errors.Is(err, fs.ErrExist) {
		_, err = s.client.compare(ctx, s, file, false)
		return err
	}
	if err != nil {
		return dirError(err)
	}
	return dirError(syncDir(root, path.Dir(file.Name)))
}

// writeTemp writes a file, verified and on the disk, under a name of its own.
func writeTemp(ctx context.Context, root *os.Root, file FileInfo, r io.Reader) (name string, err error) {
	if err := root.MkdirAll(tempDir, 0o755); err != nil {
		return "", err
	}
	sweep(root, time.Now().Add(-tempLifetime))
	name = path.Join(tempDir, rand.Text())
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, &contextReader{ctx, newVerifiedFile(file, r)})
	if err == nil {
		err = out.Sync()
	}
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = root.Remove(name)
	}
	return name, err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // io.Reader has no place for it
	r   io.Reader
}

// Read implements [io.Reader].
func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// sweep removes what interrupted copies left behind. What it cannot remove, it
// leaves to the next.
func sweep(root *os.Root, before time.Time) {
	entries, err := fs.ReadDir(root.FS(), tempDir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.ModTime().Before(before) {
			_ = root.Remove(path.Join(tempDir, entry.Name()))
		}
	}
}

// syncDir makes names that were added to a directory survive a crash.
func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Delete implements [FileStore]. Directories that it empties go with the file.
func (s *dirStore) Delete(_ context.Context, name string) error {
	root, err := s.open(name)
	if err != nil {
		return err
	}
	defer closeRoot(root)
	if info, err := root.Lstat(name); err == nil && info.IsDir() {
		return failf(ErrNotFound, "%s is no file, but a directory", name)
	}
	if err := root.Remove(name); err != nil {
		return dirError(err)
	}
	for dir := path.Dir(name); dir != "." && root.Remove(dir) == nil; dir = path.Dir(dir) {
	}
	return nil
}

// List implements [FileStore].
func (s *dirStore) List(ctx context.Context, prefix string) iter.Seq2[FileInfo, error] {
	return func(yield func(FileInfo, error) bool) {
		files, err := s.walk(ctx, prefix)
		for _, file := range files {
			if !yield(file, nil) {
				return
			}
		}
		if err != nil {
			yield(FileInfo{}, fmt.Errorf("listing %s: %w", s, dirError(err)))
		}
	}
}

// walk finds the files, and sorts them: a directory's come after those whose
// names go on with a character before the slash.
func (s *dirStore) walk(ctx context.Context, prefix string) ([]FileInfo, error) {
	root, err := os.OpenRoot(s.base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // as a bucket without files
	}
	if err != nil {
		return nil, err
	}
	defer closeRoot(root)
	var files []FileInfo
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case name == ".":
			return nil
		case entry.IsDir() && (name == tempDir || !strings.HasPrefix(name+"/", prefix) && !strings.HasPrefix(prefix, name+"/")):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasPrefix(name, prefix):
			return nil
		}
		info, err := statFile(root, name) // of what a link leads to
		if err != nil {
			return err
		}
		files = append(files, info)
		return nil
	})
	slices.SortFunc(files, func(a, b FileInfo) int { return strings.Compare(a.Name, b.Name) })
	return files, err
}
