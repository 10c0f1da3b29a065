package clientconf

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// Write makes the files of a plan what they are to be, and keeps what was there.
// Files of the client that an earlier plan had and this one has not are put back.
// When anything fails, all is as it was before. A process that dies meanwhile leaves
// what the next Write goes on with, and what Undo puts back.
func (m *Machine) Write(p *Plan) (err error) {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.tidy(); err != nil {
		return fmt.Errorf("removing what another client-config left when it died: %w", err)
	}
	before := m.journal
	before.Files, before.Dirs = slices.Clone(before.Files), slices.Clone(before.Dirs)
	var written []seen
	defer func() {
		if err != nil {
			err = errors.Join(err, m.takeBack(before, written))
		}
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
		if err := m.restore(s.real, s.base, s.baseMeta); err != nil {
			return err
		}
	}
	for _, f := range p.Files {
		if f.Action == Unchanged {
			continue
		}
		written = append(written, f.seen)
		if err := m.writeFile(&f); err != nil {
			return fmt.Errorf("writing %s: %w", f.Path, err)
		}
	}
	return m.settle(left)
}

func (m *Machine) writeFile(f *File) error {
	for _, dir := range m.missing(filepath.Dir(f.seen.real)) {
		if err := m.disk.mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return m.disk.write(f.seen.real, []byte(f.Content), f.modes())
}

// settle has the journal say that all was written, and that nothing of us is in the
// files that were left.
func (m *Machine) settle(left []seen) error {
	for _, s := range left {
		i := m.journal.index(s.path)
		m.journal.Files = slices.Delete(m.journal.Files, i, i+1)
	}
	for i := range m.journal.Files {
		m.journal.Files[i].written()
	}
	if err := m.writeJournal(); err != nil {
		return err
	}
	return m.sweep()
}

// takeBack makes all what it was before a Write that failed.
func (m *Machine) takeBack(before journal, written []seen) error {
	var all error
	for _, s := range slices.Backward(written) {
		all = errors.Join(all, m.restore(s.real, s.now, s.meta))
	}
	if all != nil {
		return all // the journal knows what may be there
	}
	before.Dirs = m.journal.Dirs // those made now go with the journal, or are known to it
	m.journal = before
	if err := m.removeDirs(); err != nil {
		return err
	}
	if m.birth == nil {
		if err := m.sweep(); err != nil {
			return err
		}
	}
	return m.writeJournal()
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
// they are to be, and which folders are made for them.
func (m *Machine) keep(p *Plan) error {
	if len(p.Files) == 0 && len(m.journal.Files) == 0 {
		return nil
	}
	if err := m.prepare(); err != nil {
		return fmt.Errorf("keeping what is there: %w", err)
	}
	for i := range p.Files {
		f := &p.Files[i]
		if err := m.keepFile(p.Client, f); err != nil {
			return fmt.Errorf("keeping what is in %s: %w", f.Path, err)
		}
		if err := m.note(m.missing(filepath.Dir(f.seen.real))); err != nil {
			return err
		}
	}
	if err := m.writeJournal(); err != nil {
		return err
	}
	return m.bear()
}

func (m *Machine) keepFile(client Client, f *File) error {
	e := entry{
		Path: f.Path, Clients: []Client{client}, Part: f.part, Existed: f.seen.base != nil, Meta: f.seen.baseMeta,
		After: digestOf([]byte(f.Content)),
	}
	if f.seen.now != nil {
		e.Was = digestOf(f.seen.now)
	}
	if e.Existed {
		e.Before = digestOf(f.seen.base)
		e.Backup = e.Before + backupSuffix
		name, err := m.state(e.Backup)
		if err != nil {
			return err
		}
		if err := m.disk.write(name, f.seen.base, private()); err != nil {
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
	former := m.journal.Files[i]
	e.Former = append(slices.Clone(former.Former), former.Part)
	m.journal.Files[i] = e
	return nil
}

// leave returns the files of the journal that neither the client nor anybody else
// needs any more. They are in the journal until they are put back.
func (m *Machine) leave(p *Plan) ([]seen, error) {
	var left []seen
	for i := range m.journal.Files {
		e := &m.journal.Files[i]
		wanted := slices.ContainsFunc(p.Files, func(f File) bool { return f.Path == e.Path })
		if wanted || !slices.Contains(e.Clients, p.Client) {
			continue
		}
		if len(e.Clients) > 1 {
			e.Clients = slices.DeleteFunc(slices.Clone(e.Clients), func(c Client) bool { return c == p.Client })
			continue
		}
		s, err := m.look(e.Path)
		if err != nil {
			return nil, err
		}
		if s.base != nil {
			e.Bare = digestOf(s.base)
		}
		left = append(left, s)
	}
	return left, nil
}

// restore makes a file what it was: nil is that there was none.
func (m *Machine) restore(name string, content []byte, what meta) error {
	if content == nil {
		if err := m.disk.remove(name); err != nil {
			return fmt.Errorf("removing what was written: %w", err)
		}
		return nil
	}
	if now, is, err := readFile(name); err == nil && now != nil && bytes.Equal(now, content) && is == what {
		return nil
	}
	if err := m.disk.write(name, content, what); err != nil {
		return fmt.Errorf("putting %s back: %w", name, err)
	}
	return nil
}
