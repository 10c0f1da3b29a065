package blobstore

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/opencontainers/go-digest"
)

// MaxMemoryBlob is the most bytes a blob may have to be kept in [Memory]: the
// most that a manifest may have.
const MaxMemoryBlob = 4 << 20

// Memory is a bounded cache of manifests and small blobs. It is never the only
// copy: what is added may be dropped, at once or later.
type Memory struct {
	cache *ristretto.Cache[string, memoryBlob]
}

// memoryBlob is a cached blob. The cache knows only a part of the digest.
type memoryBlob struct {
	digest digest.Digest
	bytes  []byte
}

// memoryOverhead is about what the cache and the digest cost for each blob, in
// bytes, above its content.
const memoryOverhead = 256

// NewMemory makes a cache of at most maxBytes, which is more than 0.
func NewMemory(maxBytes int64) (*Memory, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("memory tier of %d bytes: want more than 0", maxBytes)
	}
	// Ristretto wants ten counters, of about 3 bytes each, for each value of a
	// full cache. Manifests have about 2 KiB.
	const meanBlob, countersPerBlob, fewest, most = 2 << 10, 10, 1000, 10_000_000
	cache, err := ristretto.NewCache(&ristretto.Config[string, memoryBlob]{
		NumCounters: min(max(maxBytes/meanBlob*countersPerBlob, fewest), most),
		MaxCost:     maxBytes,
		BufferItems: 64, // as ristretto advises
		KeyToHash:   memoryKey,
	})
	if err != nil {
		return nil, fmt.Errorf("making the memory tier: %w", err)
	}
	return &Memory{cache: cache}, nil
}

// memoryKey takes 128 bits of the digest, which is as good a hash as any.
func memoryKey(d string) (key, conflict uint64) {
	s, err := parseDigest(digest.Digest(d))
	if err != nil {
		return 0, 0 // Add refuses it, so there is nothing under it
	}
	return binary.LittleEndian.Uint64(s.raw[:]), binary.LittleEndian.Uint64(s.raw[8:])
}

// Get returns a blob, which the caller must not change.
func (m *Memory) Get(d digest.Digest) ([]byte, bool) {
	blob, ok := m.cache.Get(string(d))
	// Whoever forges 128 bits of a digest must not get the content of another.
	if !ok || blob.digest != d {
		return nil, false
	}
	return blob.bytes, true
}

// Add offers a blob whose digest was verified; neither the caller nor anyone
// else changes b afterwards. It is ignored when it has more than MaxMemoryBlob
// bytes, when its digest is malformed, or when the cache holds better.
func (m *Memory) Add(d digest.Digest, b []byte) {
	if len(b) > MaxMemoryBlob || checkDigest(d) != nil {
		return
	}
	m.cache.Set(string(d), memoryBlob{digest: d, bytes: b}, int64(len(b))+memoryOverhead)
}

// Remove forgets a blob.
func (m *Memory) Remove(d digest.Digest) {
	m.cache.Del(string(d))
}

// Usage tells how many of its bytes the cache uses, about, and may use.
func (m *Memory) Usage() (bytes, limit int64) {
	limit = m.cache.MaxCost()
	return limit - m.cache.RemainingCost(), limit
}

// Close ends the cache, which nobody uses any more.
func (m *Memory) Close() {
	m.cache.Close()
}
