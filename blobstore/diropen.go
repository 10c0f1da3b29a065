package blobstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Defaults of DirConfig.
const (
	defaultHighWatermark = 0.90
	defaultLowWatermark  = 0.70
	defaultPartialTTL    = 24 * time.Hour
)

// OpenDir opens the store in a directory, which is made when only it, and not
// its parent, is missing. It removes what an interrupted process left half
// done. It fails when another process has the store open, and with ErrFormat
// when a newer entrepot wrote it.
func OpenDir(path string, cfg DirConfig) (*Dir, error) {
	d, err := openDir(path, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", path, err)
	}
	return d, nil
}

func openDir(path string, cfg DirConfig) (_ *Dir, err error) {
	cfg.HighWatermark = cmp.Or(cfg.HighWatermark, defaultHighWatermark)
	cfg.LowWatermark = cmp.Or(cfg.LowWatermark, defaultLowWatermark)
	cfg.PartialTTL = cmp.Or(cfg.PartialTTL, defaultPartialTTL)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	// The process may change its directory, the store must not.
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	d := &Dir{
		path: path, cfg: cfg, log: cfg.Logger, index: newIndex(),
		spool: spool{path: filepath.Join(path, "spool")},
		high:  int64(cfg.HighWatermark * float64(cfg.MaxSize)),
		low:   int64(cfg.LowWatermark * float64(cfg.MaxSize)),
		wake:  make(chan struct{}, 1),
		stop:  make(chan struct{}),

		hashing: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	d.aside = d.newQuarantine()
	if err := d.makeRoot(); err != nil {
		return nil, err
	}
	if d.lock, err = lockFile(filepath.Join(path, "lock")); err != nil {
		return nil, err
	}
	if err := d.load(); err != nil {
		_ = d.lock.Close()
		return nil, err
	}
	if cfg.MaxSize > 0 {
		d.evictor.Go(d.runEvictor)
		d.wakeEvictor()
	}
	return d, nil
}

func (c *DirConfig) check() error {
	if c.MaxSize < 0 {
		return fmt.Errorf("size limit of %d bytes: want 0 for none, or more", c.MaxSize)
	}
	if !(0 < c.LowWatermark && c.LowWatermark <= c.HighWatermark && c.HighWatermark <= 1) {
		return fmt.Errorf("watermarks high %g and low %g: want 0 < low ≤ high ≤ 1", c.HighWatermark, c.LowWatermark)
	}
	return nil
}

func (d *Dir) makeRoot() error {
	err := os.Mkdir(d.path, dirMode)
	switch {
	case errors.Is(err, fs.ErrExist):
		info, err := os.Stat(d.path)
		if err == nil && !info.IsDir() {
			return errors.New("it is not a directory")
		}
		return err
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("its parent directory %s does not exist", filepath.Dir(d.path))
	case err != nil:
		return fmt.Errorf("making the directory: %w", err)
	}
	return syncDir(filepath.Dir(d.path))
}

// lockFile takes the lock that keeps two processes from one directory. It is
// free again when the file is closed, or the process dies.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("it is not writable: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return file, nil
	}
	_ = file.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w (it holds %s): stop that one, or use another directory", ErrInUse, path)
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// load reads what is in the directory.
func (d *Dir) load() error {
	// Before anything is changed in what may not be ours to change.
	format, err := readFormat(d.path)
	if err != nil {
		return err
	}
	for _, dir := range []string{d.spool.path, d.recordsDir()} {
		if err := mkdirDurable(dir); err != nil {
			return fmt.Errorf("it is not writable: %w", err)
		}
	}
	if format == 0 {
		if err := d.markFormat(); err != nil {
			return err
		}
	}
	if err := d.spool.load(d.cfg.Now().Add(-d.cfg.PartialTTL)); err != nil {
		return fmt.Errorf("cleaning %s: %w", d.spool.path, err)
	}
	d.aside.shrink(d.aside.limit)
	blobs, err := d.scan()
	if err != nil {
		return fmt.Errorf("reading the list of blobs: %w", err)
	}
	slices.SortFunc(blobs, func(a, b scanned) int { return cmp.Compare(a.mtime, b.mtime) })
	d.index.entries = make(map[string]*entry, len(blobs))
	for _, b := range blobs {
		d.index.insert(b.entry)
	}
	d.used.Store(d.index.bytes + d.spool.bytes.Load())
	return nil
}

// scanned is a blob found on the disk.
type scanned struct {
	entry *entry
	mtime int64 // nanoseconds since 1970
}

// scan finds all blobs. Cold directories are waited for, not computed, so more
// of them are read at once than there are processors.
func (d *Dir) scan() ([]scanned, error) {
	const atOnce = 16
	var (
		group errgroup.Group
		mu    sync.Mutex
		all   []scanned
	)
	group.SetLimit(atOnce)
	for _, algorithm := range []string{"sha256", "sha512"} {
		for fan := range 256 {
			group.Go(func() error {
				found, err := d.scanFan(algorithm, fmt.Sprintf("%02x", fan))
				mu.Lock()
				defer mu.Unlock()
				all = append(all, found...)
				return err
			})
		}
	}
	err := group.Wait()
	return all, err
}

// scanFan finds the blobs of one algorithm whose digests begin with two hex
// digits. It asks for <hex>/data at once, without reading the directories
// <hex>, relative to the open directory, which saves looking up its path.
func (d *Dir) scanFan(algorithm, fan string) ([]scanned, error) {
	path := filepath.Join(d.path, "blobs", algorithm, fan)
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	found := make([]scanned, 0, len(names))
	for _, name := range names {
		s, err := parseDigest(digest.Digest(algorithm + ":" + name))
		if err != nil || !strings.HasPrefix(name, fan) {
			continue // not ours
		}
		var stat unix.Stat_t
		err = unix.Fstatat(int(dir.Fd()), name+"/data", &stat, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
			// What a delete or a commit that was cut short leaves behind.
			_ = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "stat", Path: filepath.Join(path, name, "data"), Err: err}
		case stat.Mode&unix.S_IFMT != unix.S_IFREG:
			continue
		case stat.Size == 0 && matches(&s, s.newHash(), 0) != nil:
			d.log.Warn("removing an empty file under the digest of content", "digest", s.digest())
			if err := os.RemoveAll(filepath.Join(path, name)); err != nil {
				return nil, err
			}
			continue
		}
		found = append(found, scanned{
			entry: &entry{
				sum: string(s.bytes()), size: stat.Size, used: seconds(time.Unix(stat.Mtim.Unix())),
				held: d.cfg.KeepHeld && isHeld(fs.FileMode(stat.Mode).Perm()),
			},
			mtime: stat.Mtim.Nano(),
		})
	}
	return found, nil
}
