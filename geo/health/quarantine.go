package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"entrepot/blobstore/filelock"

	"github.com/google/renameio/v2"
)

// ErrNotQuarantined says that there is nothing to lift.
var ErrNotQuarantined = errors.New("the mirror is not quarantined")

// Quarantined is a mirror that sent wrong bytes, as the file has it.
type Quarantined struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// ReadQuarantine reads the file of quarantined mirrors, by name. One that is not
// there has none.
func ReadQuarantine(path string) (map[string]Quarantined, error) {
	all := map[string]Quarantined{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the quarantined mirrors in %s: %w; mend the file, or remove it to lift every quarantine", path, err)
	}
	return all, nil
}

// changeQuarantine replaces the file with what change makes of it, while no other process
// does.
func changeQuarantine(path string, change func(all map[string]Quarantined) error) (err error) {
	unlock, err := lockBeside(path)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := ReadQuarantine(path)
	if err != nil {
		return err
	}
	if err := change(all); err != nil {
		return err
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return replaceKept(path, append(data, '\n'))
}

// replaceKept replaces a file, which stays its owner's: root may lift what a router has
// to read.
func replaceKept(path string, data []byte) error {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // nothing is left of it when it was put in place
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := keepOwner(f.File, path); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// keepOwner has a file belong to whom another belongs to, if that is there.
func keepOwner(f *os.File, like string) error {
	info, err := os.Stat(like)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// lockBeside keeps others from a file that is replaced, and so cannot be locked itself. A
// process that ends lets go of it.
func lockBeside(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := keepOwner(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := filelock.Wait(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // nothing was written to it
}

// Lift takes a mirror out of the file of quarantined ones; a running router sees
// it with its next probe. Errors: ErrNotQuarantined.
func Lift(path, name string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return notQuarantined(path, name) // nor is there anything to lock
	}
	return changeQuarantine(path, func(all map[string]Quarantined) error {
		if _, ok := all[name]; !ok {
			return notQuarantined(path, name)
		}
		delete(all, name)
		return nil
	})
}

func notQuarantined(path, name string) error {
	return fmt.Errorf("%w: %q is not in %s", ErrNotQuarantined, name, path)
}
