package ledger

import (
	"errors"

	"golang.org/x/mod/sumdb/note"
)

// Key signs or verifies checkpoints. Its name is the log's origin: the first
// line of each checkpoint.
type Key struct {
	// Verifier is never nil in a key that was loaded.
	Verifier note.Verifier
	// Signer is nil in a public key.
	Signer note.Signer
}

// GenerateKey makes a key and writes it to two new files, never over existing
// ones: file, private and readable by its owner only, and file+".pub". The
// name should be the log's URL without scheme: "origin.example.org/ledger".
func GenerateKey(name, file string) error {
	return errors.New("generating a ledger key: not built yet")
}

// LoadKey reads a private or a public key file.
func LoadKey(file string) (Key, error) {
	return Key{}, errors.New("loading a ledger key: not built yet")
}
