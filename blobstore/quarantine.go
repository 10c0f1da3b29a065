package blobstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// defaultQuarantineSize is the most bytes that are kept of what was found to
// be wrong.
const defaultQuarantineSize = 1 << 30

// quarantine is the directory for what was found to be wrong: out of the
// store's sight, so that it is fetched again, and there for a person to see
// how it went wrong. What has lain there longest leaves first.
type quarantine struct {
	path  string
	limit int64 // bytes; negative is none
	log   *slog.Logger
	now   func() time.Time

	mu    sync.Mutex // held while files come and go
	files atomic.Int64
	bytes atomic.Int64
	taken atomic.Int64 // since the store was opened
}

// quarantineTime is the beginning of the names in it: their order is that in
// which they came.
const quarantineTime = "20060102T150405.000000000Z"

// maxQuarantineName bounds, in bytes, what follows it.
const maxQuarantineName = 200

// take moves a file in. The file can be read on by whoever has it open.
func (q *quarantine) take(path, name string) (to string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	name = strings.ReplaceAll(name, "/", "-")
	name = q.now().UTC().Format(quarantineTime) + "-" + name[:min(len(name), maxQuarantineName)]
	to = filepath.Join(q.path, name)
	if err := os.Mkdir(q.path, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := os.Rename(path, to); err != nil {
		return "", err
	}
	q.taken.Add(1)
	q.shrink(q.limit)
	return to, nil
}

// empty frees all it has, and tells how many bytes that were.
func (q *quarantine) empty() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	had := q.bytes.Load()
	if had == 0 {
		return 0
	}
	q.shrink(0)
	return had - q.bytes.Load()
}

// shrink removes what has been there longest, down to limit bytes, and counts
// what is there. Others may put files here: scrubbing from another process
// does. mu is held.
func (q *quarantine) shrink(limit int64) {
	held, err := q.held()
	if err != nil {
		q.log.Warn("listing the quarantine", "path", q.path, "err", err)
		return
	}
	var total int64
	for _, f := range held {
		total += f.Size()
	}
	left := len(held)
	for _, f := range held {
		if limit < 0 || total <= limit {
			break
		}
		path := filepath.Join(q.path, f.Name())
		if err := os.RemoveAll(path); err != nil {
			q.log.Warn("removing from the quarantine", "path", path, "err", err)
			break
		}
		q.log.Info("removed from the quarantine, which is full", "path", path, "bytes", f.Size(), "limit", limit)
		total, left = total-f.Size(), left-1
	}
	q.files.Store(int64(left))
	q.bytes.Store(total)
}

// held lists what is there, oldest first.
func (q *quarantine) held() ([]fs.FileInfo, error) {
	names, err := os.ReadDir(q.path) // in the order of names
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	held := make([]fs.FileInfo, 0, len(names))
	for _, name := range names {
		info, err := name.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		held = append(held, info)
	}
	return held, nil
}

func (d *Dir) newQuarantine() quarantine {
	limit := cmp.Or(d.cfg.QuarantineSize, defaultQuarantineSize)
	if d.cfg.MaxSize > 0 && d.cfg.QuarantineSize == 0 {
		limit = min(limit, d.cfg.MaxSize/10)
	}
	return quarantine{path: quarantineDir(d.path), limit: limit, log: d.log, now: d.cfg.Now}
}

func quarantineDir(path string) string { return filepath.Join(path, "quarantine") }

// Quarantine moves the blob aside because what was read from the file does not
// have its digest: it is not in the store any more, and can be stored again.
// Whoever has it open reads on. It does nothing, and says so, when the blob in
// the store is not the one that was opened here any more.
func (f *File) Quarantine(reason error) bool { return f.dir.quarantine(f.entry, reason) }

func (d *Dir) quarantine(e *entry, reason error) bool {
	name := d.name(e.sum)
	name.Lock()
	defer name.Unlock()
	if d.closed.Load() || !d.index.remove(e, false) {
		return false
	}
	dgst := rawDigest(e.sum)
	path := d.blobFile(dgst)
	to, err := d.aside.take(path, quarantineName(dgst.String()))
	if err != nil {
		// To be served again after a restart would be worse than to be lost.
		err = errors.Join(err, os.Remove(path))
	}
	_ = os.Remove(filepath.Dir(path)) // an empty directory is no harm
	d.used.Add(-e.size)
	d.log.Error("a blob is not what it was when it was stored; it is put aside, to be fetched again",
		"digest", dgst, "bytes", e.size, "reason", reason, "path", to, "err", err)
	return true
}

// quarantineName is what follows the time in the name of a blob.
func quarantineName(dgst string) string { return strings.Replace(dgst, ":", "-", 1) }

// errRotten says that a stored blob changed since it was verified.
func errRotten(path string, err error) error {
	return fmt.Errorf("%s changed on the disk: %w", path, err)
}
