package blobstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

const s3RecordsPath = "records/"

// Record returns a value; see [Records].
func (s *S3) Record(ctx context.Context, key string) ([]byte, error) {
	object, err := s.recordObject(key)
	if err != nil {
		return nil, err
	}
	value, err := s.readRecord(ctx, object)
	if err != nil {
		return nil, fmt.Errorf("record %q: %w", key, err)
	}
	return value, nil
}

func (s *S3) readRecord(ctx context.Context, object string) ([]byte, error) {
	body, info, err := s.get(ctx, object, 0, -1)
	if err != nil {
		return nil, err
	}
	if info.Size > MaxRecordSize {
		return nil, errors.Join(
			fmt.Errorf("it has %d bytes, more than the %d allowed", info.Size, MaxRecordSize), body.Close())
	}
	value := make([]byte, info.Size)
	_, err = io.ReadFull(body, value)
	return value, errors.Join(err, body.Close())
}

// PutRecord sets a value; see [Records].
func (s *S3) PutRecord(ctx context.Context, key string, value []byte) error {
	object, err := s.recordObject(key)
	if err != nil {
		return err
	}
	if len(value) > MaxRecordSize {
		return fmt.Errorf("record %q has %d bytes, more than the %d allowed", key, len(value), MaxRecordSize)
	}
	if err := s.putBytes(ctx, object, value); err != nil {
		return fmt.Errorf("storing record %q: %w", key, err)
	}
	return nil
}

// putBytes writes an object in one request.
func (s *S3) putBytes(ctx context.Context, key string, value []byte) error {
	return s.putObject(ctx, key, piece{bytes.NewReader(value), 0, int64(len(value)), sha256.Sum256(value)})
}

// DeleteRecord removes a record; see [Records].
func (s *S3) DeleteRecord(ctx context.Context, key string) error {
	object, err := s.recordObject(key)
	if err != nil {
		return err
	}
	if err := s.remove(ctx, object); err != nil {
		return fmt.Errorf("deleting record %q: %w", key, err)
	}
	return nil
}

// RecordKeys lists keys; see [Records]. All keys are held in memory, since
// S3 lists them in the order of their escaped form.
func (s *S3) RecordKeys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		keys, err := s.recordKeys(ctx, prefix)
		if err != nil {
			yield("", fmt.Errorf("listing records below %q: %w", prefix, err))
			return
		}
		for _, key := range keys {
			if !yield(key, nil) {
				return
			}
		}
	}
}

func (s *S3) recordKeys(ctx context.Context, prefix string) ([]string, error) {
	if prefix != "" {
		if err := checkKey(prefix); err != nil {
			return nil, err
		}
	}
	var keys []string
	for object, err := range s.list(ctx, s3RecordsPath+recordDir(prefix)) {
		if err != nil {
			return nil, err
		}
		if key, ok := recordKey(strings.TrimPrefix(object.Key, s.prefix+s3RecordsPath)); ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// removers is how many objects are deleted at once.
const removers = 8

// TrimRecords deletes records as [Dir.TrimRecords] does, by when they were written: a
// bucket does not say when they were read.
func (s *S3) TrimRecords(ctx context.Context, prefix string, most int, spare func(key string) bool) (left, deleted int, err error) {
	if err := checkKey(prefix); err != nil {
		return 0, 0, err
	}
	var removing errgroup.Group
	removing.SetLimit(removers)
	walk := func(record func(key string, modified int64) error) error {
		for object, err := range s.list(ctx, s3RecordsPath+recordDir(prefix)) {
			if err != nil {
				return fmt.Errorf("listing records below %q: %w", prefix, err)
			}
			key, ok := recordKey(strings.TrimPrefix(object.Key, s.prefix+s3RecordsPath))
			if !ok {
				continue
			}
			if err := record(key, object.LastModified.UnixNano()); err != nil {
				return err
			}
		}
		return nil
	}
	left, deleted, err = trim(walk, most, spare, func(key string) error {
		removing.Go(func() error { return s.DeleteRecord(ctx, key) })
		return ctx.Err()
	})
	return left, deleted, errors.Join(err, removing.Wait())
}

// recordObject is the object of a record. Errors: ErrInvalidKey, also for a
// key that is too long for S3.
func (s *S3) recordObject(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	object := s.prefix + s3RecordsPath + recordPath(key)
	if len(object) > maxS3Key {
		return "", fmt.Errorf("%w: %.160q… makes an object name of %d bytes, S3 takes %d", ErrInvalidKey, key, len(object), maxS3Key)
	}
	return object, nil
}
