package clientconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
)

// Write makes the files of a plan what they are to be, and keeps what was there.
// Files of the client that an earlier plan had and this one has not are put back.
// When anything fails, all is as it was before.
func (m *Machine) Write(p *Plan) (err error) {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	before := m.journal
	before.Files, before.Dirs = slices.Clone(before.Files), slices.Clone(before.Dirs)
	var written []seen
	defer func() {
		if err == nil {
			return
		}
		dirs := m.journal.Dirs
		for _, s := range slices.Backward(written) {
			err = errors.Join(err, restore(s.real, s.now, s.meta))
		}
		failed := m.journal.Files
		m.journal = before
		m.journal.Dirs = dirs // those made now go with the journal, or are known to it
		m.dropBackups(failed)
		m.removeDirs()
		err = errors.Join(err, m.writeJournal())
	}()
	left, err := m.leave(p)
	if err != nil {
		return err
	}
	if err := m.keep(p); err != nil {
		return err
	}
	for _, s := range left {
		written = append(written, s)
		if err := restore(s.real, s.base, s.baseMeta); err != nil {
			return err
		}
	}
	for _, f := range p.Files {
		if f.Action == Unchanged {
			continue
		}
		if err := m.makeDir(filepath.Dir(f.seen.real), 0o755); err != nil {
			return fmt.Errorf("writing %s: %w", f.Path, err)
		}
		written = append(written, f.seen)
		if err := replace(f.seen.real, []byte(f.Content), f.modes()); err != nil {
			return fmt.Errorf("writing %s: %w", f.Path, err)
		}
	}
	if err := m.writeJournal(); err != nil {
		return err
	}
	m.dropBackups(before.Files)
	return nil
}

// modes are those that a file is written with: its own, or those of a
// configuration that all may read.
func (f *File) modes() meta {
	if f.seen.now == nil {
		return meta{Mode: 0o644, UID: -1, GID: -1}
	}
	return meta{Mode: f.seen.meta.Mode, UID: f.seen.meta.UID, GID: f.seen.meta.GID}
}

// keep puts what the files of a plan are now aside, and into the journal what
// they are to be.
func (m *Machine) keep(p *Plan) error {
	if len(p.Files) == 0 && len(m.journal.Files) == 0 {
		return nil
	}
	dir, err := m.state("")
	if err != nil {
		return err
	}
	if err := m.makeDir(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("keeping what is there: %w", err)
	}
	if err := m.makeDir(dir, 0o700); err != nil { // a configuration may hold secrets
		return fmt.Errorf("keeping what is there: %w", err)
	}
	for i := range p.Files {
		if err := m.keepFile(p.Client, &p.Files[i]); err != nil {
			return fmt.Errorf("keeping what is in %s: %w", p.Files[i].Path, err)
		}
	}
	return m.writeJournal()
}

func (m *Machine) keepFile(client Client, f *File) error {
	e := entry{
		Path: f.Path, Clients: []Client{client}, Part: f.part, Existed: f.seen.base != nil, Meta: f.seen.baseMeta,
		After: digestOf([]byte(f.Content)),
	}
	if e.Existed {
		e.Before = digestOf(f.seen.base)
		e.Backup = e.Before + ".orig"
		name, err := m.state(e.Backup)
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(name, f.seen.base, 0o600); err != nil {
			return err
		}
	}
	i := m.journal.index(f.Path)
	if i < 0 {
		m.journal.Files = append(m.journal.Files, e)
		return nil
	}
	for _, other := range m.journal.Files[i].Clients {
		if other != client {
			e.Clients = append(e.Clients, other)
		}
	}
	m.journal.Files[i] = e
	return nil
}

// leave takes the files out of the journal that the client no longer needs, and
// returns those that nobody else needs.
func (m *Machine) leave(p *Plan) ([]seen, error) {
	var left []seen
	for i, e := range slices.Backward(m.journal.Files) {
		wanted := slices.ContainsFunc(p.Files, func(f File) bool { return f.Path == e.Path })
		if wanted || !slices.Contains(e.Clients, p.Client) {
			continue
		}
		if len(e.Clients) > 1 {
			m.journal.Files[i].Clients = slices.DeleteFunc(slices.Clone(e.Clients), func(c Client) bool { return c == p.Client })
			continue
		}
		s, err := m.look(e.Path)
		if err != nil {
			return nil, err
		}
		left = append(left, s)
		m.journal.Files = slices.Delete(m.journal.Files, i, i+1)
	}
	return left, nil
}

// dropBackups removes the backups that the journal no longer names.
func (m *Machine) dropBackups(former []entry) {
	for _, e := range former {
		used := func(now entry) bool { return now.Backup == e.Backup }
		if e.Backup == "" || slices.ContainsFunc(m.journal.Files, used) {
			continue
		}
		if name, err := m.state(e.Backup); err == nil {
			_ = os.Remove(name) // what is left is found beside the journal
		}
	}
}

// restore makes a file what it was: nil is that there was none.
func restore(name string, content []byte, what meta) error {
	if content == nil {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what was written: %w", err)
		}
		return nil
	}
	if now, is, err := readFile(name); err == nil && now != nil && bytes.Equal(now, content) && is == what {
		return nil
	}
	if err := replace(name, content, what); err != nil {
		return fmt.Errorf("putting %s back: %w", name, err)
	}
	return nil
}

// replace writes a file at once, with its mode, its owner and, where that is
// given, its time.
func replace(name string, content []byte, what meta) error {
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(filepath.Dir(name)), renameio.WithStaticPermissions(what.Mode.Perm()))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // nothing is left of it when it was put in place
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
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	if what.Modified.IsZero() {
		return nil
	}
	return os.Chtimes(name, what.Modified, what.Modified)
}
