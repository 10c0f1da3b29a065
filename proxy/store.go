package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/blobstore/pause"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"
)

// RemoteStore is a store behind the local one, shared by nodes: an S3 bucket.
type RemoteStore interface {
	blobstore.Store
	Record(ctx context.Context, key string) ([]byte, error)
	PutRecord(ctx context.Context, key string, value []byte) error
	DeleteRecord(ctx context.Context, key string) error
	// TrimRecords is that of [blobstore.Dir], by when records were written.
	TrimRecords(ctx context.Context, prefix string, most int, spare func(key string) bool) (left, deleted int, err error)
	// Presign gives a URL at which anyone can read the blob until it expires.
	Presign(ctx context.Context, d digest.Digest, expiry time.Duration) (string, error)
}

const (
	// remoteTimeout bounds a small request to the remote store.
	remoteTimeout = 5 * time.Second
	// remotePause is how long the remote store is left alone after it failed.
	remotePause = 5 * time.Second
	// uploadRecords is where the local store remembers what the remote one
	// still lacks, so that a restart loses nothing.
	uploadRecords = "upload"
	// uploadTimeout bounds the upload of one blob.
	uploadTimeout = time.Hour
	// uploaders is how many blobs are uploaded at once.
	uploaders = 2
)

// remoteStore is the remote store with its health, and the queue of what it
// still lacks. A nil *remoteStore is one that is not configured.
type remoteStore struct {
	store RemoteStore
	local *blobstore.Dir
	log   *slog.Logger

	queue   chan string        // record keys and digests, as in uploadRecords
	sending singleflight.Group // of blobs, by digest

	mu        sync.Mutex
	downUntil time.Time
}

func newRemoteStore(store RemoteStore, local *blobstore.Dir, log *slog.Logger) *remoteStore {
	if store == nil {
		return nil
	}
	return &remoteStore{store: store, local: local, log: log, queue: make(chan string, 4096)}
}

// up reports whether the remote store is worth asking.
func (r *remoteStore) up() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !time.Now().Before(r.downUntil)
}

// observe takes in how a request went.
func (r *remoteStore) observe(ctx context.Context, err error) {
	if err == nil || errors.Is(err, blobstore.ErrNotExist) || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	r.mu.Lock()
	wasUp := !time.Now().Before(r.downUntil)
	r.downUntil = time.Now().Add(remotePause)
	r.mu.Unlock()
	if wasUp {
		r.log.Warn("the S3 store does not answer; going on without it", "error", err, "pause", remotePause)
	}
}

// forget removes a blob whose bytes were found to be wrong.
func (r *remoteStore) forget(d digest.Digest, why error) {
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	r.log.Error("the S3 store holds wrong bytes; removing them", "digest", d, "error", why)
	if err := r.store.Delete(ctx, d); err != nil && !errors.Is(err, blobstore.ErrNotExist) {
		r.log.Error("removing wrong bytes from the S3 store", "digest", d, "error", err)
	}
}

// read returns a small blob whole and verified.
func (r *remoteStore) read(ctx context.Context, d digest.Digest, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	body, info, err := r.store.Open(ctx, d, 0, -1)
	if err != nil {
		r.observe(ctx, err)
		return nil, err
	}
	defer body.Close()
	if info.Size > limit {
		return nil, fmt.Errorf("%s is %d bytes, more than %d: %w", d, info.Size, limit, blobstore.ErrNotExist)
	}
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		r.observe(ctx, err)
		return nil, fmt.Errorf("reading %s: %w", d, err)
	}
	if d.Algorithm().FromBytes(b) != d {
		err := fmt.Errorf("reading %s: %w", d, blobstore.ErrDigestMismatch)
		r.forget(d, err) //nolint:contextcheck // wrong bytes go, whoever found them
		return nil, err
	}
	return b, nil
}

// send notes that the remote store lacks a blob or a record, and has it
// uploaded in the background. key is a digest, or a record's key.
func (r *remoteStore) send(key string) {
	if r == nil {
		return
	}
	if err := r.local.PutRecord(context.Background(), uploadRecords+"/"+key, nil); err != nil {
		r.log.Error("remembering an upload", "key", key, "error", err)
	}
	r.spare(key, true)
	select {
	case r.queue <- key:
	default: // it is remembered, and taken up again by resume
	}
}

// sendLater has the remote store hold a blob that a peer brought. The peer uploads
// it; this node looks, in a minute or so, whether that was done.
func (r *remoteStore) sendLater(d digest.Digest) {
	if err := r.local.PutRecord(context.Background(), uploadRecords+"/"+string(d), nil); err != nil {
		r.log.Error("remembering an upload", "key", d, "error", err)
	}
	r.spare(string(d), true)
}

// spare has a blob evicted after those that the remote store has, until it has this one
// too. Records are not evicted.
func (r *remoteStore) spare(key string, spared bool) {
	if d, err := digest.Parse(key); err == nil {
		r.local.Spare(d, spared)
	}
}

// work uploads what is queued until ctx ends.
func (r *remoteStore) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-r.queue:
			r.upload(ctx, key)
		}
	}
}

// resume queues what earlier runs left, now and whenever the queue has run dry
// with something left over.
func (r *remoteStore) resume(ctx context.Context) {
	for {
		if len(r.queue) == 0 {
			for key, err := range r.local.RecordKeys(ctx, uploadRecords) {
				if err != nil {
					r.log.Error("listing unfinished uploads", "error", err)
					break
				}
				key = key[len(uploadRecords)+1:]
				r.spare(key, true)
				select {
				case r.queue <- key:
				case <-ctx.Done():
					return
				}
			}
		}
		if pause.For(ctx, time.Minute) != nil {
			return
		}
	}
}

// upload sends one blob or record, trying again while the remote store is down.
func (r *remoteStore) upload(ctx context.Context, key string) {
	marker := uploadRecords + "/" + key
	if _, err := r.local.Record(ctx, marker); errors.Is(err, blobstore.ErrNotExist) {
		return // another worker did it
	}
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := r.uploadOnce(ctx, key)
		if err == nil || errors.Is(err, blobstore.ErrNotExist) { // evicted meanwhile: upstream has it
			if err := r.local.DeleteRecord(ctx, marker); err != nil {
				r.log.Error("forgetting a finished upload", "key", key, "error", err)
			}
			r.spare(key, false)
			return
		}
		if ctx.Err() != nil {
			return
		}
		r.observe(ctx, err)
		r.log.Warn("upload to the S3 store failed; will try again", "key", key, "error", err, "pause", wait)
		if pause.For(ctx, wait) != nil {
			return
		}
	}
}

func (r *remoteStore) uploadOnce(ctx context.Context, key string) error {
	if d, err := digest.Parse(key); err == nil {
		return r.uploadBlob(ctx, d)
	}
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	value, err := r.local.Record(ctx, key)
	if err != nil {
		return err
	}
	return r.store.PutRecord(ctx, key, value)
}

// uploadBlob sends a blob. Where several want that at once, the first does it.
func (r *remoteStore) uploadBlob(ctx context.Context, d digest.Digest) error {
	_, err, _ := r.sending.Do(string(d), func() (any, error) {
		ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
		defer cancel()
		f, err := r.local.OpenFile(d)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		err = r.store.Put(ctx, d, f.Info.Size, f.File)
		if errors.Is(err, blobstore.ErrDigestMismatch) || errors.Is(err, blobstore.ErrSizeMismatch) {
			// It is not the remote store that is at fault, and trying again does
			// not help.
			f.Quarantine(err)
			return nil, fmt.Errorf("%w: %w", blobstore.ErrNotExist, err)
		}
		return nil, err
	})
	return err
}

// record reads a record from the local store, else from the remote one.
func (n *Node) record(key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	b, err := n.local.Record(ctx, key)
	if err == nil || !n.remote.up() {
		return b, err
	}
	b, err = n.remote.store.Record(ctx, key)
	if err != nil {
		n.remote.observe(ctx, err)
		return nil, err
	}
	if err := n.local.PutRecord(ctx, key, b); err != nil {
		n.log.Error("keeping a record of the S3 store", "key", key, "error", err)
	} else {
		n.keeper.wrote(key)
	}
	return b, nil
}

// readRecord decodes a record into v; ok is false when there is none, or none
// that can be used.
func (n *Node) readRecord(key string, v any) (ok bool) {
	b, err := n.record(key)
	return n.decodeRecord(key, b, err, v)
}

// decodeRecord is readRecord of what record gave.
func (n *Node) decodeRecord(key string, b []byte, err error, v any) (ok bool) {
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil && !errors.Is(err, blobstore.ErrNotExist) {
		n.log.Error("reading a record", "key", key, "error", err)
	}
	if err == nil {
		n.touchRecord(key)
	}
	return err == nil
}

// touchRecord notes that a record is in use.
func (n *Node) touchRecord(key string) {
	if err := n.local.TouchRecord(key); err != nil {
		n.log.Error("noting that a record is in use", "key", key, "error", err)
	}
}

// writeRecord keeps v, in the remote store too when shared says so. A store
// that fails is reported and costs nothing else.
func (n *Node) writeRecord(key string, v any, shared bool) {
	b, err := json.Marshal(v)
	if err == nil {
		err = n.local.PutRecord(context.Background(), key, b)
	}
	if err != nil {
		n.log.Error("keeping a record", "key", key, "error", err)
		return
	}
	if shared {
		n.keeper.wrote(key)
		n.remote.send(key)
	}
}

func (n *Node) dropRecord(key string) {
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	if err := n.local.DeleteRecord(ctx, key); err != nil {
		n.log.Error("dropping a record", "key", key, "error", err)
	}
	if n.remote.up() {
		err := n.remote.store.DeleteRecord(ctx, key)
		n.remote.observe(ctx, err)
	}
}

const (
	// settlePause is the least time between two tries to store again what only
	// memory has.
	settlePause = time.Minute
	// maxSettled bounds of how many blobs that is remembered.
	maxSettled = 4096
)

// inMemory returns a small blob from memory. That counts as a use of the stored one:
// what is asked for most would otherwise look as if nobody wanted it, and be the
// first to leave the disk. What has left it nevertheless is stored again, because
// memory is never to be the only copy: a restart would lose it.
func (n *Node) inMemory(ctx context.Context, d digest.Digest) ([]byte, bool) {
	b, ok := n.memory.Get(d)
	if !ok || n.local.Touch(d) {
		return b, ok
	}
	if at, tried := n.resettled.Get(d); tried && time.Since(at) < settlePause {
		return b, true
	}
	n.resettled.Add(d, time.Now())
	if n.keepLocal(ctx, d, b) {
		n.remote.send(string(d)) //nolint:contextcheck // uploaded whoever asked
	}
	return b, true
}

// readSmall returns a blob of at most limit bytes from memory or a store.
func (n *Node) readSmall(ctx context.Context, d digest.Digest, limit int64) ([]byte, error) {
	if b, ok := n.inMemory(ctx, d); ok {
		return b, nil
	}
	b, err := n.readLocal(d, limit)
	if err != nil && n.remote.up() {
		if b, err = n.remote.read(ctx, d, limit); err == nil {
			n.keepLocal(ctx, d, b)
		}
	}
	if err != nil {
		return nil, err
	}
	n.memory.Add(d, b)
	return b, nil
}

func (n *Node) readLocal(d digest.Digest, limit int64) ([]byte, error) {
	f, err := n.local.OpenFile(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Info.Size > limit {
		return nil, fmt.Errorf("%s is %d bytes, more than %d: %w", d, f.Info.Size, limit, blobstore.ErrNotExist)
	}
	return readVerified(f)
}

// keepSmall stores a verified small blob everywhere it belongs.
func (n *Node) keepSmall(ctx context.Context, d digest.Digest, b []byte) {
	n.memory.Add(d, b)
	if n.keepLocal(ctx, d, b) {
		n.remote.send(string(d)) //nolint:contextcheck // uploaded whoever asked
	}
}

func (n *Node) keepLocal(ctx context.Context, d digest.Digest, b []byte) bool {
	err := n.local.Put(context.WithoutCancel(ctx), d, int64(len(b)), bytes.NewReader(b))
	if err != nil {
		n.log.Error("blob served but not stored", "digest", d, "error", err)
	}
	return err == nil
}
