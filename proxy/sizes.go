package proxy

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	lru "github.com/hashicorp/golang-lru/v2"
)

// sizes remembers, for the blobs that recently seen manifests name, how large
// they are, in bytes: a HEAD for a blob that is not here yet needs no upstream.
type sizes struct {
	cache *lru.Cache[nameKey, int64]
}

// described is the part of a manifest that names other content. It covers
// image and artifact manifests, indexes and their docker forms.
type described struct {
	MediaType string               `json:"mediaType"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Blobs     []ocispec.Descriptor `json:"blobs"`
}

// learn takes the descriptors out of a manifest of a repository. A manifest of
// another form names nothing.
func (s *sizes) learn(up *upstreamState, repo string, manifest []byte) {
	var m described
	if json.Unmarshal(manifest, &m) != nil {
		return
	}
	if m.Config != nil {
		s.add(up, repo, *m.Config)
	}
	for _, d := range m.Layers {
		s.add(up, repo, d)
	}
	for _, d := range m.Blobs {
		s.add(up, repo, d)
	}
}

func (s *sizes) add(up *upstreamState, repo string, d ocispec.Descriptor) {
	if d.Size < 0 || d.Digest.Validate() != nil {
		return
	}
	s.cache.Add(nameKey{up, repo, string(d.Digest)}.clone(), d.Size)
}

// of returns a blob's size, or -1.
func (s *sizes) of(up *upstreamState, repo string, d digest.Digest) int64 {
	if size, ok := s.cache.Get(nameKey{up, repo, string(d)}); ok {
		return size
	}
	return -1
}

func declaredMediaType(manifest []byte) string {
	var m described
	if json.Unmarshal(manifest, &m) != nil || m.MediaType == "" {
		return "application/octet-stream"
	}
	return m.MediaType
}
