package bundle

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Handler serves a bundle as a registry, whose repositories are UPSTREAM/REPOSITORY, and
// as a file server, with UPSTREAM/PATH: for an import to read from.
func (r *Reader) Handler() http.Handler {
	s := served{r}
	images, files := registry.NewHandler(registry.Config{Backend: s}), registry.NewFileHandler(s, registry.Config{})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if registry.IsAPI(req.URL.Path) {
			images.ServeHTTP(w, req)
			return
		}
		files.ServeHTTP(w, req)
	})
}

// served answers requests from a bundle. It implements [registry.Backend] and
// [registry.FileBackend].
type served struct{ *Reader }

// in are the images of a request's repository.
func (s served) in(req *registry.Request) ([]*Image, error) {
	upstream, repository, _ := strings.Cut(req.Repository, "/")
	found := s.images(upstream, repository)
	if len(found) == 0 {
		return nil, registry.Errorf(errcode.ErrorCodeNameUnknown, "the bundle has no images of %s", req.Repository)
	}
	return found, nil
}

// Manifest implements [registry.Backend].
func (s served) Manifest(_ context.Context, req *registry.Request) (*registry.Manifest, registry.CacheStatus, error) {
	images, err := s.in(req)
	if err != nil {
		return nil, registry.CacheStatus{}, err
	}
	d := req.Digest
	for _, i := range images {
		if req.Tag != "" && i.Tag == req.Tag {
			d = i.Root.Digest
		}
		for _, a := range i.Attached {
			if req.Tag != "" && a.Tag == req.Tag {
				d = a.Descriptor.Digest
			}
		}
	}
	if _, ok := s.entries[blobPath(d)]; !ok {
		return nil, registry.CacheStatus{}, registry.Errorf(errcode.ErrorCodeManifestUnknown, "the bundle has no %s of %s", req.Tag+string(req.Digest), req.Repository)
	}
	body, err := s.read(blobPath(d), registry.MaxManifestSize)
	if err != nil {
		return nil, registry.CacheStatus{}, err
	}
	return &registry.Manifest{ManifestHead: registry.NewManifestHead(mediaType(images, d, body), d, int64(len(body))), Body: body}, registry.CacheStatus{}, nil
}

// mediaType is what a manifest is called by what names it, or by itself.
func mediaType(images []*Image, d digest.Digest, body []byte) string {
	for _, i := range images {
		if i.Root.Digest == d {
			return i.Root.MediaType
		}
		for _, a := range i.Attached {
			if a.Descriptor.Digest == d {
				return a.Descriptor.MediaType
			}
		}
	}
	var m struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(body, &m); {
	case err == nil && m.MediaType != "":
		return m.MediaType
	case err == nil && m.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

// Blob implements [registry.Backend].
func (s served) Blob(_ context.Context, req *registry.Request) (registry.Blob, registry.CacheStatus, error) {
	section, ok := s.Content(req.Digest)
	if !ok {
		return registry.Blob{}, registry.CacheStatus{}, registry.Errorf(errcode.ErrorCodeBlobUnknown, "the bundle has no %s", req.Digest)
	}
	return registry.Blob{Digest: req.Digest, Size: section.Size(), Content: content{section}}, registry.CacheStatus{}, nil
}

// Tags implements [registry.Backend].
func (s served) Tags(_ context.Context, req *registry.Request) ([]string, bool, registry.CacheStatus, error) {
	images, err := s.in(req)
	if err != nil {
		return nil, false, registry.CacheStatus{}, err
	}
	var tags []string
	add := func(tag string) {
		if tag > req.Last && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	for _, i := range images {
		add(i.Tag)
		for _, a := range i.Attached {
			add(a.Tag)
		}
	}
	slices.Sort(tags)
	if req.N >= 0 && req.N < len(tags) {
		return tags[:req.N], req.N > 0, registry.CacheStatus{}, nil
	}
	return tags, false, registry.CacheStatus{}, nil
}

// Referrers implements [registry.Backend].
func (s served) Referrers(_ context.Context, req *registry.Request) ([]ocispec.Descriptor, registry.CacheStatus, error) {
	images, err := s.in(req)
	if err != nil {
		return nil, registry.CacheStatus{}, err
	}
	found := []ocispec.Descriptor{}
	for _, i := range images {
		for _, a := range i.Attached {
			is := func(d ocispec.Descriptor) bool { return d.Digest == a.Descriptor.Digest }
			if a.Subject == req.Digest && a.Tag == "" && (req.ArtifactType == "" || req.ArtifactType == a.Descriptor.ArtifactType) && !slices.ContainsFunc(found, is) {
				found = append(found, a.Descriptor)
			}
		}
	}
	return found, registry.CacheStatus{}, nil
}

// File implements [registry.FileBackend].
func (s served) File(_ context.Context, req *registry.FileRequest) (registry.File, registry.CacheStatus, error) {
	path, err := url.PathUnescape(req.Path)
	if err == nil {
		for i := range s.Contents.Files {
			f := &s.Contents.Files[i]
			section, ok := s.Content(f.Digest)
			if f.Upstream+"/"+f.Path != path || !ok {
				continue
			}
			return registry.File{
				Digest: f.Digest, Size: section.Size(), ETag: `"` + string(f.Digest) + `"`, Modified: s.Contents.Created,
				Header: http.Header{"Content-Type": {"application/octet-stream"}}, Content: content{section},
			}, registry.CacheStatus{}, nil
		}
	}
	return registry.File{}, registry.CacheStatus{}, registry.Errorf(errcode.ErrorCodeNameUnknown, "the bundle has no file %s", req.Path)
}

// content is a part of the bundle.
type content struct{ *io.SectionReader }

// WriteRange implements [registry.Content].
func (c content) WriteRange(_ context.Context, w io.Writer, offset, length int64) (int64, error) {
	if length < 0 {
		length = c.Size() - offset
	}
	return io.Copy(w, io.NewSectionReader(c.SectionReader, offset, length))
}

// Ready says that nothing has to be waited for.
func (c content) Ready(int64, int64) bool { return true }

// Close does nothing: the parts are open for all.
func (c content) Close() error { return nil }
