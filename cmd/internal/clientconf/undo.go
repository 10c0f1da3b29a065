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
	if err := m.tidy(); err != nil {
		return nil, fmt.Errorf("removing what another client-config left when it died: %w", err)
	}
	var undone []Undone
	var files []seen
	var problems []error
	var rest []entry
	cut := false
	for i := range m.journal.Files {
		e := m.journal.Files[i]
		if !slices.Contains(e.Clients, client) {
			rest = append(rest, e)
			continue
		}
		if len(e.Clients) > 1 {
			e.Clients = slices.DeleteFunc(slices.Clone(e.Clients), func(c Client) bool { return c == client })
			rest = append(rest, e)
			undone = append(undone, Undone{e.Path, "kept"})
			continue
		}
		s, outcome, err := m.former(&e, force)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if outcome == "cut" {
			m.journal.Files[i].Bare, cut = digestOf(s.base), true
		}
		if outcome != "gone" {
			files = append(files, s)
		}
		undone = append(undone, Undone{e.Path, outcome})
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if cut {
		if err := m.writeJournal(); err != nil {
			return nil, err
		}
	}
	for _, s := range files {
		if err := m.restore(s.real, s.base, s.baseMeta); err != nil {
			return nil, err // the journal still has all: it can be done again
		}
	}
	if err := m.settleUndo(rest); err != nil {
		return nil, fmt.Errorf("all files are as they were; writing the journal: %w", err)
	}
	return undone, nil
}

// settleUndo has the journal forget all but the rest. What is removed goes before
// the journal that knows it, and after the one that needs it.
func (m *Machine) settleUndo(rest []entry) error {
	if err := m.removeDirs(); err != nil {
		return err
	}
	m.journal.Files = rest
	if len(rest) > 0 {
		if err := m.writeJournal(); err != nil {
			return err
		}
	}
	if err := m.sweep(); err != nil {
		return err
	}
	if len(rest) > 0 {
		return nil
	}
	return m.writeJournal()
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
