package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
)

// Staged is a storage whose writes wait, in memory, until all that they are about is in
// its place: it reads as if they were written, and the storage below has none of them
// before Commit.
type Staged struct {
	below Storage

	mu      sync.Mutex
	waiting map[string][]byte  // by path
	created []string           // of them, in their order
	swapped map[string]Version // of them; what is below has these versions
}

// NewStaged stages what is written to a storage.
func NewStaged(below Storage) *Staged {
	return &Staged{below: below, waiting: map[string][]byte{}, swapped: map[string]Version{}}
}

func stagedVersion(data []byte) Version { return "staged " + hashVersion(data) }

// Read is [Reader].
func (s *Staged) Read(ctx context.Context, path string, known Version) ([]byte, Version, error) {
	s.mu.Lock()
	data, ok := s.waiting[path]
	s.mu.Unlock()
	switch {
	case !ok:
		return s.below.Read(ctx, path, known)
	case stagedVersion(data) == known:
		return nil, "", fmt.Errorf("reading %s: %w", path, ErrNotModified)
	case int64(len(data)) > maxSize(path):
		return nil, "", fmt.Errorf("reading %s: %w", path, tooLarge(maxSize(path)))
	}
	return data, stagedVersion(data), nil
}

// Create is [Storage].
func (s *Staged) Create(ctx context.Context, path string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	there, ok := s.waiting[path]
	if !ok {
		var err error
		if there, _, err = s.below.Read(ctx, path, ""); errors.Is(err, ErrNotExist) {
			s.waiting[path] = bytes.Clone(data)
			s.created = append(s.created, path)
			return nil
		} else if err != nil {
			return err
		}
	}
	if !bytes.Equal(there, data) {
		return fmt.Errorf("writing %s: %w", path, ErrConflict)
	}
	return nil
}

// Swap is [Storage].
func (s *Staged) Swap(ctx context.Context, path string, old Version, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if there, ok := s.waiting[path]; ok {
		if stagedVersion(there) != old {
			return fmt.Errorf("replacing %s: %w", path, ErrConflict)
		}
	} else {
		_, now, err := s.below.Read(ctx, path, "")
		if err != nil && !errors.Is(err, ErrNotExist) {
			return err
		}
		if now != old {
			return fmt.Errorf("replacing %s: %w", path, ErrConflict)
		}
		s.swapped[path] = old
	}
	s.waiting[path] = bytes.Clone(data)
	return nil
}

// Commit writes what waited, and last what was swapped, which names the rest. After an
// error it can be called again. Errors: those of the storage below; ErrConflict when
// somebody else wrote there meanwhile.
func (s *Staged) Commit(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; len(s.created) > 0; s.created = s.created[1:] {
		path := s.created[0]
		if err := s.below.Create(ctx, path, s.waiting[path]); err != nil {
			return err
		}
		delete(s.waiting, path)
	}
	for path, old := range s.swapped {
		if err := s.below.Swap(ctx, path, old, s.waiting[path]); err != nil {
			return err
		}
		delete(s.swapped, path)
		delete(s.waiting, path)
	}
	return nil
}
