package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"github.com/minio/minio-go/v7"
)

const (
	// minPart is the size of the parts, in bytes, in which larger files are
	// sent, and the most that is held in memory for one.
	minPart = 16 << 20
	// maxParts is the most that S3 puts together.
	maxParts = 10_000
)

// Put implements [FileStore]. The file's sha256 is kept as metadata. What is not
// to be overwritten is protected by the server itself (If-None-Match), except at
// Google.
func (s *bucketStore) Put(ctx context.Context, file FileInfo, overwrite bool, r io.Reader) error {
	key, err := s.key(file.Name)
	if err != nil {
		return err
	}
	if done, err := s.client.compare(ctx, s, file, overwrite); done || err != nil {
		return err
	}
	release, err := takeSlots(ctx, s.host.sending)
	if err != nil {
		return err
	}
	defer release()
	content := newVerifiedFile(file, &contextReader{ctx, r})
	options := minio.PutObjectOptions{
		UserMetadata: map[string]string{sumMetadata: file.SHA256.Encoded()},
		// Each request carries the hash of its body in a header instead:
		// trailing checksums, which minio-go prefers, are refused by some
		// servers over plain HTTP, and this one every server compares.
		DisableContentSha256: true,
	}
	if s.conditional && !overwrite {
		options.SetMatchETagExcept("*")
	}
	if file.Size <= minPart {
		err = s.putWhole(ctx, key, file, content, options)
	} else {
		err = s.putParts(ctx, key, file, content, options)
	}
	if errors.Is(err, ErrConflict) {
		_, err = s.client.compare(ctx, s, file, false)
	}
	return writing(err)
}

// putWhole sends a file in one request. It is verified before.
func (s *bucketStore) putWhole(ctx context.Context, key string, file FileInfo, r io.Reader, options minio.PutObjectOptions) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return s.call(ctx, "writing "+key, func() error {
		body := newLent(bytes.NewReader(content))
		defer body.takeBack()
		_, err := s.core.PutObject(ctx, s.bucket, key, body, file.Size, "", file.SHA256.Encoded(), options)
		return err
	})
}

// putParts sends a file in parts, of which the object is made when all are
// verified. When that fails, no part remains.
func (s *bucketStore) putParts(ctx context.Context, key string, file FileInfo, r io.Reader, options minio.PutObjectOptions) error {
	var upload string
	err := s.call(ctx, "starting to write "+key, func() (err error) {
		upload, err = s.core.NewMultipartUpload(ctx, s.bucket, key, minio.PutObjectOptions{UserMetadata: options.UserMetadata})
		return err
	})
	if err != nil {
		return err
	}
	parts, err := s.sendParts(ctx, key, upload, file, r)
	if err == nil {
		err = s.call(ctx, "completing "+key, func() error {
			// The condition has to be told here, not when the upload starts.
			complete := options
			complete.UserMetadata = nil
			_, err := s.core.CompleteMultipartUpload(ctx, s.bucket, key, upload, parts, complete)
			return err
		})
		if errors.Is(err, ErrNotFound) { // it was completed, and only the answer was lost
			if there, compareErr := s.client.compare(ctx, s, file, false); there || errors.Is(compareErr, ErrConflict) {
				return compareErr
			}
		}
	}
	if err != nil {
		s.abort(ctx, key, upload)
	}
	return err
}

func (s *bucketStore) sendParts(ctx context.Context, key, upload string, file FileInfo, r io.Reader) ([]minio.CompletePart, error) {
	buffer := make([]byte, max(minPart, (file.Size+maxParts-1)/maxParts))
	var parts []minio.CompletePart
	for left := file.Size; left > 0; {
		part := buffer[:min(left, int64(len(buffer)))]
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, err
		}
		left -= int64(len(part))
		sum := sha256.Sum256(part)
		err := s.call(ctx, "writing a part of "+key, func() error {
			body := newLent(bytes.NewReader(part))
			defer body.takeBack()
			sent, err := s.core.PutObjectPart(ctx, s.bucket, key, upload, len(parts)+1, body, int64(len(part)),
				minio.PutObjectPartOptions{Sha256Hex: hex.EncodeToString(sum[:]), DisableContentSha256: true})
			if err == nil {
				parts = append(parts, minio.CompletePart{PartNumber: sent.PartNumber, ETag: sent.ETag})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// abort removes the parts of an upload, also when ctx is over.
func (s *bucketStore) abort(ctx context.Context, key, upload string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.host.cfg.ResponseTimeout)
	defer cancel()
	if err := s.core.AbortMultipartUpload(ctx, s.bucket, key, upload); err != nil {
		s.host.log.Warn("parts of an unfinished upload remain", "store", s.url, "key", key, "upload", upload, "error", s.explain(ctx, "aborting", err))
	}
}
