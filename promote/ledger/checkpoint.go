package ledger

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is a signed statement of what a log holds.
type Checkpoint struct {
	Origin string // the log's name, that of its key
	Size   uint64 // number of entries
	Hash   tlog.Hash
	Signed []byte // the signed note; nil of a log without entries
}

func (c Checkpoint) tree() tlog.Tree { return tlog.Tree{N: int64(c.Size), Hash: c.Hash} }

// signCheckpoint makes a checkpoint of a tree (C2SP tlog-checkpoint).
func signCheckpoint(signer note.Signer, size uint64, root tlog.Hash) (Checkpoint, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", signer.Name(), size, root)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("signing the checkpoint: %w", err)
	}
	return Checkpoint{Origin: signer.Name(), Size: size, Hash: root, Signed: signed}, nil
}

// openCheckpoint reads a checkpoint and checks its signature.
// Errors: ErrSignature, ErrCorrupt.
func (c *Config) openCheckpoint(signed []byte) (Checkpoint, error) {
	text, err := c.openNote(signed)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("opening the checkpoint: %w", err)
	}
	lines := strings.Split(text, "\n")
	// A text ends in a newline; lines after the third are extensions, which
	// C2SP has readers ignore.
	if len(lines) < 4 || lines[0] == "" {
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint is not origin, size and hash", ErrCorrupt)
	}
	size, err := parseSize(lines[1])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint's size: %w", ErrCorrupt, err)
	}
	hash, err := tlog.ParseHash(lines[2])
	if err != nil || hash.String() != lines[2] {
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint's hash %q is not one", ErrCorrupt, lines[2])
	}
	if !c.AnyKey && lines[0] != c.Key.Verifier.Name() {
		return Checkpoint{}, fmt.Errorf("%w: it is of %q, and the key of %q", ErrSignature, lines[0], c.Key.Verifier.Name())
	}
	return Checkpoint{Origin: lines[0], Size: size, Hash: hash, Signed: signed}, nil
}

// parseSize parses a number of leaves.
func parseSize(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s || n > maxInteger {
		return 0, fmt.Errorf("%q is no number of entries", s)
	}
	return n, nil
}

// openNote returns the text of a note that the key signed, or of any with
// AnyKey. Errors: ErrSignature, ErrCorrupt.
func (c *Config) openNote(signed []byte) (text string, err error) {
	verifiers := note.VerifierList()
	if !c.AnyKey {
		verifiers = note.VerifierList(c.Key.Verifier)
	}
	opened, err := note.Open(signed, verifiers)
	if err == nil {
		return opened.Text, nil
	}
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		if c.AnyKey {
			return unverified.Note.Text, nil
		}
		var signers []string
		for _, s := range unverified.Note.UnverifiedSigs {
			signers = append(signers, fmt.Sprintf("%s+%08x", s.Name, s.Hash))
		}
		return "", fmt.Errorf("%w, %s+%08x, but by %s", ErrSignature,
			c.Key.Verifier.Name(), c.Key.Verifier.KeyHash(), strings.Join(signers, ", "))
	}
	if invalid, ok := errors.AsType[*note.InvalidSignatureError](err); ok {
		return "", fmt.Errorf("%w: the signature by %s+%08x is not of this text", ErrSignature, invalid.Name, invalid.Hash)
	}
	return "", fmt.Errorf("%w: it is no signed note", ErrCorrupt)
}

// check says what is missing in a configuration.
func (c *Config) check() error {
	if c.Key.Verifier == nil && !c.AnyKey {
		return errors.New("no key was given to check the ledger's signature with")
	}
	if c.AnyKey && c.Key != (Key{}) {
		return errors.New("a key was given, and any key is accepted: want one of them")
	}
	return nil
}

// Objects are the paths of the tiles and bundles that a log of the checkpoint has,
// besides the checkpoint itself.
func (c Checkpoint) Objects() iter.Seq[string] {
	return func(yield func(string) bool) {
		for level := entriesLevel; ; level++ {
			// A tile of a level has tileWidth of the hashes below it.
			hashes := c.Size
			if level > 0 {
				hashes = c.Size >> (tileHeight * level)
			}
			if hashes == 0 {
				return
			}
			for n := range (hashes + tileWidth - 1) / tileWidth {
				if !yield(tilePath(level, n, int(min(tileWidth, hashes-n*tileWidth)))) {
					return
				}
			}
		}
	}
}
