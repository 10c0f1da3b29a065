package clientconf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"entrepot/blobstore/filelock"
)

// journal is what was written, so that it can be undone. It is written before the
// files are, and knows what they may be meanwhile: one that was cut short is undone
// as well.
type journal struct {
	Version int     `json:"version"`
	Files   []entry `json:"files"`
	// Dirs are the folders that were made, parents first, relative to the root.
	Dirs []string `json:"dirs"`
}

// journalVersion is that of the form above.
const journalVersion = 1

// entry is a file that was written.
type entry struct {
	Path    string   `json:"path"`    // as the client sees it
	Clients []Client `json:"clients"` // that need it
	Part    part     `json:"part"`
	Existed bool     `json:"existed"`
	Meta    meta     `json:"meta"`             // of what was there
	Backup  string   `json:"backup,omitempty"` // its content, beside the journal
	Before  string   `json:"before,omitempty"` // its SHA-256
	After   string   `json:"after"`            // SHA-256 of what was written

	// Was is the SHA-256 of what the file has until After is written, and Former are
	// our parts in that.
	Was    string `json:"was,omitempty"`
	Former []part `json:"former,omitempty"`
	// Bare is the SHA-256 of what somebody changed, without our part, from when that
	// is being taken out.
	Bare string `json:"bare,omitempty"`
}

// backupSuffix follows the SHA-256 of what was there in the name of its file.
const backupSuffix = ".orig"

// written says that a file is what it was to be.
func (e *entry) written() { e.Was, e.Former = "", nil }

// without takes our part out of a text, whichever of them it has. It reports false
// when it is not there as it was.
func (e *entry) without(text []byte) ([]byte, bool) {
	rest, ok := e.Part.without(text)
	for _, former := range e.Former {
		if less, found := former.without(rest); ok && found {
			rest = less
		}
	}
	return rest, ok
}

// form is the kind of our part in a file.
type form string

const (
	blockForm form = "block" // lines between two comments
	listForm  form = "list"  // values of lists in JSON
)

// part is what is ours in a file.
type part struct {
	Form  form              `json:"form"`
	Lists map[string]string `json:"lists,omitempty"` // listForm: the value that a key's list was given
}

// without takes our part out of a text. It reports false when it is not there as
// it was.
func (p *part) without(text []byte) ([]byte, bool) {
	if p.Form == blockForm {
		rest, found, err := cutBlocks(text)
		return rest, found && err == nil
	}
	if _, err := parseObject(text); err != nil {
		return nil, false
	}
	for key, value := range p.Lists {
		text, _ = removeFromList(text, key, value) // somebody may have taken it out before
	}
	return text, true
}

func (j *journal) file(path string) *entry {
	if i := j.index(path); i >= 0 {
		return &j.Files[i]
	}
	return nil
}

func (j *journal) index(path string) int {
	return slices.IndexFunc(j.Files, func(e entry) bool { return e.Path == path })
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

const journalName = "journal.json"

func (m *Machine) readJournal() error {
	m.journal = journal{Version: journalVersion}
	name, err := m.state(journalName)
	if err != nil {
		return err
	}
	text, _, err := readFile(name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if m.read = text; text == nil {
		return nil
	}
	if err := json.Unmarshal(text, &m.journal); err != nil {
		return fmt.Errorf("%s is not what was written there: %w", name, err)
	}
	if m.journal.Version != journalVersion {
		return fmt.Errorf("%s is of version %d, which this entrepot does not know: use the newer one that wrote it", name, m.journal.Version)
	}
	return nil
}

// writeJournal makes the journal what it is in memory; an empty one is removed,
// with the folders that nothing is in any more.
func (m *Machine) writeJournal() error {
	if len(m.journal.Files) == 0 {
		m.read = nil
		return m.forget()
	}
	name, err := m.state(journalName)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(m.journal, "", "  ")
	if err != nil {
		return err
	}
	m.read = append(text, '\n')
	return m.disk.write(name, m.read, private())
}

// private is what files of the state are.
func private() meta { return meta{Mode: 0o600, UID: -1, GID: -1} }

// lock keeps other processes from writing, and finds out whether one has since the
// journal was read.
func (m *Machine) lock() (unlock func(), err error) {
	root, err := os.Open(m.root)
	if err != nil {
		return nil, err
	}
	if err := filelock.Wait(root); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	name, err := m.state(journalName)
	var now []byte
	if err == nil {
		now, _, err = readFile(name)
	}
	if err == nil && !bytes.Equal(now, m.read) {
		err = errors.New("another client-config has changed files meanwhile: run this again")
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return func() { _ = root.Close() }, nil // nothing was written to it
}

// removeDirs removes the folders that were made and are empty, the inner ones
// first. Others stay in the journal.
func (m *Machine) removeDirs() error {
	for i, relative := range slices.Backward(m.journal.Dirs) {
		dir, err := m.real(relative)
		if err != nil {
			return err
		}
		entries, err := os.ReadDir(dir)
		if !absent(err) && (err != nil || len(entries) > 0) {
			continue
		}
		if err := m.disk.remove(dir); err != nil {
			return err
		}
		m.journal.Dirs = slices.Delete(m.journal.Dirs, i, i+1)
	}
	return nil
}

// missing are a folder and those above it that are not there, parents first.
func (m *Machine) missing(dir string) []string {
	var missing []string
	for at := dir; at != m.root && at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		}
		missing = append(missing, at)
	}
	slices.Reverse(missing)
	return missing
}

// note remembers folders that are to be made.
func (m *Machine) note(dirs []string) error {
	for _, at := range dirs {
		relative, err := filepath.Rel(m.root, at)
		if err != nil {
			return err
		}
		if !slices.Contains(m.journal.Dirs, relative) {
			m.journal.Dirs = append(m.journal.Dirs, relative)
		}
	}
	return nil
}

// backup is what a file was before; nil when there was none.
func (m *Machine) backup(e *entry) ([]byte, error) {
	if !e.Existed {
		return nil, nil
	}
	name, err := m.state(e.Backup)
	if err != nil {
		return nil, err
	}
	text, _, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the backup of %s: %w", e.Path, err)
	}
	if text == nil || digestOf(text) != e.Before {
		return nil, fmt.Errorf("the backup of %s, %s, is gone or was changed", e.Path, name)
	}
	return text, nil
}
