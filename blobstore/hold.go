package blobstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
)

// heldMode is the permissions of the data file of a blob that is held: none to
// write. Its directory entry says so, which is read at open anyway.
const heldMode fs.FileMode = 0o400

// isHeld reads it from the permissions of a data file.
func isHeld(mode fs.FileMode) bool { return mode&0o200 == 0 }

// Hold keeps a blob from being evicted until it is let go of. A store that is
// opened with KeepHeld goes on holding it. Errors: ErrNotExist, ErrInvalidDigest.
func (d *Dir) Hold(dgst digest.Digest) error { return d.setHeld(dgst, true, heldMode) }

// LetGo takes Hold back. Errors: ErrNotExist, ErrInvalidDigest.
func (d *Dir) LetGo(dgst digest.Digest) error { return d.setHeld(dgst, false, fileMode) }

func (d *Dir) setHeld(dgst digest.Digest, held bool, mode fs.FileMode) error {
	s, err := parseDigest(dgst)
	if err != nil {
		return err
	}
	if err := d.writable(); err != nil {
		return err
	}
	name := d.name(string(s.bytes()))
	name.Lock()
	defer name.Unlock()
	was, known := d.index.setHeld(&s, held)
	if !known {
		return absent(dgst)
	}
	if was == held {
		return nil
	}
	err = os.Chmod(d.blobFile(dgst), mode)
	if errors.Is(err, fs.ErrNotExist) { // who opens it next drops it
		return absent(dgst)
	}
	if err != nil {
		d.index.setHeld(&s, was)
		return fmt.Errorf("marking blob %s as held: %w", dgst, err)
	}
	if !held {
		d.wakeEvictor()
	}
	return nil
}

// Held lists the blobs that are held, in no particular order.
func (d *Dir) Held() []Info {
	var held []Info
	for _, e := range d.index.snapshot() {
		if size, used, ok := d.index.heldInfo(e); ok {
			held = append(held, Info{Digest: rawDigest(e.sum), Size: size, ModTime: used})
		}
	}
	return held
}

// Spare has a blob evicted after others that were used lately, or takes that back: for
// content that is on its way to another store. It does not outlive the process.
func (d *Dir) Spare(dgst digest.Digest, spared bool) {
	if s, err := parseDigest(dgst); err == nil {
		d.index.spare(&s, spared)
	}
}
