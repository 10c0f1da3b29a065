package origin

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"golang.org/x/sys/unix"
)

// defaultUploadTTL is the age of an upload that nobody goes on with.
const defaultUploadTTL = 24 * time.Hour

// The files of an upload: its bytes, whose time of modification is when it was
// last written, and what is known of it. Only what has both is an upload.
const (
	dataSuffix  = ".data"
	stateSuffix = ".json"
)

// uploadState is what is known of an upload besides its bytes.
type uploadState struct {
	Repository string `json:"repository"`
}

// upload is a blob on its way in.
type upload struct {
	id         string
	repository string
	writing    chan struct{} // holds an element while a request writes it
	size       atomic.Int64  // bytes in the data file
	used       atomic.Int64  // when it was last written, in nanoseconds since 1970
}

func newUpload(id, repository string, size int64, used time.Time) *upload {
	u := &upload{id: id, repository: repository, writing: make(chan struct{}, 1)}
	u.size.Store(size)
	u.used.Store(used.UnixNano())
	return u
}

// done lets the next request write.
func (u *upload) done(now time.Time) {
	u.used.Store(now.UnixNano())
	<-u.writing
}

// uploads is a directory of uploads in progress.
type uploads struct {
	dir     string
	lock    *os.File
	ttl     time.Duration
	now     func() time.Time
	buffers sync.Pool // of *[uploadBuffer]byte

	mu  sync.Mutex
	all map[string]*upload // by id
}

// uploadBuffer is the bytes that are received at a time.
const uploadBuffer = 256 << 10

// openUploads opens a directory of uploads, with those that are in it.
func openUploads(dir string, ttl time.Duration, now func() time.Time) (_ *uploads, err error) {
	u := &uploads{dir: dir, ttl: ttl, now: now, all: map[string]*upload{}}
	u.buffers.New = func() any { return new([uploadBuffer]byte) }
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening the directory of uploads %s: %w", dir, err)
			if u.lock != nil {
				_ = u.lock.Close()
			}
		}
	}()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if u.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(u.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another process has it open: %w", err)
	}
	if err := u.load(); err != nil {
		return nil, err
	}
	u.expire()
	return u, nil
}

// load finds the uploads of an earlier process, and removes what is half of
// one. It leaves alone what it did not make.
func (u *uploads) load() error {
	entries, err := os.ReadDir(u.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id, isState := strings.CutSuffix(entry.Name(), stateSuffix)
		if !isState {
			id = strings.TrimSuffix(entry.Name(), dataSuffix)
		}
		if id == entry.Name() || !validID(id) || !entry.Type().IsRegular() {
			continue
		}
		repository, err := u.readState(id)
		var data fs.FileInfo
		if err == nil {
			data, err = os.Stat(u.dataFile(id))
		}
		if err != nil {
			// It was being made or removed; nobody was told of it, or nobody
			// will ask for it.
			if err := removeFile(filepath.Join(u.dir, entry.Name())); err != nil {
				return err
			}
			continue
		}
		u.all[id] = newUpload(id, repository, data.Size(), data.ModTime())
	}
	return nil
}

// readState reads which repository an upload is for.
func (u *uploads) readState(id string) (repository string, err error) {
	text, err := os.ReadFile(u.stateFile(id))
	if err != nil {
		return "", err
	}
	return parseUploadState(text)
}

// parseUploadState reads the state file of an upload.
func parseUploadState(text []byte) (repository string, err error) {
	var state uploadState
	if err := json.Unmarshal(text, &state); err != nil {
		return "", err
	}
	if state.Repository == "" {
		return "", errors.New("it names no repository")
	}
	return state.Repository, nil
}

// start makes an empty upload.
func (u *uploads) start(repository string) (*upload, error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // documented to return no error
	id := hex.EncodeToString(random[:])
	state, err := json.Marshal(uploadState{repository})
	if err != nil {
		return nil, err
	}
	// The bytes' file first: only with both it is an upload.
	for _, file := range []struct {
		path string
		text []byte
	}{{u.dataFile(id), nil}, {u.stateFile(id), state}} {
		if err := os.WriteFile(file.path, file.text, 0o600); err != nil {
			return nil, errors.Join(err, u.removeFiles(id))
		}
	}
	started := newUpload(id, repository, 0, u.now())
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all[id] = started
	return started, nil
}

// find is an upload of a repository, nil when there is none.
func (u *uploads) find(repository, id string) *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	found := u.all[id]
	if found == nil || found.repository != repository {
		return nil
	}
	return found
}

// append writes a chunk to the end of an upload whose turn the caller has.
// Errors: SIZE_INVALID, when the body is not as long as was said; then nothing
// of it is kept.
func (u *uploads) append(up *upload, chunk registry.Chunk) error {
	file, err := os.OpenFile(u.dataFile(up.id), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	before := up.size.Load()
	_, err = file.Seek(before, io.SeekStart)
	if err == nil {
		err = u.receive(up, file, chunk.Body, chunk.Length)
	}
	if received := up.size.Load() - before; err == nil && chunk.Length >= 0 && received != chunk.Length {
		err = errors.Join(registry.Errorf(errcode.ErrorCodeSizeInvalid, "the body has not the %d bytes that were announced", chunk.Length),
			file.Truncate(before))
		up.size.Store(before)
	}
	return errors.Join(err, file.Close())
}

// receive writes a body, but no more than one byte past its announced length,
// which may be negative when unknown.
func (u *uploads) receive(up *upload, file *os.File, body io.Reader, length int64) error {
	if length >= 0 {
		body = io.LimitReader(body, length+1)
	}
	buffer := u.buffers.Get().(*[uploadBuffer]byte)
	defer u.buffers.Put(buffer)
	for {
		n, err := body.Read(buffer[:])
		written, writeErr := file.Write(buffer[:n])
		up.size.Add(int64(written))
		if writeErr != nil {
			return writeErr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
	}
}

// remove ends an upload whose turn the caller has.
func (u *uploads) remove(up *upload) error {
	u.mu.Lock()
	delete(u.all, up.id)
	u.mu.Unlock()
	return u.removeFiles(up.id)
}

func (u *uploads) removeFiles(id string) error {
	return errors.Join(removeFile(u.stateFile(id)), removeFile(u.dataFile(id)))
}

// expire removes the uploads that nobody went on with, and says how many.
func (u *uploads) expire() (removed int) {
	oldest := u.now().Add(-u.ttl).UnixNano()
	u.mu.Lock()
	var old []*upload
	for _, up := range u.all {
		if up.used.Load() < oldest {
			old = append(old, up)
		}
	}
	u.mu.Unlock()
	for _, up := range old {
		select {
		case up.writing <- struct{}{}:
		default:
			continue // it is in use
		}
		// It may have been used, or have ended, since it was looked at.
		if up.used.Load() < oldest && u.find(up.repository, up.id) == up && u.remove(up) == nil {
			removed++
		}
		<-up.writing
	}
	return removed
}

func (u *uploads) close() error {
	if err := u.lock.Close(); err != nil {
		return fmt.Errorf("closing the directory of uploads: %w", err)
	}
	return nil
}

func (u *uploads) dataFile(id string) string  { return filepath.Join(u.dir, id+dataSuffix) }
func (u *uploads) stateFile(id string) string { return filepath.Join(u.dir, id+stateSuffix) }

// validID says whether an id is one that start makes.
func validID(id string) bool {
	decoded, err := hex.DecodeString(id)
	return err == nil && len(decoded) == 16 && strings.ToLower(id) == id
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
