package clientconf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// disk changes files and folders. Each change is done at one instant: a process that
// dies leaves what was there or what was to be, and perhaps something half done by
// the name that [freshName] gives.
type disk struct {
	// before is called before each step, which fails with its error. Nil for nothing;
	// tests die here.
	before func() error
	// lazy leaves it to the kernel when what was written is on the disk.
	lazy bool
}

// freshSuffix ends the names of what is being made. No client reads such files.
const freshSuffix = ".entrepot-new"

// freshName is by what name a file or folder is made, or taken away, beside its own.
func freshName(name string) string {
	return filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+freshSuffix)
}

// isFresh says whether the last element of a path is such a name.
func isFresh(base string) bool {
	return strings.HasPrefix(base, ".") && strings.HasSuffix(base, freshSuffix)
}

func (d *disk) step() error {
	if d.before == nil {
		return nil
	}
	return d.before()
}

// write makes a file what it is to be: its content, mode, owner and, where that is
// given, its time.
func (d *disk) write(name string, content []byte, what meta) error {
	fresh := freshName(name)
	if err := d.remove(fresh); err != nil {
		return err
	}
	if err := d.fill(fresh, content, what); err != nil {
		return errors.Join(err, d.remove(fresh))
	}
	return d.rename(fresh, name)
}

// fill makes a file that is not there yet, step by step, and has it on the disk.
func (d *disk) fill(name string, content []byte, what meta) (err error) {
	if err := d.step(); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := d.step(); err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	if what.UID >= 0 {
		if err := f.Chown(what.UID, what.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(what.Mode); err != nil {
		return err
	}
	if !d.lazy {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if what.Modified.IsZero() {
		return nil
	}
	return os.Chtimes(name, what.Modified, what.Modified)
}

// mkdir makes a folder with its mode.
func (d *disk) mkdir(name string, perm fs.FileMode) error {
	fresh := freshName(name)
	if err := d.removeAll(fresh); err != nil {
		return err
	}
	if err := d.begin(fresh, perm); err != nil {
		return err
	}
	return d.rename(fresh, name)
}

// begin makes a folder that has its mode, whatever the umask is, a moment later.
func (d *disk) begin(name string, perm fs.FileMode) error {
	if err := d.step(); err != nil {
		return err
	}
	if err := os.Mkdir(name, perm); err != nil {
		return err
	}
	return os.Chmod(name, perm)
}

func (d *disk) rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// remove removes a file or an empty folder, which need not be there.
func (d *disk) remove(name string) error {
	if _, err := os.Lstat(name); absent(err) {
		return nil
	}
	if err := d.step(); err != nil {
		return err
	}
	if err := os.Remove(name); !absent(err) {
		return err
	}
	return nil
}

// removeAll removes what has the name of something half done, which need not be there.
func (d *disk) removeAll(fresh string) error {
	if _, err := os.Lstat(fresh); absent(err) {
		return nil
	}
	if err := d.step(); err != nil {
		return err
	}
	return os.RemoveAll(fresh)
}
