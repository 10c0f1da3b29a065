package blobstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	tempPattern   = "tmp-*"
	partialSuffix = ".partial"
)

// spool is the directory of files that are being written: temporary ones,
// which mean nothing to the next process, and partials, which it may resume.
type spool struct {
	path  string
	bytes atomic.Int64 // of all files, except those of records

	mu       sync.Mutex
	partials map[string]*spooled // by raw digest
}

// spooled is a partial on the disk. Its fields are guarded by spool.mu.
type spooled struct {
	size int64 // bytes; of the time it was last closed
	used time.Time
	open bool
}

// create makes a temporary file.
func (s *spool) create() (*os.File, error) {
	file, err := os.CreateTemp(s.path, tempPattern)
	return file, noSpace(err)
}

// partialFile is the path of the partial of a digest, given its raw value.
func (s *spool) partialFile(raw string) string {
	return filepath.Join(s.path, strings.Replace(string(rawDigest(raw)), ":", "-", 1)+partialSuffix)
}

// load finds the partials that a process before this one left, and removes
// those last written before oldest, and whatever else is there.
func (s *spool) load(oldest time.Time) error {
	names, err := os.ReadDir(s.path)
	if err != nil {
		return err
	}
	s.partials = map[string]*spooled{}
	for _, name := range names {
		path := filepath.Join(s.path, name.Name())
		raw, ok := partialDigest(name.Name())
		info, err := name.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !ok || !info.Mode().IsRegular() || info.ModTime().Before(oldest) {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			continue
		}
		// A process that died may have left more room than bytes.
		err = errors.Join(os.Truncate(path, info.Size()), os.Chtimes(path, time.Time{}, info.ModTime()))
		if err != nil {
			return err
		}
		s.partials[raw] = &spooled{size: info.Size(), used: info.ModTime()}
		s.bytes.Add(info.Size())
	}
	return nil
}

// partialDigest is the raw digest that the name of a partial holds.
func partialDigest(name string) (string, bool) {
	text, ok := strings.CutSuffix(name, partialSuffix)
	if !ok {
		return "", false
	}
	sum, err := parseDigest(digest.Digest(strings.Replace(text, "-", ":", 1)))
	if err != nil {
		return "", false
	}
	return string(sum.bytes()), true
}

// open opens the file of a partial, new or left by an earlier one, which is
// nobody else's until closed or forgotten. added is by how many bytes it is
// longer than was known. Errors: ErrPartialOpen.
func (s *spool) open(raw string) (file *os.File, size, added int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.partials[raw]
	if p == nil {
		p = &spooled{}
	}
	if p.open {
		return nil, 0, 0, ErrPartialOpen
	}
	file, err = os.OpenFile(s.partialFile(raw), os.O_RDWR|os.O_CREATE|os.O_APPEND, fileMode)
	if err != nil {
		return nil, 0, 0, noSpace(err)
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, 0, 0, err
	}
	added = info.Size() - p.size
	p.size, p.open = info.Size(), true
	s.partials[raw] = p
	return file, p.size, added, nil
}

// close makes an open partial an idle one.
func (s *spool) close(raw string, size int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*s.partials[raw] = spooled{size: size, used: now}
}

// forget ends an open partial that has no file any more.
func (s *spool) forget(raw string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.partials, raw)
}

// oldestIdle is the raw digest of the idle partial used longest ago, or "".
// Partials are few: one for each transfer that was given up.
func (s *spool) oldestIdle() (raw string, used time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, p := range s.partials {
		if !p.open && (raw == "" || p.used.Before(used)) {
			raw, used = key, p.used
		}
	}
	return raw, used
}

// removeIdle removes a partial, unless it was opened or removed meanwhile.
func (s *spool) removeIdle(raw string) (size int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.partials[raw]
	if p == nil || p.open {
		return 0, false
	}
	_ = os.Remove(s.partialFile(raw)) // what is left is found at the next open
	delete(s.partials, raw)
	return p.size, true
}
