package origin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hasBlob says whether a blob can be read from a repository.
func (n *names) hasBlob(ctx context.Context, repository string, d digest.Digest) (bool, error) {
	if _, ok := n.blobs.Get(link{repository, string(d)}); ok {
		return true, nil
	}
	lock := n.lock(repository)
	lock.RLock()
	defer lock.RUnlock()
	return n.readBlob(ctx, repository, d)
}

// readBlob is hasBlob with the lock held.
func (n *names) readBlob(ctx context.Context, repository string, d digest.Digest) (bool, error) {
	if _, ok := n.blobs.Get(link{repository, string(d)}); ok {
		return true, nil
	}
	_, err := n.records.Record(ctx, recordKey(blobRecords, repository, string(d)))
	if errors.Is(err, blobstore.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading whether %s has blob %s: %w", repository, d, err)
	}
	n.blobs.Add(link{clone(repository), clone(string(d))}, struct{}{})
	return true, nil
}

// setBlob makes a blob readable from a repository. The record is written also
// when it is there: its time keeps garbage collection off. It holds the lock
// shared, so that a push's blobs need not wait for each other's disk: that a
// blob is there is all that anyone remembers of it, and who takes it away holds
// the lock alone.
func (n *names) setBlob(ctx context.Context, repository string, d digest.Digest, now time.Time) error {
	lock := n.lock(repository)
	lock.RLock()
	defer lock.RUnlock()
	value := now.UTC().AppendFormat(nil, time.RFC3339)
	if err := n.records.PutRecord(ctx, recordKey(blobRecords, repository, string(d)), value); err != nil {
		return fmt.Errorf("linking blob %s to %s: %w", d, repository, err)
	}
	n.blobs.Add(link{clone(repository), clone(string(d))}, struct{}{})
	return nil
}

// blobLinked is when a blob was linked to a repository.
// Errors: blobstore.ErrNotExist.
func (n *names) blobLinked(ctx context.Context, repository string, d digest.Digest) (time.Time, error) {
	value, err := n.records.Record(ctx, recordKey(blobRecords, repository, string(d)))
	if err != nil {
		return time.Time{}, fmt.Errorf("reading when blob %s was linked to %s: %w", d, repository, err)
	}
	linked, err := time.Parse(time.RFC3339, string(value))
	if err != nil {
		return time.Time{}, fmt.Errorf("reading when blob %s was linked to %s: %w", d, repository, err)
	}
	return linked, nil
}

// deleteBlob makes a blob unreadable from a repository, with the lock held.
func (n *names) deleteBlob(ctx context.Context, repository string, d digest.Digest) error {
	n.blobs.Remove(link{repository, string(d)})
	if err := n.records.DeleteRecord(ctx, recordKey(blobRecords, repository, string(d))); err != nil {
		return fmt.Errorf("unlinking blob %s from %s: %w", d, repository, err)
	}
	return nil
}

// referrersOf is the manifests of a repository whose subject is d, in the order
// of their digests. It is not to be changed.
func (n *names) referrersOf(ctx context.Context, repository string, d digest.Digest) ([]ocispec.Descriptor, error) {
	if list, ok := n.referrers.Get(link{repository, string(d)}); ok {
		return list, nil
	}
	lock := n.lock(repository)
	lock.RLock()
	defer lock.RUnlock()
	list, err := n.readReferrers(ctx, repository, d)
	if err != nil {
		return nil, fmt.Errorf("reading the referrers of %s in %s: %w", d, repository, err)
	}
	n.referrers.Add(link{clone(repository), clone(string(d))}, list)
	return list, nil
}

func (n *names) readReferrers(ctx context.Context, repository string, d digest.Digest) ([]ocispec.Descriptor, error) {
	list := []ocispec.Descriptor{}
	for key, err := range n.records.RecordKeys(ctx, recordKey(referrerRecords, repository, string(d))) {
		if err != nil {
			return nil, err
		}
		value, err := n.records.Record(ctx, key)
		if err != nil {
			return nil, err
		}
		var descriptor ocispec.Descriptor
		if err := json.Unmarshal(value, &descriptor); err != nil {
			return nil, fmt.Errorf("record %s: %w", key, err)
		}
		_, err = n.readManifest(ctx, repository, descriptor.Digest)
		if errors.Is(err, blobstore.ErrNotExist) {
			continue // its push ended in the middle
		}
		if err != nil {
			return nil, err
		}
		list = append(list, descriptor)
	}
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return list, nil
}

func referrerKey(repository string, subject, d digest.Digest) string {
	return recordKey(referrerRecords, repository, string(subject)) + "/" + string(d)
}

// setReferrer lists a manifest as a referrer of its subject, with the lock held.
func (n *names) setReferrer(ctx context.Context, repository string, subject digest.Digest, d *ocispec.Descriptor) error {
	value, err := json.Marshal(d)
	if err == nil {
		err = n.records.PutRecord(ctx, referrerKey(repository, subject, d.Digest), value)
	}
	if err != nil {
		return fmt.Errorf("listing %s as a referrer of %s in %s: %w", d.Digest, subject, repository, err)
	}
	n.referrers.Remove(link{repository, string(subject)})
	return nil
}

// deleteReferrer undoes setReferrer, with the lock held.
func (n *names) deleteReferrer(ctx context.Context, repository string, subject, d digest.Digest) error {
	n.referrers.Remove(link{repository, string(subject)})
	if err := n.records.DeleteRecord(ctx, referrerKey(repository, subject, d)); err != nil {
		return fmt.Errorf("taking %s off the referrers of %s in %s: %w", d, subject, repository, err)
	}
	return nil
}
