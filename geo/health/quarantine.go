package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
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

// writeQuarantine replaces the file.
func writeQuarantine(path string, all map[string]Quarantined) error {
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".quarantine-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // after the rename there is nothing to remove
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Lift takes a mirror out of the file of quarantined ones; a running router sees
// it with its next probe. Errors: ErrNotQuarantined.
func Lift(path, name string) error {
	all, err := ReadQuarantine(path)
	if err != nil {
		return err
	}
	if _, ok := all[name]; !ok {
		return fmt.Errorf("%w: %q is not in %s", ErrNotQuarantined, name, path)
	}
	delete(all, name)
	return writeQuarantine(path, all)
}
