package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// head is the one object that appliers contend for: swapping it commits an
// append. It holds everything that is needed to write the tiles and the
// checkpoint of that append, so that
//
//   - tiles are only ever written with what is committed: two appliers, or one
//     and the remains of another that crashed, can only write the same bytes,
//     and C2SP's rule that tiles are immutable holds without exception;
//   - whoever appends next finishes what a crashed applier had committed;
//   - no checkpoint is signed before its tree is committed: the log's key never
//     signs two trees of which neither begins with the other.
//
// In the storage it is a bundle: first a signed note, then the leaves. The text
// of the note is unlike a checkpoint's, for nobody to take it for one:
//
//	entrepot ledger head of <origin>
//	<size before>
//	<size>
//	<root hash>
type head struct {
	start  uint64 // entries before those in leaves
	size   uint64
	hash   tlog.Hash
	leaves []byte // a bundle
}

const headTitle = "entrepot ledger head of "

func (h *head) sign(signer note.Signer) ([]byte, error) {
	text := fmt.Sprintf("%s%s\n%d\n%d\n%s\n", headTitle, signer.Name(), h.start, h.size, h.hash)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return nil, fmt.Errorf("signing the head: %w", err)
	}
	data := append(appendToBundle(nil, signed), h.leaves...)
	if len(data) > maxHead {
		return nil, fmt.Errorf("%d entries at once are too many: they have %d bytes, more than %d", h.size-h.start, len(data), maxHead)
	}
	return data, nil
}

// openHead reads a head and checks its signature. Errors: ErrSignature, ErrCorrupt.
func (c *Config) openHead(data []byte) (*head, error) {
	h, err := c.parseHead(data)
	if err != nil {
		return nil, fmt.Errorf("opening the head: %w", err)
	}
	return h, nil
}

func (c *Config) parseHead(data []byte) (*head, error) {
	if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
		return nil, fmt.Errorf("%w: it is cut short", ErrCorrupt)
	}
	n := 2 + int(binary.BigEndian.Uint16(data))
	text, err := c.openNote(data[2:n])
	if err != nil {
		return nil, err
	}
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || lines[0] != headTitle+c.Key.Verifier.Name() {
		return nil, fmt.Errorf("%w: it is no head of %s", ErrCorrupt, c.Key.Verifier.Name())
	}
	h := &head{leaves: data[n:]}
	var errs [3]error
	h.start, errs[0] = parseSize(lines[1])
	h.size, errs[1] = parseSize(lines[2])
	h.hash, errs[2] = tlog.ParseHash(lines[3])
	if err := errors.Join(errs[:]...); err != nil || h.start > h.size {
		return nil, fmt.Errorf("%w: it is malformed: %w", ErrCorrupt, err)
	}
	return h, nil
}

// advance is the view after the head's entries, and the objects that have to be
// written for it. Errors: ErrCorrupt.
func (v *view) finish(h *head) (next *view, objects []object, err error) {
	next = &view{tree: v.tree.clone()}
	builder := v.state.extend()
	emit := func(o object) { objects = append(objects, o) }
	err = splitBundle(h.leaves, int(h.size-h.start), true, func(i int, leaf []byte) error {
		if h.start+uint64(i) < v.tree.size {
			return nil
		}
		next.tree.add(leaf, emit)
		return builder.readLeaf(leaf)
	})
	if err == nil && next.tree.root() != h.hash {
		err = fmt.Errorf("%w: the head's entries do not come to its hash", ErrCorrupt)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("finishing what was committed: %w", err)
	}
	next.tree.emitPartial(v.tree.size, emit)
	next.state = builder.state
	return next, objects, nil
}

// readHead reads the head; nil when there is none yet.
// Errors: ErrSignature, ErrCorrupt.
func (l *Log) readHead(ctx context.Context) (*head, Version, error) {
	data, version, err := l.storage.Read(ctx, headPath, "")
	if errors.Is(err, ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	h, err := l.cfg.openHead(data)
	return h, version, err
}

// isHead says whether the head is what data is.
func (l *Log) isHead(ctx context.Context, data []byte) (bool, error) {
	now, _, err := l.storage.Read(ctx, headPath, "")
	if errors.Is(err, ErrNotExist) {
		return false, nil
	}
	return bytes.Equal(now, data), err
}
