package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// Scrub reads every blob of the bucket, in the order of the keys, which is that
// of the digests, sha256 before sha512. It reports what is wrong and leaves it
// where it is: a bucket may hold the only copy, nodes verify what they read
// from theirs, and remove what is wrong when they meet it. Errors:
// ErrInvalidDigest, the context's, and of listing.
func (s *S3) Scrub(ctx context.Context, cfg ScrubDirConfig) (report ScrubDirReport, err error) {
	report.Store = s.cfg.Bucket + "/" + s.prefix
	if cfg.After != "" {
		if err := checkDigest(cfg.After); err != nil {
			return report, err
		}
	}
	reader, err := newScrubReader(cfg.Rate, func(n int) { report.Bytes += int64(n) })
	if err != nil {
		return report, err
	}
	defer reader.close()
	for info, err := range s.Blobs(ctx) {
		if err != nil {
			return report, fmt.Errorf("scrubbing bucket %s: %w", report.Store, err)
		}
		if info.Digest <= cfg.After {
			continue
		}
		_, err := s.verify(ctx, reader, info.Digest)
		switch {
		case err == nil:
			report.Blobs++
		case ctx.Err() != nil:
			return report, ctx.Err()
		case errors.Is(err, ErrNotExist): // deleted meanwhile
		case errors.Is(err, ErrDigestMismatch):
			report.Rotten++
			cfg.Found(ScrubFinding{Digest: info.Digest, Size: info.Size, Detail: err.Error()})
		default:
			report.Unreadable++
			cfg.Found(ScrubFinding{Digest: info.Digest, Size: info.Size, Detail: err.Error()})
		}
		report.Last = info.Digest
	}
	return report, nil
}

// verify reads a blob, and says how large it is. Errors: ErrNotExist, ErrDigestMismatch.
func (s *S3) verify(ctx context.Context, reader *scrubReader, d digest.Digest) (size int64, err error) {
	sum, err := parseDigest(d)
	if err != nil {
		return 0, err
	}
	if err := reader.wait(ctx, scrubSeek); err != nil {
		return 0, err
	}
	body, _, err := s.Open(ctx, d, 0, -1)
	if err != nil {
		return 0, err
	}
	defer body.Close() // read from only
	h := sum.newHash()
	for {
		n, err := body.Read(reader.buffer)
		h.Write(reader.buffer[:n])
		size += int64(n)
		reader.read(n)
		if err == io.EOF {
			return size, matches(&sum, h, size)
		}
		if err != nil {
			return size, err
		}
		// After reading: how much comes at a time is the server's to say.
		if err := reader.wait(ctx, n); err != nil {
			return size, err
		}
	}
}
