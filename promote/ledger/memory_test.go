package ledger

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
)

// memory is a storage in memory, which counts what is read.
type memory struct {
	mu      sync.Mutex
	objects map[string][]byte
	reads   map[string]int
}

func newMemory() *memory {
	return &memory{objects: make(map[string][]byte), reads: make(map[string]int)}
}

func (m *memory) Read(_ context.Context, path string, known Version) ([]byte, Version, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.objects[path]
	if !ok {
		return nil, "", ErrNotExist
	}
	if version := hashVersion(data); version != known {
		m.reads[path]++
		return data, version, nil
	}
	return nil, "", ErrNotModified
}

func (m *memory) Create(_ context.Context, path string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if there, ok := m.objects[path]; ok && !bytes.Equal(there, data) {
		return ErrConflict
	}
	m.objects[path] = data
	return nil
}

func (m *memory) Swap(_ context.Context, path string, old Version, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var now Version
	if there, ok := m.objects[path]; ok {
		now = hashVersion(there)
	}
	if now != old {
		return ErrConflict
	}
	m.objects[path] = data
	return nil
}

// copy is another storage with the same objects.
func (m *memory) copy() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newMemory()
	c.objects = maps.Clone(m.objects)
	return c
}

// takeReads are the paths that were read since it was called last.
func (m *memory) takeReads() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	paths := slices.Sorted(maps.Keys(m.reads))
	m.reads = make(map[string]int)
	return paths
}
