package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// DirConfig says how a [Dir] behaves. Its zero value is a store without a limit.
type DirConfig struct {
	// MaxSize bounds the bytes of blobs and partials; 0 means no bound.
	// Records are not counted.
	MaxSize int64
	// HighWatermark and LowWatermark are fractions of MaxSize: above the high
	// one, the blobs used longest ago are evicted down to the low one.
	// Zero means 0.90 and 0.70.
	HighWatermark, LowWatermark float64
	// EvictWhenFull has what was used longest ago evicted also when the disk
	// is full before MaxSize is reached: the store is a cache, and what is
	// wanted now matters more. Without it, a full disk only refuses.
	EvictWhenFull bool
	// KeepHeld has blobs go on being held ([Dir.Hold]) that a process before
	// this one held. Without it, they are like all others.
	KeepHeld bool
	// PartialTTL is the age above which a partial that nobody resumed is
	// removed when the store is opened. Zero means 24 h.
	PartialTTL time.Duration
	// QuarantineSize bounds the bytes that are kept of blobs that were found to
	// be wrong, beside MaxSize; negative means no bound. Zero means 1 GiB, or a
	// tenth of MaxSize where that is less.
	QuarantineSize int64
	// Logger is told of evictions and repairs; nil means silence.
	Logger *slog.Logger
	// Now is the clock that orders blobs by use; nil means time.Now.
	Now func() time.Time
}

// Dir is a store in a directory that no other process uses meanwhile:
//
//	blobs/<algorithm>/<2 hex>/<hex>/data   blobs; the mtime is the last use;
//	                                       not writable where they are held
//	records/<escaped key>~                 records
//	spool/                                 what is being written; partials
//	quarantine/                            what was found to be wrong
//	version, lock, scrub                   store format; held while open; see [Scrubber]
//
// Every file is written in spool, synced and renamed into place, so that what
// lies under blobs and records is whole whatever crashes. An index in memory
// answers what is there; it is rebuilt at open from the names, sizes and times
// in the directory, without reading contents. A blob that somebody removes or
// truncates behind the store's back is noticed when it is opened.
type Dir struct {
	path string
	cfg  DirConfig
	log  *slog.Logger
	lock *os.File

	index *index
	// names serialise what makes and removes the file of one digest: commit,
	// delete, evict. Opening needs none of them.
	names [64]sync.Mutex
	spool spool
	aside quarantine

	used      atomic.Int64  // bytes of blobs, partials and temporary files
	high, low int64         // watermarks in bytes
	evicting  sync.Mutex    // held for one eviction at a time
	madeRoom  atomic.Uint64 // how often the full disk was given room; changes while evicting is held
	wake      chan struct{}
	stop      chan struct{}
	evictor   sync.WaitGroup
	evicted   struct{ count, bytes atomic.Int64 }

	recordNames sync.RWMutex  // held while directories of records change, and shared while a record is put into one
	buffers     sync.Pool     // *[]byte of copyBuffer
	hashing     chan struct{} // holds one element for each hashSome at work
	closed      atomic.Bool
}

// copyBuffer is the bytes that Put and hashing move at a time. It fits the
// second-level cache, so that what was just read or written is hashed from
// there.
const copyBuffer = 64 << 10

// Usage is what a store holds, for metrics.
type Usage struct {
	Bytes        int64 // of blobs
	Blobs        int
	HeldBytes    int64 // of the blobs that are held, see [Dir.Hold]
	Held         int
	PartialBytes int64 // of partials and of blobs being written
	Evictions    int64 // blobs and idle partials evicted since the store was opened
	EvictedBytes int64

	Quarantined     int64 // blobs that were found to be wrong since the store was opened
	QuarantineBytes int64 // of what is kept of them
}

// Limit is the size limit of the store in bytes, 0 without one. A larger blob
// can never be stored.
func (d *Dir) Limit() int64 { return d.cfg.MaxSize }

// Usage tells what the store holds now.
func (d *Dir) Usage() Usage {
	u := Usage{
		PartialBytes: d.spool.bytes.Load(),
		Evictions:    d.evicted.count.Load(), EvictedBytes: d.evicted.bytes.Load(),
		Quarantined: d.aside.taken.Load(), QuarantineBytes: d.aside.bytes.Load(),
	}
	d.index.usage(&u)
	return u
}

// Close stops evicting and gives the directory free for other processes.
// Partials and files are closed by whoever opened them.
func (d *Dir) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	close(d.stop)
	d.evictor.Wait()
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("unlocking store %s: %w", d.path, err)
	}
	return nil
}

// writable is an error once the store is closed: the directory may be
// another's by then.
func (d *Dir) writable() error {
	if d.closed.Load() {
		return fmt.Errorf("store %s: %w", d.path, fs.ErrClosed)
	}
	return nil
}

// Stat describes a blob, from the index. It does not count as a use.
func (d *Dir) Stat(_ context.Context, dgst digest.Digest) (Info, error) {
	s, err := parseDigest(dgst)
	if err != nil {
		return Info{}, err
	}
	e := d.index.entry(&s)
	if e == nil {
		return Info{}, absent(dgst)
	}
	size, used := d.index.info(e)
	return Info{Digest: dgst, Size: size, ModTime: used}, nil
}

// Touch marks a blob as used, when it is served from elsewhere. It reports false
// when it is not stored.
func (d *Dir) Touch(dgst digest.Digest) bool {
	s, err := parseDigest(dgst)
	if err != nil {
		return false
	}
	now := d.cfg.Now()
	e, stale := d.index.use(&s, now, 0)
	if stale {
		d.persistUse(e, now)
	}
	return e != nil
}

// persistUse writes the last use of a blob to the disk, where the next open
// finds it. When that fails, the blob merely looks older then.
func (d *Dir) persistUse(e *entry, now time.Time) {
	path := d.blobFile(rawDigest(e.sum))
	if err := os.Chtimes(path, time.Time{}, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("marking a blob as used", "path", path, "err", err)
	}
}

// Open reads a part of a blob; see [Store]. It counts as a use.
func (d *Dir) Open(_ context.Context, dgst digest.Digest, offset, length int64) (io.ReadCloser, Info, error) {
	f, err := d.OpenFile(dgst)
	if err != nil {
		return nil, Info{}, err
	}
	rest := f.Info.Size - offset
	if offset < 0 || rest < 0 {
		_ = f.Close()
		return nil, Info{}, fmt.Errorf("%w: offset %d of %s, which has %d bytes", ErrInvalidRange, offset, dgst, f.Info.Size)
	}
	if length < 0 || length > rest {
		length = rest
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, Info{}, fmt.Errorf("seeking to %d of %s: %w", offset, dgst, err)
	}
	return &fileRange{LimitedReader: io.LimitedReader{R: f.File, N: length}, file: f}, f.Info, nil
}

// fileRange is a part of an open blob.
type fileRange struct {
	io.LimitedReader
	file *File
}

func (r *fileRange) Close() error { return r.file.Close() }

// File is an open blob. While it is open, the blob is not evicted.
type File struct {
	// File is at the blob's start. Whoever wants the kernel to send it
	// (sendfile) takes this field, but closes the [File] around it.
	*os.File
	Info Info

	dir    *Dir
	entry  *entry
	closed atomic.Bool
}

// WriteRange writes length bytes of the blob from offset to w, all that are left when
// length is negative, and returns how many it wrote. It hands w the file, so that the
// kernel sends it.
func (f *File) WriteRange(_ context.Context, w io.Writer, offset, length int64) (int64, error) {
	if _, err := f.File.Seek(offset, io.SeekStart); err != nil {
		return 0, fmt.Errorf("reading %s: %w", f.Info.Digest, err)
	}
	if length < 0 {
		length = f.Info.Size - offset
	}
	n, err := io.CopyN(w, f.File, length)
	if err != nil {
		return n, fmt.Errorf("sending %s: %w", f.Info.Digest, err)
	}
	return n, nil
}

// OpenFile opens a blob for reading, and counts as a use of it.
// Errors: ErrNotExist, ErrInvalidDigest.
func (d *Dir) OpenFile(dgst digest.Digest) (*File, error) {
	s, err := parseDigest(dgst)
	if err != nil {
		return nil, err
	}
	now := d.cfg.Now()
	e, stale := d.index.use(&s, now, 1)
	if e == nil {
		return nil, absent(dgst)
	}
	file, err := openSized(d.blobFile(dgst), e.size)
	if err != nil {
		d.unpin(e)
		if errors.Is(err, errGone) {
			d.drop(e, err)
			return nil, absent(dgst)
		}
		return nil, fmt.Errorf("opening blob %s: %w", dgst, err)
	}
	if stale {
		d.persistUse(e, now)
	}
	_, used := d.index.info(e)
	return &File{File: file, Info: Info{Digest: dgst, Size: e.size, ModTime: used}, dir: d, entry: e}, nil
}

// Close closes the file and lets the blob be evicted again.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return fs.ErrClosed
	}
	f.dir.unpin(f.entry)
	return f.File.Close()
}

func (d *Dir) unpin(e *entry) {
	d.index.unpin(e)
	// What was pinned may be what kept the store above its watermark.
	d.wakeEvictor()
}

// errGone says that a data file is not what the index says it is.
var errGone = errors.New("blob was removed or changed behind the store's back")

// openSized opens a data file of which the size is known. Errors: errGone.
func openSized(path string, size int64) (*os.File, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	if info.Size() != size || !info.Mode().IsRegular() {
		_ = file.Close()
		return nil, fmt.Errorf("%w: %s has %d bytes, want %d", errGone, path, info.Size(), size)
	}
	return file, nil
}

// drop forgets a blob whose file is not as the index says, and removes what is
// there in its place, so that the next open does not find it. It reports false
// when the blob was forgotten already.
func (d *Dir) drop(e *entry, reason error) bool {
	if !d.remove(e, false) {
		return false
	}
	d.log.Warn("dropped a blob", "digest", rawDigest(e.sum), "reason", reason)
	return true
}

// Delete removes a blob; see [Store].
func (d *Dir) Delete(_ context.Context, dgst digest.Digest) error {
	s, err := parseDigest(dgst)
	if err != nil {
		return err
	}
	if err := d.writable(); err != nil {
		return err
	}
	e := d.index.entry(&s)
	if e == nil || !d.remove(e, false) {
		return absent(dgst)
	}
	return nil
}

// remove takes a blob out of the index and off the disk, unless that was done
// already, or, with unpinned set, somebody reads it.
func (d *Dir) remove(e *entry, unpinned bool) bool {
	// The name stays locked until the file is gone, so that a commit of the
	// same digest cannot have its new file removed.
	name := d.name(e.sum)
	name.Lock()
	defer name.Unlock()
	if !d.index.remove(e, unpinned) {
		return false
	}
	path := d.blobFile(rawDigest(e.sum))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// It is out of the index, so nobody reads it; it comes back at the
		// next open, and is accounted for then.
		d.log.Error("removing a blob", "path", path, "err", err)
	}
	_ = os.Remove(filepath.Dir(path)) // an empty directory is no harm
	d.used.Add(-e.size)
	return true
}

// name is the lock of the file name of a digest, given its raw value.
func (d *Dir) name(raw string) *sync.Mutex { return &d.names[int(raw[0])%len(d.names)] }

// Blobs lists what is stored; see [Store]. The order is random.
func (d *Dir) Blobs(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for _, e := range d.index.snapshot() {
			if err := ctx.Err(); err != nil {
				yield(Info{}, fmt.Errorf("listing blobs: %w", err))
				return
			}
			if !d.index.holds(e) {
				continue
			}
			size, used := d.index.info(e)
			if !yield(Info{Digest: rawDigest(e.sum), Size: size, ModTime: used}, nil) {
				return
			}
		}
	}
}

// blobFile is the path of a valid digest's data file.
func (d *Dir) blobFile(dgst digest.Digest) string { return d.path + "/" + blobPath(dgst) }

func absent(dgst digest.Digest) error { return fmt.Errorf("blob %s: %w", dgst, ErrNotExist) }
