package clientconf

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Undone is a file that was put back.
type Undone struct {
	Path string `json:"path"`
	// Outcome says how: restored, removed, cut (our part was taken out of what
	// somebody changed since), kept (another client needs it) or gone.
	Outcome string `json:"outcome"`
}

// Undo puts the files back that were written for a client. What somebody changed
// since stays, without our part; where that cannot be told apart, nothing at all is
// done, unless force has everything put back as it was before.
func (m *Machine) Undo(client Client, force bool) ([]Undone, error) {
	unlock, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	var undone []Undone
	var files []seen
	var problems []error
	rest := journal{Version: journalVersion, Dirs: m.journal.Dirs}
	for _, e := range m.journal.Files {
		if !slices.Contains(e.Clients, client) {
			rest.Files = append(rest.Files, e)
			continue
		}
		if len(e.Clients) > 1 {
			e.Clients = slices.DeleteFunc(slices.Clone(e.Clients), func(c Client) bool { return c == client })
			rest.Files = append(rest.Files, e)
			undone = append(undone, Undone{e.Path, "kept"})
			continue
		}
		s, outcome, err := m.former(&e, force)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if outcome != "gone" {
			files = append(files, s)
		}
		undone = append(undone, Undone{e.Path, outcome})
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	for _, s := range files {
		if err := restore(s.real, s.base, s.baseMeta); err != nil {
			return nil, err // the journal still has all: it can be done again
		}
	}
	former := m.journal.Files
	m.journal = rest
	m.dropBackups(former)
	m.removeDirs()
	if err := m.writeJournal(); err != nil {
		return nil, fmt.Errorf("all files are as they were; writing the journal: %w", err)
	}
	return undone, nil
}

// former is a file with what is to become of it as its base.
func (m *Machine) former(e *entry, force bool) (seen, string, error) {
	s, err := m.look(e.Path)
	switch {
	case force && !s.untouched:
		if s.base, err = m.backup(e); err != nil {
			return s, "", err
		}
		s.baseMeta = e.Meta
	case err != nil:
		return s, "", err
	case s.now == nil:
		return s, "gone", nil
	case e.Existed && digestOf(s.now) == e.Before: // it was never written
		s.base, s.baseMeta = s.now, s.meta
		return s, "restored", nil
	case !s.untouched:
		if s.base != nil {
			s.baseMeta.Modified = time.Time{} // now
			return s, "cut", nil
		}
	}
	if s.base == nil {
		return s, "removed", nil
	}
	return s, "restored", nil
}
