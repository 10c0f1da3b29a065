package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

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

// writeQuarantine replaces the file.
func writeQuarantine(path string, all map[string]Quarantined) error {
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, append(data, '\n'), 0o600)
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
