package access

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// checkEvery is how often the file is looked at, at most: a change is in
	// force after so long.
	checkEvery = time.Second
	// settled is the age, by its time of modification, from which a file is
	// not changed again without that time changing: clocks of file systems
	// tick at up to two seconds.
	settled = 2 * time.Second
	// maxFile bounds the file, in bytes.
	maxFile = 16 << 20
)

// file is an htpasswd file that is read again when it changes. It is looked at
// when somebody asks, so that it needs no goroutine.
type file struct {
	path   string
	now    func() time.Time
	log    *slog.Logger
	table  atomic.Pointer[table]
	looked atomic.Int64 // when last, in nanoseconds since 1970

	mu      sync.Mutex // held while the file is looked at
	seen    fs.FileInfo
	sure    bool   // a later change will show in seen
	content string // of the last reading, good or not
	failure string // what was last complained of
}

// openFile reads an htpasswd file for the first time.
func openFile(path string, now func() time.Time, log *slog.Logger) (*file, error) {
	f := &file{path: path, now: now, log: log}
	f.looked.Store(now().UnixNano())
	t, err := f.read()
	if err != nil {
		return nil, f.broken(err)
	}
	f.table.Store(t)
	return f, nil
}

func (f *file) broken(err error) error {
	return fmt.Errorf("reading the htpasswd file %s: %w", f.path, err)
}

// current is the last good content. It looks whether the file has changed when
// that was not done within checkEvery.
func (f *file) current() *table {
	now := f.now().UnixNano()
	looked := f.looked.Load()
	if age := time.Duration(now - looked); age < 0 || age >= checkEvery {
		if f.looked.CompareAndSwap(looked, now) { // others go on with what there is
			f.refresh()
		}
	}
	return f.table.Load()
}

func (f *file) refresh() {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.sure && os.SameFile(info, f.seen) && info.Size() == f.seen.Size() && info.ModTime().Equal(f.seen.ModTime()) {
		return
	}
	before := f.content
	t, err := f.read()
	if err != nil {
		f.sure = false
		if err.Error() != f.failure {
			f.failure = err.Error()
			f.log.Error("the htpasswd file has changed and cannot be used: the one before still holds", "error", f.broken(err))
		}
		return
	}
	if f.failure == "" && f.content == before {
		return
	}
	f.failure = ""
	f.table.Store(t)
	f.log.Info("read the htpasswd file again", "file", f.path, "identities", len(t.hashes))
}

// read reads the file, and notes what it looked like before.
func (f *file) read() (*table, error) {
	opened, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	var content strings.Builder
	if n, err := io.Copy(&content, io.LimitReader(opened, maxFile+1)); err != nil {
		return nil, err
	} else if n > maxFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	t, err := parseTable(content.String())
	if err != nil {
		return nil, err
	}
	f.seen, f.content = info, content.String()
	f.sure = f.now().Sub(info.ModTime()) >= settled
	return t, nil
}
