package clientconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// Machine is the machine whose clients are configured: this one, or the folder
// that has the files of another, such as an image that is being built. It is used
// by one goroutine.
type Machine struct {
	root    string
	journal journal
	read    []byte // the journal as it was read or written
	birth   *birth // nil when the state is in its place
	disk    disk
}

// Open opens the machine whose files are below root: "/" for this one.
func Open(root string) (*Machine, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("the root %s is no folder: %w", root, errors.Join(err, fs.ErrInvalid))
	}
	m := &Machine{root: root}
	return m, m.readJournal()
}

// real is where a file of the machine lies. Links are followed, as the machine
// would: none leads out of the root.
func (m *Machine) real(path string) (string, error) {
	where, err := securejoin.SecureJoin(m.root, path)
	if err != nil {
		return "", fmt.Errorf("finding %s below %s: %w", path, m.root, err)
	}
	return where, nil
}

// meta is what a file is besides its content.
type meta struct {
	Mode     fs.FileMode `json:"mode"`
	UID      int         `json:"uid"`
	GID      int         `json:"gid"`
	Modified time.Time   `json:"modified"`
}

// seen is a file as it was found.
type seen struct {
	path string // as the client sees it
	real string
	now  []byte // nil when there is none
	meta meta   // of now

	base      []byte // without our part; nil when there would be none
	baseMeta  meta
	untouched bool // since we wrote it
}

// maxFile bounds a configuration file, in bytes.
const maxFile = 4 << 20

// look reads a file, and what it would be without our part.
func (m *Machine) look(path string) (seen, error) {
	where, err := m.real(path)
	if err != nil {
		return seen{}, err
	}
	s := seen{path: path, real: where}
	if s.now, s.meta, err = readFile(where); err != nil {
		return s, fmt.Errorf("reading %s: %w", path, err)
	}
	s.base, s.baseMeta = s.now, s.meta
	e := m.journal.file(path)
	switch {
	case s.now == nil:
	case e == nil:
		if s.base, _, err = cutBlocks(s.now); err != nil {
			return s, fmt.Errorf("%s: %w", path, err)
		}
	case digestOf(s.now) == e.After, digestOf(s.now) == e.Was:
		s.untouched = true
		if s.base, err = m.backup(e); err != nil {
			return s, err
		}
		s.baseMeta = e.Meta
	case e.Existed && digestOf(s.now) == e.Before: // it was put back by hand
	case digestOf(s.now) == e.Bare: // our part was taken out
	default:
		rest, ok := e.without(s.now)
		if !ok {
			return s, fmt.Errorf("%s was changed since it was written, so that our part is not found in it: put it right by hand, or go back with --undo --force", path)
		}
		s.base = rest
		if !e.Existed && blank(rest) {
			s.base = nil
		}
	}
	return s, nil
}

// absent says whether an error is that there is no such file.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

// readFile reads a file with what it is besides. Without a file there is no
// error, and nil.
func readFile(name string) ([]byte, meta, error) {
	info, err := os.Stat(name)
	if absent(err) {
		return nil, meta{}, nil
	}
	switch {
	case err != nil:
		return nil, meta{}, err
	case !info.Mode().IsRegular():
		return nil, meta{}, errors.New("it is no regular file")
	case info.Size() > maxFile:
		return nil, meta{}, fmt.Errorf("it has %d bytes; a configuration has at most %d", info.Size(), maxFile)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, meta{}, err
	}
	mode := info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	what := meta{Mode: mode, UID: -1, GID: -1, Modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		what.UID, what.GID = int(stat.Uid), int(stat.Gid)
	}
	return append([]byte{}, content...), what, nil // an empty file is not nil
}

// exists says whether there is a file.
func (m *Machine) exists(path string) bool {
	where, err := m.real(path)
	if err != nil {
		return false
	}
	_, err = os.Stat(where)
	return err == nil
}

// glob returns the files that match the pattern of a path whose folder has no
// wildcards.
func (m *Machine) glob(pattern string) []string {
	dir, err := m.real(path.Dir(pattern))
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var files []string
	for _, e := range entries {
		if ok, err := path.Match(path.Base(pattern), e.Name()); err == nil && ok {
			files = append(files, path.Join(path.Dir(pattern), e.Name()))
		}
	}
	return files
}

// trees are the TOML files that match a pattern, which is relative to where it is
// written unless it is absolute. Those that cannot be read do not count.
func (m *Machine) trees(relative, pattern string) []map[string]any {
	if !strings.HasPrefix(pattern, "/") {
		pattern = relative
	}
	var all []map[string]any
	for _, file := range m.glob(pattern) {
		if s, err := m.look(file); err == nil {
			if tree, err := parseTOML(s.now); err == nil {
				all = append(all, tree)
			}
		}
	}
	return all
}
