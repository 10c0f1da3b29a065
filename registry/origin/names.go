package origin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/registry"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The records of a repository. Their keys are
//
//	tags/<repository>/_/<tag>                       the digest, as text
//	manifests/<repository>/_/<digest>               a manifestRecord, as JSON
//	blobs/<repository>/_/<digest>                   when it was linked, RFC 3339
//	referrers/<repository>/_/<subject>/<digest>     its descriptor, as JSON
//
// No element of a repository's name is "_", so that none of them can be taken
// for one of another repository whose name begins the same.
const (
	tagRecords      = "tags"
	manifestRecords = "manifests"
	blobRecords     = "blobs"
	referrerRecords = "referrers"
	endOfRepository = "/_"
)

// manifestRecord is what a repository knows of a manifest of its own.
type manifestRecord struct {
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"` // bytes
	Subject   digest.Digest `json:"subject,omitempty"`
	Pushed    time.Time     `json:"pushed"`
}

// Bounds of what is remembered in memory. What falls out is read again.
const (
	maxTags      = 65536
	maxManifests = 65536
	maxBlobs     = 131072
	maxLists     = 1024
	maxReferrers = 16384
)

// link is something of a repository: a digest, or a tag.
type link struct{ repository, name string }

// names is the records of all repositories, and what is remembered of them.
//
// Whoever changes records of a repository holds its lock; whoever reads one to
// remember it, or only adds a blob, holds it shared, so that nothing is
// remembered that was changed meanwhile. Methods that say so want the lock held;
// the others take it.
type names struct {
	records blobstore.Records
	seed    maphash.Seed
	locks   [256]sync.RWMutex // by repository

	tags      *lru.Cache[link, digest.Digest]
	manifests *lru.Cache[link, *registry.ManifestHead]
	blobs     *lru.Cache[link, struct{}]
	lists     *lru.Cache[string, []string]
	referrers *lru.Cache[link, []ocispec.Descriptor]
}

func newNames(records blobstore.Records) (*names, error) {
	n := &names{records: records, seed: maphash.MakeSeed()}
	var errs [5]error
	n.tags, errs[0] = lru.New[link, digest.Digest](maxTags)
	n.manifests, errs[1] = lru.New[link, *registry.ManifestHead](maxManifests)
	n.blobs, errs[2] = lru.New[link, struct{}](maxBlobs)
	n.lists, errs[3] = lru.New[string, []string](maxLists)
	n.referrers, errs[4] = lru.New[link, []ocispec.Descriptor](maxReferrers)
	return n, errors.Join(errs[:]...)
}

// lock is the lock of a repository's records.
func (n *names) lock(repository string) *sync.RWMutex {
	return &n.locks[maphash.String(n.seed, repository)%uint64(len(n.locks))]
}

func recordKey(kind, repository, name string) string {
	return kind + "/" + repository + endOfRepository + "/" + name
}

func recordPrefix(kind, repository string) string { return kind + "/" + repository + endOfRepository }

// splitKey reads a key of a kind back.
func splitKey(kind, key string) (repository, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, kind+"/")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, endOfRepository+"/")
}

// clone copies what is part of a request's URL.
func clone[S ~string](s S) S { return S(strings.Clone(string(s))) }

// tag is what a tag points to. Errors: blobstore.ErrNotExist.
func (n *names) tag(ctx context.Context, repository, tag string) (digest.Digest, error) {
	if d, ok := n.tags.Get(link{repository, tag}); ok {
		return d, nil
	}
	lock := n.lock(repository)
	lock.RLock()
	defer lock.RUnlock()
	return n.readTag(ctx, repository, tag)
}

// readTag is tag with the lock held.
func (n *names) readTag(ctx context.Context, repository, tag string) (digest.Digest, error) {
	key := link{repository, tag}
	if d, ok := n.tags.Get(key); ok {
		return d, nil
	}
	value, err := n.records.Record(ctx, recordKey(tagRecords, repository, tag))
	if err != nil {
		return "", fmt.Errorf("reading tag %s of %s: %w", tag, repository, err)
	}
	d := digest.Digest(value)
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("reading tag %s of %s: its record holds %.80q: %w", tag, repository, value, err)
	}
	n.tags.Add(link{clone(repository), clone(tag)}, d)
	return d, nil
}

// setTag points a tag to a manifest, with the lock held.
func (n *names) setTag(ctx context.Context, repository, tag string, d digest.Digest) error {
	key := link{clone(repository), clone(tag)}
	if now, ok := n.tags.Get(key); ok && now == d {
		return nil
	}
	// After an error, either value may be there.
	n.tags.Remove(key)
	n.lists.Remove(repository)
	if err := n.records.PutRecord(ctx, recordKey(tagRecords, repository, tag), []byte(d)); err != nil {
		return fmt.Errorf("setting tag %s of %s: %w", tag, repository, err)
	}
	n.tags.Add(key, clone(d))
	return nil
}

// deleteTag removes a tag, with the lock held.
func (n *names) deleteTag(ctx context.Context, repository, tag string) error {
	n.tags.Remove(link{repository, tag})
	n.lists.Remove(repository)
	if err := n.records.DeleteRecord(ctx, recordKey(tagRecords, repository, tag)); err != nil {
		return fmt.Errorf("deleting tag %s of %s: %w", tag, repository, err)
	}
	return nil
}

// tagList is all tags of a repository, sorted. It is not to be changed.
func (n *names) tagList(ctx context.Context, repository string) ([]string, error) {
	if list, ok := n.lists.Get(repository); ok {
		return list, nil
	}
	lock := n.lock(repository)
	lock.RLock()
	defer lock.RUnlock()
	return n.readTagList(ctx, repository)
}

// readTagList is tagList with the lock held.
func (n *names) readTagList(ctx context.Context, repository string) ([]string, error) {
	tags, err := n.list(ctx, tagRecords, repository)
	if err != nil {
		return nil, err
	}
	n.lists.Add(clone(repository), tags)
	return tags, nil
}

// list is the names of a kind that a repository has, sorted.
func (n *names) list(ctx context.Context, kind, repository string) ([]string, error) {
	list := []string{}
	for key, err := range n.records.RecordKeys(ctx, recordPrefix(kind, repository)) {
		if err != nil {
			return nil, fmt.Errorf("listing the %s of %s: %w", kind, repository, err)
		}
		if of, name, ok := splitKey(kind, key); ok && of == repository {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list, nil
}

// known says whether a repository has a manifest or a blob.
func (n *names) known(ctx context.Context, repository string) (bool, error) {
	for _, kind := range []string{manifestRecords, blobRecords} {
		for _, err := range n.records.RecordKeys(ctx, recordPrefix(kind, repository)) {
			if err != nil {
				return false, fmt.Errorf("listing the %s of %s: %w", kind, repository, err)
			}
			return true, nil
		}
	}
	return false, nil
}

// manifest is the head of a manifest of a repository.
// Errors: blobstore.ErrNotExist.
func (n *names) manifest(ctx context.Context, repository string, d digest.Digest) (*registry.ManifestHead, error) {
	if head, ok := n.manifests.Get(link{repository, string(d)}); ok {
		return head, nil
	}
	lock := n.lock(repository)
	lock.RLock()
	defer lock.RUnlock()
	return n.readManifest(ctx, repository, d)
}

// readManifest is manifest with the lock held.
func (n *names) readManifest(ctx context.Context, repository string, d digest.Digest) (*registry.ManifestHead, error) {
	if head, ok := n.manifests.Get(link{repository, string(d)}); ok {
		return head, nil
	}
	record, err := n.manifestRecord(ctx, repository, d)
	if err != nil {
		return nil, err
	}
	head := registry.NewManifestHead(record.MediaType, clone(d), record.Size)
	n.manifests.Add(link{clone(repository), string(head.Digest)}, head)
	return head, nil
}

// manifestRecord reads what a repository knows of a manifest.
// Errors: blobstore.ErrNotExist.
func (n *names) manifestRecord(ctx context.Context, repository string, d digest.Digest) (record manifestRecord, err error) {
	value, err := n.records.Record(ctx, recordKey(manifestRecords, repository, string(d)))
	if err == nil {
		err = json.Unmarshal(value, &record)
	}
	if err != nil {
		return record, fmt.Errorf("reading the record of manifest %s of %s: %w", d, repository, err)
	}
	return record, nil
}

// setManifest makes a manifest one of the repository, with the lock held.
func (n *names) setManifest(ctx context.Context, repository string, d digest.Digest, record *manifestRecord) error {
	value, err := json.Marshal(record)
	if err == nil {
		err = n.records.PutRecord(ctx, recordKey(manifestRecords, repository, string(d)), value)
	}
	if err != nil {
		return fmt.Errorf("recording manifest %s of %s: %w", d, repository, err)
	}
	n.manifests.Remove(link{repository, string(d)}) // the media type may be another
	return nil
}

// deleteManifest takes a manifest out of the repository, with the lock held.
func (n *names) deleteManifest(ctx context.Context, repository string, d digest.Digest) error {
	n.manifests.Remove(link{repository, string(d)})
	if err := n.records.DeleteRecord(ctx, recordKey(manifestRecords, repository, string(d))); err != nil {
		return fmt.Errorf("deleting the record of manifest %s of %s: %w", d, repository, err)
	}
	return nil
}
