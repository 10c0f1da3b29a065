package blobstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
)

// Stat describes a blob; see [Store]. It is one request.
func (s *S3) Stat(ctx context.Context, d digest.Digest) (Info, error) {
	if err := checkDigest(d); err != nil {
		return Info{}, err
	}
	info, err := s.stat(ctx, d)
	if err != nil {
		return Info{}, fmt.Errorf("blob %s: %w", d, err)
	}
	return info, nil
}

func (s *S3) stat(ctx context.Context, d digest.Digest) (Info, error) {
	var object minio.ObjectInfo
	err := s.call(ctx, s.cfg.Timeout, func(ctx context.Context, _ *watchdog) (err error) {
		object, err = s.client.StatObject(ctx, s.cfg.Bucket, s.blobKey(d), minio.StatObjectOptions{})
		return err
	})
	if err != nil {
		return Info{}, err
	}
	return Info{Digest: d, Size: object.Size, ModTime: object.LastModified}, nil
}

// Open reads a blob; see [Store]. It is one request, save for an offset at or
// past the end, which takes another to tell which it is. The context must live
// as long as the reader.
func (s *S3) Open(ctx context.Context, d digest.Digest, offset, length int64) (io.ReadCloser, Info, error) {
	if err := checkDigest(d); err != nil {
		return nil, Info{}, err
	}
	if offset < 0 {
		return nil, Info{}, fmt.Errorf("blob %s: offset %d: %w", d, offset, ErrInvalidRange)
	}
	if length == 0 { // which a Range header cannot say
		return s.openNothing(ctx, d, offset)
	}
	body, object, err := s.get(ctx, s.blobKey(d), offset, length)
	if errors.Is(err, ErrInvalidRange) {
		return s.openNothing(ctx, d, offset)
	}
	if err != nil {
		return nil, Info{}, fmt.Errorf("blob %s: %w", d, err)
	}
	return body, Info{Digest: d, Size: object.Size, ModTime: object.LastModified}, nil
}

// openNothing reads no bytes at offset, which is right up to the blob's end.
func (s *S3) openNothing(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, Info, error) {
	info, err := s.stat(ctx, d)
	if err == nil && offset > info.Size {
		err = fmt.Errorf("offset %d of %d bytes: %w", offset, info.Size, ErrInvalidRange)
	}
	if err != nil {
		return nil, Info{}, fmt.Errorf("blob %s: %w", d, err)
	}
	return io.NopCloser(bytes.NewReader(nil)), info, nil
}

// get reads length bytes of an object from offset, to the end when length is
// negative. The size it returns is that of the whole object.
// Errors: ErrNotExist, ErrInvalidRange.
func (s *S3) get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, minio.ObjectInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, minio.ObjectInfo{}, err
	}
	var options minio.GetObjectOptions
	if offset > 0 || length > 0 {
		options.Set("Range", rangeHeader(offset, length))
	}
	watched, w, stop := watch(ctx, s.cfg.Timeout)
	// minio.Client.GetObject would ask for the object's state first, and again
	// for each seek.
	body, object, header, err := s.core.GetObject(watched, s.cfg.Bucket, key, options)
	if err != nil {
		err = s.translate(watched, err)
		stop()
		return nil, minio.ObjectInfo{}, err
	}
	w.pause()
	if options.Header().Get("Range") != "" {
		object.Size, err = sizeOfRange(header, offset)
		if err != nil {
			stop()
			return nil, minio.ObjectInfo{}, errors.Join(err, body.Close())
		}
	}
	return &s3Body{body: body, ctx: watched, watchdog: w, stop: stop, store: s}, object, nil
}

// rangeHeader is RFC 9110, section 14.1.2. The end is left open where length
// would overflow it.
func rangeHeader(offset, length int64) string {
	header := "bytes=" + strconv.FormatInt(offset, 10) + "-"
	if last := offset + length - 1; length > 0 && last >= offset {
		header += strconv.FormatInt(last, 10)
	}
	return header
}

// sizeOfRange is the size, in bytes, of the object of which header announces a
// part, from Content-Range (RFC 9110, section 14.4): "bytes 0-9/100".
func sizeOfRange(header http.Header, offset int64) (int64, error) {
	value := header.Get("Content-Range")
	span, total, _ := strings.Cut(strings.TrimPrefix(value, "bytes "), "/")
	first, _, _ := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	size, sizeErr := strconv.ParseInt(total, 10, 64)
	if err != nil || sizeErr != nil || from != offset || size <= offset {
		return 0, fmt.Errorf("asked for bytes from %d, S3 answered with Content-Range %q", offset, value)
	}
	return size, nil
}

// s3Body is the body of a GET whose sender must not stall. The time between
// two reads is the reader's own and is not measured.
type s3Body struct {
	body     io.ReadCloser
	ctx      context.Context // that of the request
	watchdog *watchdog
	stop     func()
	store    *S3
}

func (b *s3Body) Read(p []byte) (int, error) {
	b.watchdog.progress()
	n, err := b.body.Read(p)
	b.watchdog.pause()
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped io.EOF is no end: see io.Reader
		err = fmt.Errorf("reading from S3: %w", b.store.translate(b.ctx, err))
	}
	return n, err
}

func (b *s3Body) Close() error {
	b.stop()
	return b.body.Close()
}

// Blobs lists what is stored; see [Store].
func (s *S3) Blobs(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for object, err := range s.list(ctx, "blobs/") {
			if err != nil {
				yield(Info{}, fmt.Errorf("listing blobs: %w", err))
				return
			}
			d, ok := digestOfPath(strings.TrimPrefix(object.Key, s.prefix))
			if !ok {
				continue // not ours: the bucket may be shared
			}
			if !yield(Info{Digest: d, Size: object.Size, ModTime: object.LastModified}, nil) {
				return
			}
		}
	}
}

// digestOfPath reads a digest back from what blobPath made of it.
func digestOfPath(path string) (digest.Digest, bool) {
	parts := strings.Split(path, "/")
	if len(parts) != 5 {
		return "", false
	}
	d := digest.Digest(parts[1] + ":" + parts[3])
	return d, checkDigest(d) == nil && blobPath(d) == path
}

// list lists the objects below a path, a thousand at each request, in the
// order of their keys. It ends after the first error.
func (s *S3) list(ctx context.Context, path string) iter.Seq2[minio.ObjectInfo, error] {
	return func(yield func(minio.ObjectInfo, error) bool) {
		watched, w, stop := watch(ctx, s.cfg.Timeout)
		defer stop()
		options := minio.ListObjectsOptions{Prefix: s.prefix + path, Recursive: true}
		for object := range s.client.ListObjectsIter(watched, s.cfg.Bucket, options) {
			if object.Err != nil {
				yield(minio.ObjectInfo{}, s.translate(watched, object.Err))
				return
			}
			w.pause() // the caller may take its time
			if !yield(object, nil) {
				return
			}
			w.progress()
		}
		// A context that is over ends the listing without an error.
		if err := s.translate(watched, watched.Err()); err != nil {
			yield(minio.ObjectInfo{}, err)
		}
	}
}

// Delete removes a blob; see [Store].
func (s *S3) Delete(ctx context.Context, d digest.Digest) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	// S3 does not say whether there was anything to delete.
	if _, err := s.stat(ctx, d); err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	if err := s.remove(ctx, s.blobKey(d)); err != nil {
		return fmt.Errorf("deleting blob %s: %w", d, err)
	}
	return nil
}

// remove deletes an object, if it is there.
func (s *S3) remove(ctx context.Context, key string) error {
	err := s.call(ctx, s.cfg.Timeout, func(ctx context.Context, _ *watchdog) error {
		return s.client.RemoveObject(ctx, s.cfg.Bucket, key, minio.RemoveObjectOptions{})
	})
	if errors.Is(err, ErrNotExist) {
		return nil // some servers do say it
	}
	return err
}
