package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
)

// ScrubDirConfig says how [ScrubDir] works.
type ScrubDirConfig struct {
	// Rate bounds the bytes read in a second, where opening a blob counts as 64
	// KiB; 0 is no bound.
	Rate int64
	// After is the digest after which to begin, empty for the first.
	After digest.Digest
	// Found is told of each blob that is wrong, and put aside, and of each that
	// could not be read, which is left where it is.
	Found func(ScrubFinding)
}

// ScrubFinding is a blob that is not as it should be.
type ScrubFinding struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // bytes
	Detail string        `json:"detail"`
	Aside  string        `json:"aside,omitempty"` // where it lies now, unless it could not be read
}

// ScrubDirReport is what [ScrubDir] did, also when it was stopped.
type ScrubDirReport struct {
	Store      string        `json:"store"`
	Blobs      int64         `json:"blobs"` // found to be right
	Bytes      int64         `json:"bytes"` // read
	Rotten     int64         `json:"rotten"`
	Unreadable int64         `json:"unreadable"`
	Last       digest.Digest `json:"last,omitempty"` // the last blob that was read
}

// ScrubDir reads every blob of the store in a directory, in the order of their
// digests, sha256 before sha512, and moves those to quarantine/ whose bytes do
// not have their digest. A process may have the store open: it notices at the
// next use that the blob is gone. A blob that it evicts or stores meanwhile is
// left alone. Errors: ErrFormat, ErrInvalidDigest, the context's, and of reading
// directories.
func ScrubDir(ctx context.Context, path string, cfg ScrubDirConfig) (ScrubDirReport, error) {
	s := dirScrub{root: path, cfg: cfg, aside: quarantineFor(path), report: ScrubDirReport{Store: path}}
	err := s.run(ctx)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("scrubbing store %s: %w", path, err)
	}
	return s.report, err
}

type dirScrub struct {
	root   string
	cfg    ScrubDirConfig
	aside  *quarantine
	reader *scrubReader
	report ScrubDirReport
}

func (s *dirScrub) run(ctx context.Context) error {
	if err := looksLikeStore(s.root); err != nil {
		return err
	}
	if _, err := readFormat(s.root); err != nil {
		return err
	}
	var after string
	if s.cfg.After != "" {
		sum, err := parseDigest(s.cfg.After)
		if err != nil {
			return err
		}
		after = string(sum.bytes())
	}
	reader, err := newScrubReader(s.cfg.Rate, func(n int) { s.report.Bytes += int64(n) })
	if err != nil {
		return err
	}
	defer reader.close()
	s.reader = reader
	for _, algorithm := range []string{"sha256", "sha512"} {
		for fan := range 256 {
			if err := s.fan(ctx, algorithm, fmt.Sprintf("%02x", fan), after); err != nil {
				return err
			}
		}
	}
	return nil
}

// fan reads the blobs of one algorithm whose digests begin with two hex digits.
func (s *dirScrub) fan(ctx context.Context, algorithm, fan, after string) error {
	names, err := os.ReadDir(filepath.Join(s.root, "blobs", algorithm, fan))
	if errors.Is(err, fs.ErrNotExist) {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	var sums []sum
	for _, name := range names {
		d := digest.Digest(algorithm + ":" + name.Name())
		sum, err := parseDigest(d)
		if err == nil && name.Name()[:2] == fan && (after == "" || compareSums(string(sum.bytes()), after) > 0) {
			sums = append(sums, sum)
		}
	}
	slices.SortFunc(sums, func(a, b sum) int { return compareSums(string(a.bytes()), string(b.bytes())) })
	for i := range sums {
		if err := s.blob(ctx, &sums[i]); err != nil {
			return err
		}
		s.report.Last = sums[i].digest()
	}
	return nil
}

// blob reads a blob, whose file stays open: its number in the file system is
// then nobody else's.
func (s *dirScrub) blob(ctx context.Context, sum *sum) error {
	d := sum.digest()
	path := filepath.Join(s.root, blobPath(d))
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ctx.Err() // evicted
	}
	if err != nil {
		return err
	}
	defer file.Close() // read from only
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil // for CheckDir
	}
	err = s.reader.verify(ctx, sum, path, info.Size())
	switch {
	case err == nil:
		s.report.Blobs++
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errGone): // evicted, and maybe stored again
	case errors.Is(err, ErrDigestMismatch):
		return s.putAside(d, path, info, err)
	default:
		s.report.Unreadable++
		s.cfg.Found(ScrubFinding{Digest: d, Size: info.Size(), Detail: err.Error()})
	}
	return nil
}

// putAside moves a blob to the quarantine, if it is the one that was read.
func (s *dirScrub) putAside(d digest.Digest, path string, read fs.FileInfo, why error) error {
	to, err := s.aside.take(path, quarantineName(d.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // evicted
	}
	if err != nil {
		return err
	}
	moved, err := os.Lstat(to)
	if err != nil {
		return err
	}
	if !os.SameFile(read, moved) {
		// It was evicted and stored again while it was read. Back, unless it
		// was stored once more, and then as good, or evicted once more.
		if err := os.Link(to, path); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Remove(to)
	}
	_ = os.Remove(filepath.Dir(path)) // unless it was stored again
	s.report.Rotten++
	s.cfg.Found(ScrubFinding{Digest: d, Size: read.Size(), Detail: why.Error(), Aside: to})
	return nil
}
