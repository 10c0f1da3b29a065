package filestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

// file is what a name points to. It is not changed once it is made.
type file struct {
	Digest      digest.Digest `json:"digest"`
	Size        int64         `json:"size"` // bytes
	ContentType string        `json:"contentType,omitempty"`
	Modified    time.Time     `json:"modified"` // when the name was set to it
}

// errNoFile says that there is no file of a name.
var errNoFile = errors.New("there is no such file")

// names is all names, each a record of the store. The tree of them is held in
// memory, so that listings and conflicts cost the store nothing; what each
// points to is read when it is wanted first.
type names struct {
	records blobstore.Records
	log     *slog.Logger
	locks   locks

	loading chan struct{}       // holds an element while the tree is read
	mu      sync.RWMutex        // of root
	root    *folder.Tree[*file] // a file is nil while what it is was not read; the tree is nil until it was
}

func newNames(records blobstore.Records, log *slog.Logger) *names {
	return &names{
		records: records, log: log, loading: make(chan struct{}, 1),
		locks: locks{held: map[Path]*lock{}},
	}
}

// load reads the tree, unless that was done.
func (n *names) load(ctx context.Context) error {
	if n.loaded() {
		return nil
	}
	select {
	case n.loading <- struct{}{}:
		defer func() { <-n.loading }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for the names of files: %w", ctx.Err())
	}
	if n.loaded() {
		return nil
	}
	root := &folder.Tree[*file]{}
	for key, err := range n.records.RecordKeys(ctx, fileRecords) {
		if err != nil {
			return fmt.Errorf("reading the names of files: %w", err)
		}
		p, ok := recordPath(key)
		if !ok {
			n.log.WarnContext(ctx, "a record of the store is of no file", "key", key)
			continue
		}
		root.Set(string(p), nil)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.root = root
	return nil
}

func (n *names) loaded() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.root != nil
}

// file is what a name points to. Errors: errNoFile.
func (n *names) file(ctx context.Context, p Path) (*file, error) {
	if err := n.load(ctx); err != nil {
		return nil, err
	}
	f, known := n.known(p)
	if f != nil || !known {
		return found(f, p)
	}
	unlock := n.locks.read(p)
	defer unlock()
	return n.readFile(ctx, p)
}

// readFile is file with the lock held.
func (n *names) readFile(ctx context.Context, p Path) (*file, error) {
	f, known := n.known(p)
	if f != nil || !known {
		return found(f, p)
	}
	value, err := n.records.Record(ctx, recordKey(p))
	if errors.Is(err, blobstore.ErrNotExist) {
		// Writing it had failed, or somebody removed it.
		n.forget(p)
		return found(nil, p)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what file %s is: %w", p, err)
	}
	f = &file{}
	if err := json.Unmarshal(value, f); err != nil {
		return nil, fmt.Errorf("reading what file %s is: its record: %w", p, err)
	}
	if err := f.Digest.Validate(); err != nil || f.Digest.Algorithm() != digest.SHA256 || f.Size < 0 {
		return nil, fmt.Errorf("reading what file %s is: its record holds digest %.80q and size %d", p, f.Digest, f.Size)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.root.Set(string(p.clone()), f)
	return f, nil
}

func found(f *file, p Path) (*file, error) {
	if f == nil {
		return nil, fmt.Errorf("%w: %s", errNoFile, p)
	}
	return f, nil
}

// known says whether there is a name, and what it points to, if that was read.
func (n *names) known(p Path) (f *file, known bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.root.Get(string(p))
}

// isFolder says whether there is a folder. The tree has been read.
func (n *names) isFolder(p Path) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.root.HasFolder(string(p))
}

// conflict is the file or folder that keeps p from being a file: a folder of
// that name, or a file where p has a folder; "" for none. p is locked for
// writing.
func (n *names) conflict(p Path) Path {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.root.HasFolder(string(p)) {
		return p
	}
	for i := range len(p) {
		if p[i] != '/' {
			continue
		}
		if _, ok := n.root.Get(string(p[:i])); ok {
			return p[:i]
		}
	}
	return ""
}

// set points a name to a file. The name is locked for writing.
func (n *names) set(ctx context.Context, p Path, f *file) error {
	value, err := json.Marshal(f)
	if err == nil {
		err = n.records.PutRecord(ctx, recordKey(p), value)
	}
	if errors.Is(err, blobstore.ErrInvalidKey) {
		return fmt.Errorf("setting file %s: %w", p, err) // and it never can be
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		// Either may be there now: it is read when it is wanted.
		n.root.Set(string(p.clone()), nil)
		return fmt.Errorf("setting file %s to %s: %w", p, f.Digest, err)
	}
	n.root.Set(string(p.clone()), f)
	return nil
}

// remove removes a name that is locked for writing.
func (n *names) remove(ctx context.Context, p Path) error {
	err := n.records.DeleteRecord(ctx, recordKey(p))
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.root.Set(string(p.clone()), nil)
		return fmt.Errorf("deleting file %s: %w", p, err)
	}
	n.root.Remove(string(p))
	return nil
}

// forget takes a name that has no record out of the tree.
func (n *names) forget(p Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.root.Remove(string(p))
}

// clone copies what is part of a request.
func (p Path) clone() Path { return Path(strings.Clone(string(p))) }
