package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/upstream"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Kinds of records.
const (
	holderRecords     = "holders"      // holders/<upstream>/<repo>/<digest>: that a repository holds a blob
	fileHolderRecords = "file-holders" // file-holders/<upstream>/<digest>: that a file server has content by its digest
)

// maxHolders bounds what is remembered in memory of who holds what.
const maxHolders = 65536

// holders knows which repositories were seen to hold which blobs.
//
// The store is one for all upstreams, and has content by digest. Where one of
// them is private, that somebody may read a repository, and that the store has a
// digest, do not say that the one holds the other: whoever may push a manifest
// anywhere can name any digest in it. There, upstream has to have said so for that
// repository, by sending the blob or in answer to a HEAD. What it said once is
// remembered, as what it sent is. With the size: some servers have an answer, and
// the same, for every path.
//
// A nil *holders is that of a node without private upstreams: there, content is
// whoever's knows its digest.
type holders struct {
	node *Node
	seen *lru.Cache[nameKey, int64] // the size of the blob, in bytes
}

// holderRecord is the JSON value of holder records.
type holderRecord struct {
	Size  int64     `json:"size"` // of the blob, in bytes
	Since time.Time `json:"since"`
}

func newHolders(n *Node) *holders {
	for up := range n.all() {
		if up.private {
			return &holders{node: n, seen: newLRU[nameKey, int64](maxHolders)}
		}
	}
	return nil
}

// recordOf is where it is kept that a name leads to a blob.
func (h *holders) recordOf(key nameKey) string {
	if key.up.files != nil {
		return fileHolderRecords + "/" + key.up.name + "/" + strings.TrimPrefix(key.repo, blobPathOf(""))
	}
	return key.recordKey(holderRecords)
}

// known says whether a repository was seen to hold a blob of so many bytes, negative
// for any.
func (h *holders) known(key nameKey, size int64) bool {
	seen, ok := h.seen.Get(key)
	if !ok {
		var r holderRecord
		if !h.node.readRecord(h.recordOf(key), &r) {
			return false
		}
		seen = r.Size
		h.seen.Add(key.clone(), seen)
	}
	return size < 0 || size == seen
}

// learn takes in that a repository holds a blob, as upstream says, of so many bytes.
func (h *holders) learn(key nameKey, size int64) {
	if h == nil || size < 0 {
		return
	}
	if seen, ok := h.seen.Get(key); ok && seen == size {
		return
	}
	key = key.clone()
	h.seen.Add(key, size)
	h.node.writeRecord(h.recordOf(key), holderRecord{size, time.Now().UTC()}, true)
}

// vouch is nil when a repository holds a blob of so many bytes (negative when that is
// not known), as far as upstream ever said, or says now. Errors are those of upstream.
func (h *holders) vouch(ctx context.Context, key nameKey, size int64) error {
	if h == nil || h.known(key, size) { //nolint:contextcheck // what is loaded is for every later request
		return nil
	}
	if err := h.node.absent.recall(key); err != nil {
		return err
	}
	told, err := h.node.askBlob(ctx, key)
	if err != nil {
		return err
	}
	if size >= 0 && told != size {
		return fmt.Errorf("%s has %d bytes where it should have %d of %s: %w", key.up.name, told, size, key.ref, blobstore.ErrNotExist)
	}
	h.learn(key, told) //nolint:contextcheck // kept whoever asked
	return nil
}

// askBlob asks upstream for the size of a blob, in bytes; negative when it does not
// say.
func (n *Node) askBlob(ctx context.Context, key nameKey) (int64, error) {
	req := &upstream.Request{Method: http.MethodHead, Repository: key.repo, Path: key.repo + "/blobs/" + key.ref}
	if key.up.files != nil {
		req = &upstream.Request{Method: http.MethodHead, Path: key.repo, Small: true}
	}
	resp, err := key.up.client.Do(ctx, req)
	if err != nil {
		n.absent.remember(key, err)
		return -1, err
	}
	resp.Body.Close()
	return resp.TotalSize, nil
}
