package blobstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"entrepot/blobstore/pause"

	"github.com/minio/minio-go/v7"
)

const (
	// sendAttempts is how often a piece is sent at most, sendBackoff the pause
	// after the first attempt; it doubles.
	sendAttempts = 3
	sendBackoff  = 150 * time.Millisecond
	// completeTimeout bounds the wait for S3 to put parts together, for which
	// some servers copy all of them, and AWS may take minutes.
	completeTimeout = 5 * time.Minute
)

// putObject writes an object, at once or not at all.
func (s *S3) putObject(ctx context.Context, key string, p piece) error {
	return s.send(ctx, p, func(ctx context.Context, body io.Reader) error {
		// The hash in a header: trailing checksums, which minio-go prefers, are
		// refused by some servers over plain HTTP, and this one every server
		// compares with what it received.
		_, err := s.core.PutObject(ctx, s.cfg.Bucket, key, body, p.size, "", hex.EncodeToString(p.sum[:]),
			minio.PutObjectOptions{DisableContentSha256: true})
		return err
	})
}

// putParts writes an object from the pieces that write adds, all but the last
// of which have cfg.PartSize bytes or more. When write fails, or anything
// after it, no part of the object remains.
func (s *S3) putParts(ctx context.Context, key string, write func(add func(piece) error) error) error {
	var id string
	err := s.call(ctx, s.cfg.Timeout, func(ctx context.Context, _ *watchdog) (err error) {
		id, err = s.core.NewMultipartUpload(ctx, s.cfg.Bucket, key, minio.PutObjectOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("starting a multipart upload: %w", err)
	}
	var parts []minio.CompletePart
	err = write(func(p piece) error {
		part, err := s.putPart(ctx, key, id, len(parts)+1, p)
		if err != nil {
			return fmt.Errorf("sending part %d: %w", len(parts)+1, err)
		}
		parts = append(parts, minio.CompletePart{PartNumber: part.PartNumber, ETag: part.ETag})
		return nil
	})
	if err == nil {
		err = s.complete(ctx, key, id, parts)
	}
	if err != nil {
		s.abort(ctx, key, id)
	}
	return err
}

func (s *S3) putPart(ctx context.Context, key, id string, number int, p piece) (part minio.ObjectPart, err error) {
	err = s.send(ctx, p, func(ctx context.Context, body io.Reader) (err error) {
		part, err = s.core.PutObjectPart(ctx, s.cfg.Bucket, key, id, number, body, p.size, minio.PutObjectPartOptions{
			Sha256Hex: hex.EncodeToString(p.sum[:]), DisableContentSha256: true,
		})
		return err
	})
	return part, err
}

// complete makes the object of its parts.
func (s *S3) complete(ctx context.Context, key, id string, parts []minio.CompletePart) error {
	err := s.call(ctx, completeTimeout, func(ctx context.Context, _ *watchdog) error {
		_, err := s.core.CompleteMultipartUpload(ctx, s.cfg.Bucket, key, id, parts, minio.PutObjectOptions{})
		return err
	})
	if err == nil {
		return nil
	}
	// The upload is gone when it was completed before, and only the answer was
	// lost. Under this key there is nothing but verified content.
	if isNoSuchUpload(err) {
		if s.call(ctx, s.cfg.Timeout, func(ctx context.Context, _ *watchdog) error {
			_, err := s.client.StatObject(ctx, s.cfg.Bucket, key, minio.StatObjectOptions{})
			return err
		}) == nil {
			return nil
		}
	}
	return fmt.Errorf("completing the multipart upload: %w", err)
}

// abort removes the parts of an upload, also when ctx is over.
func (s *S3) abort(ctx context.Context, key, id string) {
	err := s.call(context.WithoutCancel(ctx), s.cfg.Timeout, func(ctx context.Context, _ *watchdog) error {
		return s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, key, id)
	})
	if err == nil || isNoSuchUpload(err) {
		return
	}
	s.log.Warn("parts of an unfinished upload remain in S3",
		slog.String("bucket", s.cfg.Bucket), slog.String("key", key), slog.String("upload", id), slog.Any("error", err))
}

func isNoSuchUpload(err error) bool {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	return ok && response.Code == minio.NoSuchUpload
}

// send makes a request with a piece as its body, again when it fails for a
// reason that may pass.
//
// minio-go would do so with bodies that can seek. But an HTTP transport may
// still be reading a body when it has answered already; minio-go then seeks in
// what is being read. Here each attempt has a body of its own.
func (s *S3) send(ctx context.Context, p piece, request func(ctx context.Context, body io.Reader) error) error {
	for attempt := 1; ; attempt++ {
		err := s.call(ctx, s.cfg.Timeout, func(ctx context.Context, w *watchdog) error {
			body := &sentBody{r: io.NewSectionReader(p.at, p.offset, p.size), watchdog: w}
			defer body.detach()
			return request(ctx, body)
		})
		if err == nil || ctx.Err() != nil || attempt == sendAttempts || !isTemporary(err) {
			return err
		}
		if pause.For(ctx, sendBackoff<<(attempt-1)) != nil {
			return ctx.Err()
		}
	}
}

// sentBody is the body of one request. Each read by the transport is progress.
type sentBody struct {
	watchdog *watchdog

	mu sync.Mutex
	r  io.Reader // nil once detached
}

var errDetached = errors.New("the request is over")

func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, errDetached
	}
	b.watchdog.progress()
	return b.r.Read(p)
}

// detach makes what the body was read from free for other use, though the
// transport may not be done with the body.
func (b *sentBody) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.r = nil
}
