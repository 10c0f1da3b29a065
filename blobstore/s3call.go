package blobstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

// watchdog cancels a context when nothing happens for a while. It measures
// progress, not duration: a large blob over a thin line takes its time.
type watchdog struct {
	timer *time.Timer
	limit time.Duration
}

// watch starts a watchdog over ctx; stop ends it, and the context.
func watch(ctx context.Context, limit time.Duration) (watched context.Context, w *watchdog, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	w = &watchdog{limit: limit}
	w.timer = time.AfterFunc(limit, func() { cancel(stalledError(limit)) })
	return watched, w, func() {
		w.timer.Stop()
		cancel(nil)
	}
}

// progress tells the watchdog that something happened, or will from now on.
func (w *watchdog) progress() { w.timer.Reset(w.limit) }

// pause ends the watch until progress is called.
func (w *watchdog) pause() { w.timer.Stop() }

// stalledError is the cause of a context that a watchdog cancelled.
type stalledError time.Duration

func (e stalledError) Error() string {
	return fmt.Sprintf("S3 did nothing for %v", time.Duration(e))
}

// call makes a request that may take limit between two steps of progress, and
// translates its error.
func (s *S3) call(ctx context.Context, limit time.Duration, request func(context.Context, *watchdog) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	watched, w, stop := watch(ctx, limit)
	defer stop()
	return s.translate(watched, request(watched, w))
}

// translate makes an error of minio-go say what happened, and be one that
// callers decide on. ctx is the watched one.
// Errors: ErrNotExist, ErrInvalidRange, ErrNoSpace.
func (s *S3) translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	// What a watchdog's cancelling led to is no cancelling by the caller.
	if stalled, ok := errors.AsType[stalledError](context.Cause(ctx)); ok {
		return stalled
	}
	response, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return err
	}
	switch {
	case response.Code == minio.NoSuchKey:
		return ErrNotExist
	case response.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return ErrInvalidRange
	case response.Code == minio.NoSuchBucket:
		return fmt.Errorf("S3 has no bucket %q: %w", s.cfg.Bucket, err)
	case response.StatusCode == http.StatusInsufficientStorage,
		response.Code == "XMinioStorageFull", response.Code == "XMinioAdminBucketQuotaExceeded", response.Code == "QuotaExceeded":
		return fmt.Errorf("%w: S3 answered %s: %w", ErrNoSpace, response.Code, err)
	}
	return fmt.Errorf("S3 answered %d %s: %w", response.StatusCode, response.Code, err)
}

// isTemporary says whether a request that failed may succeed when it is made
// again at once. A stall has cost the caller enough time already.
func isTemporary(err error) bool {
	if _, stalled := errors.AsType[stalledError](err); stalled {
		return false
	}
	response, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return true // the network's
	}
	// No key of ours is another's folder. versitygw says that one is when it
	// made an object's folder while that was removed with the last object in it.
	if response.Code == "ExistingObjectIsDirectory" || response.Code == "OperationAborted" {
		return true
	}
	return response.StatusCode >= 500 && response.StatusCode != http.StatusInsufficientStorage ||
		response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusRequestTimeout
}
