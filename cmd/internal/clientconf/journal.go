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

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// stateDir has the journal, and what was there before.
const stateDir = "/var/lib/entrepot/client-config"

// journal is what was written, so that it can be undone. It is written before the
// files are: one that was cut short is undone as well.
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

// state is the path of a file beside the journal.
func (m *Machine) state(name string) (string, error) { return m.real(stateDir + "/" + name) }

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
	name, err := m.state(journalName)
	if err != nil {
		return err
	}
	if len(m.journal.Files) == 0 {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			return err
		}
		m.read = nil
		m.removeDirs()
		return nil
	}
	text, err := json.MarshalIndent(m.journal, "", "  ")
	if err != nil {
		return err
	}
	m.read = append(text, '\n')
	return renameio.WriteFile(name, m.read, 0o600)
}

// lock keeps other processes from writing, and finds out whether one has since the
// journal was read.
func (m *Machine) lock() (unlock func(), err error) {
	root, err := os.Open(m.root)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(root.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", m.root, errors.Join(err, root.Close()))
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
func (m *Machine) removeDirs() {
	for i, dir := range slices.Backward(m.journal.Dirs) {
		if os.Remove(filepath.Join(m.root, dir)) == nil {
			m.journal.Dirs = slices.Delete(m.journal.Dirs, i, i+1)
		}
	}
}

// makeDir makes a folder and what is missing above it, and remembers them.
func (m *Machine) makeDir(dir string, perm os.FileMode) error {
	var missing []string
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil || at == m.root || at == filepath.Dir(at) {
			break
		}
		missing = append(missing, at)
	}
	for _, at := range slices.Backward(missing) {
		if err := os.Mkdir(at, perm); err != nil {
			return err
		}
		if err := os.Chmod(at, perm); err != nil { // whatever the umask is
			return err
		}
		relative, err := filepath.Rel(m.root, at)
		if err != nil {
			return err
		}
		m.journal.Dirs = append(m.journal.Dirs, relative)
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
