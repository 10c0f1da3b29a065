package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"entrepot/blobstore"
	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// Records in the node's store.
const (
	// keptRecord is how far the mirror was when it last stopped.
	keptRecord = "mirror/sync"
	// imageRecords are what is held of an image: mirror/images/<upstream>/<repository>/<digest>.
	imageRecords = "mirror/images"
)

// kept is what is known of the last sync, also after a restart.
type kept struct {
	Started   time.Time         `json:"started,omitzero"`
	Finished  time.Time         `json:"finished,omitzero"`  // of the last that came to its end
	Rechecked time.Time         `json:"rechecked,omitzero"` // when all was last looked at
	Entries   map[string]uint64 `json:"entries,omitempty"`  // of the ledgers then, by upstream
	Rules     string            `json:"rules"`
	Failed    int               `json:"failed"`
	Names     int               `json:"names"` // that were selected
	Held      int               `json:"held"`  // of them, those of which everything was there
	Blobs     int               `json:"blobs"` // that were held
	Bytes     int64             `json:"bytes"` // of them
}

// rulesID tells selections apart.
func rulesID(rules []Rule) string { return digest.FromString(fmt.Sprintf("%v", rules)).Encoded()[:16] }

func (m *Mirror) readKept(ctx context.Context) kept {
	var k kept
	if err := m.readRecord(ctx, keptRecord, &k); err != nil && !errors.Is(err, blobstore.ErrNotExist) {
		m.log.Error("the mirror begins anew", "error", err)
	}
	if k.Entries == nil {
		k.Entries = map[string]uint64{}
	}
	return k
}

func (m *Mirror) readRecord(ctx context.Context, key string, v any) error {
	b, err := m.cfg.Store.Record(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("reading the record %s: %w", key, err)
	}
	return nil
}

func (m *Mirror) writeRecord(ctx context.Context, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return m.cfg.Store.PutRecord(ctx, key, b)
}

// image is what is held of an image.
type image struct {
	// Complete says that everything is there. Below is what there is until then, which
	// is not to be removed.
	Complete bool `json:"complete"`
	// Below are the manifests and blobs, the root's own among them, with what is
	// attached; Attached are the roots of that.
	Below    []digest.Digest `json:"below"`
	Attached []digest.Digest `json:"attached,omitempty"`
}

// root is content that is held, whatever names lead to it: a file, or an image in a
// repository.
type root struct {
	kind       ledger.Kind
	upstream   string
	repository string // of images
	digest     digest.Digest
}

func rootOf(n *Name) root {
	if n.Kind == ledger.File {
		// Of files only the content is held.
		return root{kind: ledger.File, digest: n.Digest}
	}
	return root{kind: ledger.Image, upstream: n.Upstream, repository: n.repository(), digest: n.Digest}
}

// key is that of the record of an image.
func (r *root) key() string {
	return imageRecords + "/" + r.upstream + "/" + r.repository + "/" + r.digest.String()
}

// rootOfKey is the reverse of key.
func rootOfKey(key string) (root, bool) {
	rest, ok := strings.CutPrefix(key, imageRecords+"/")
	upstream, rest, found := strings.Cut(rest, "/")
	last := strings.LastIndex(rest, "/")
	if !ok || !found || last < 0 {
		return root{}, false
	}
	return root{ledger.Image, upstream, rest[:last], digest.Digest(rest[last+1:])}, true
}
