package clientconf

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// stateDir has the journal, and what was there before.
const stateDir = "/var/lib/entrepot/client-config"

// birth is a folder of the state that is not in its place yet: the folders that lead
// to the journal come there in one step, with the journal that names them.
type birth struct{ top, fresh string }

// state is the path of a file beside the journal.
func (m *Machine) state(name string) (string, error) {
	where, err := m.real(stateDir + "/" + name)
	if err != nil || m.birth == nil {
		return where, err
	}
	return m.birth.fresh + strings.TrimPrefix(where, m.birth.top), nil
}

// prepare has a folder for the state: the one that is there, or one to be born.
func (m *Machine) prepare() error {
	dir, err := m.state("")
	if err != nil {
		return err
	}
	missing := m.missing(dir)
	if len(missing) == 0 {
		return nil
	}
	if err := m.note(missing); err != nil {
		return err
	}
	m.birth = &birth{top: missing[0], fresh: freshName(missing[0])}
	for _, at := range missing {
		perm := os.FileMode(0o755)
		if at == dir {
			perm = 0o700 // a configuration may hold secrets
		}
		if err := m.disk.begin(m.birth.fresh+strings.TrimPrefix(at, m.birth.top), perm); err != nil {
			return err
		}
	}
	return nil
}

// bear puts the state in its place, with the journal that was written into it.
func (m *Machine) bear() error {
	if m.birth == nil {
		return nil
	}
	if err := m.disk.rename(m.birth.fresh, m.birth.top); err != nil {
		return err
	}
	m.birth = nil
	return nil
}

// forget removes the journal, with the folders that were made for it. They are known
// to the end: the state goes to beside the outermost of them first, and from there
// when they are gone.
func (m *Machine) forget() error {
	if b := m.birth; b != nil {
		m.birth = nil
		return m.disk.removeAll(b.fresh)
	}
	dir, err := m.state("")
	if err != nil {
		return err
	}
	made := m.madeFor(dir, &m.journal)
	journal := filepath.Join(dir, journalName)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || len(made) == 0 {
		return m.disk.remove(journal) // somebody made the folder, or has something there
	}
	left := freshName(made[0])
	if err := m.disk.rename(dir, left); err != nil { // to another file system
		return errors.Join(m.disk.remove(journal), m.removeDirs())
	}
	return m.finish(left, made)
}

// madeFor are the folders of a journal that lead to the state, outermost first.
func (m *Machine) madeFor(dir string, j *journal) []string {
	var made []string
	for at := dir; at != m.root && at != filepath.Dir(at); at = filepath.Dir(at) {
		if relative, err := filepath.Rel(m.root, at); err == nil && slices.Contains(j.Dirs, relative) {
			made = append(made, at)
		}
	}
	slices.Reverse(made)
	return made
}

// finish removes the folders that were made for a state that is no more in its place,
// and it. What somebody else put there stays.
func (m *Machine) finish(left string, made []string) error {
	for _, at := range slices.Backward(made) {
		if entries, err := os.ReadDir(at); err != nil || len(entries) > 0 {
			continue
		}
		if err := m.disk.remove(at); err != nil {
			return err
		}
	}
	return m.disk.removeAll(left)
}

// tidy removes what a process that died has left half done.
func (m *Machine) tidy() error {
	dir, err := m.state("")
	if err != nil {
		return err
	}
	for at := dir; at != m.root && at != filepath.Dir(at); at = filepath.Dir(at) {
		fresh := freshName(at)
		var j journal
		if text, _, err := readFile(filepath.Join(fresh, journalName)); err == nil && text != nil && json.Unmarshal(text, &j) == nil {
			if err := m.finish(fresh, m.madeFor(dir, &j)); err != nil {
				return err
			}
		}
		if err := m.disk.removeAll(fresh); err != nil {
			return err
		}
	}
	for _, e := range m.journal.Files {
		where, err := m.real(e.Path)
		if err != nil {
			return err
		}
		if err := m.disk.remove(freshName(where)); err != nil {
			return err
		}
	}
	for _, made := range m.journal.Dirs {
		where, err := m.real(made) // a journal in an image is somebody's word
		if err != nil {
			return err
		}
		if err := m.disk.removeAll(freshName(where)); err != nil {
			return err
		}
	}
	return m.sweep()
}

// sweep removes the backups that the journal does not name.
func (m *Machine) sweep() error {
	dir, err := m.state("")
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, file := range entries {
		used := func(e entry) bool { return e.Backup == file.Name() }
		ours := strings.HasSuffix(file.Name(), backupSuffix) || isFresh(file.Name())
		if !ours || slices.ContainsFunc(m.journal.Files, used) {
			continue
		}
		if err := m.disk.remove(filepath.Join(dir, file.Name())); err != nil {
			return err
		}
	}
	return nil
}
