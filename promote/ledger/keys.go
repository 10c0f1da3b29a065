package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// Key signs or verifies checkpoints. Its name is the log's origin: the first
// line of each checkpoint.
type Key struct {
	// Verifier is never nil in a key that was loaded.
	Verifier note.Verifier
	// Signer is nil in a public key.
	Signer note.Signer

	public string // the text of the public key
}

const (
	privatePrefix = "PRIVATE+KEY+"
	maxKeyFile    = 4 << 10 // bytes

	// algEd25519 is the algorithm byte of C2SP signed-note's keys.
	algEd25519 = 1
)

// GenerateKey makes a key and writes it to two new files, never over existing
// ones: file, private and readable by its owner only, and file+".pub". The
// name should be the log's URL without scheme: "origin.example.org/ledger".
func GenerateKey(name, file string) error {
	private, public, err := newKey(name)
	if err != nil {
		return fmt.Errorf("generating a ledger key: %w", err)
	}
	if err := writeNew(file+".pub", public+"\n", 0o644); err != nil {
		return fmt.Errorf("writing the public ledger key: %w", err)
	}
	if err := writeNew(file, private+"\n", 0o600); err != nil {
		// A public key without its private one is of no use to anyone.
		return errors.Join(fmt.Errorf("writing the private ledger key: %w", err), os.Remove(file+".pub"))
	}
	return nil
}

func newKey(name string) (private, public string, err error) {
	if name == "" || !utf8.ValidString(name) || strings.ContainsRune(name, '+') || strings.ContainsFunc(name, func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c)
	}) {
		return "", "", fmt.Errorf(`name %q: want one without spaces and "+", such as origin.example.org/ledger`, name)
	}
	return note.GenerateKey(rand.Reader, name)
}

// writeNew writes a file that must not exist yet, and is whole or not there.
func writeNew(file, text string, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return syncDir(filepath.Dir(file))
}

// LoadKey reads a private or a public key file.
func LoadKey(file string) (Key, error) {
	info, err := os.Stat(file) //nolint:gosec // the operator names it
	if err != nil {
		return Key{}, fmt.Errorf("loading a ledger key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return Key{}, fmt.Errorf("loading a ledger key: %s is no key file", file)
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return Key{}, fmt.Errorf("loading a ledger key: %w", err)
	}
	key, err := ParseKey(string(text))
	if err != nil {
		return Key{}, fmt.Errorf("loading a ledger key from %s: %w", file, err)
	}
	return key, nil
}

// Fingerprint is what people compare keys by: the SHA-256 of a public key's file as
// keygen wrote it, in hex, which sha256sum tells of it, too.
func (k Key) Fingerprint() string {
	sum := sha256.Sum256([]byte(k.public + "\n"))
	return hex.EncodeToString(sum[:])
}

// Public is the text of the public key.
func (k Key) Public() string { return k.public }

// ParseKey parses the text of a key file, private or public.
func ParseKey(text string) (Key, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, privatePrefix) {
		verifier, err := note.NewVerifier(text)
		if err != nil {
			return Key{}, errors.New("want a line such as NAME+8 HEX DIGITS+BASE64, or PRIVATE+KEY+… of a private key")
		}
		return Key{Verifier: verifier, public: text}, nil
	}
	// The errors of a private key must not repeat any of it.
	signer, err := note.NewSigner(text)
	if err != nil {
		return Key{}, errors.New("the private key is malformed or cut short")
	}
	// PRIVATE+KEY+NAME+HASH+DATA: base64 has "+" too, names have none.
	fields := strings.SplitN(text, "+", 5)
	data, err := base64.StdEncoding.DecodeString(fields[len(fields)-1])
	if err != nil || len(data) != 1+ed25519.SeedSize || data[0] != algEd25519 {
		return Key{}, errors.New("the private key is not an Ed25519 key")
	}
	public := ed25519.NewKeyFromSeed(data[1:]).Public().(ed25519.PublicKey)
	verifierKey, err := note.NewEd25519VerifierKey(signer.Name(), public)
	if err != nil {
		return Key{}, fmt.Errorf("making the public key: %w", err)
	}
	verifier, err := note.NewVerifier(verifierKey)
	if err != nil {
		return Key{}, fmt.Errorf("making the public key: %w", err)
	}
	return Key{Verifier: verifier, Signer: signer, public: verifierKey}, nil
}
