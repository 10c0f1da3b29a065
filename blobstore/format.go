package blobstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// storeFormat is the version of the layout of a Dir that this package writes.
// It reads all up to it. A build that changes the layout such that older ones
// would misread it counts it up, and brings a store of an older format to its
// own when it opens it.
const storeFormat = 1

// ErrFormat says that a store is of a format that this build does not know.
var ErrFormat = errors.New("store format")

// errNoFormat says that what marks the format is no number.
var errNoFormat = errors.New("want a number from 1 on: is this a store?")

// formatFile holds the number of the format on its first line. What a later
// build adds on the second is for a person: which entrepot reads the store.
func formatFile(path string) string { return filepath.Join(path, "version") }

// readFormat tells the format of the store in a directory, 0 where nothing
// says it: nothing was stored yet, or what marked it is lost.
// Errors: ErrFormat.
func readFormat(path string) (int, error) {
	text, err := os.ReadFile(formatFile(path))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return parseFormat(formatFile(path), string(text))
}

// parseFormat reads the text of a format file. Errors: ErrFormat.
func parseFormat(path, text string) (int, error) {
	first, rest, _ := strings.Cut(text, "\n")
	format, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || format < 1 {
		return 0, fmt.Errorf("%w: %s holds %.40q, %w", ErrFormat, path, text, errNoFormat)
	}
	if format <= storeFormat {
		return format, nil
	}
	needed, _, _ := strings.Cut(rest, "\n")
	if needed = strings.TrimSpace(needed); needed != "" {
		needed = fmt.Sprintf(" (it says: %.80q)", needed)
	}
	return 0, fmt.Errorf("%w %d was written by a newer entrepot: reading it needs one that knows format %d%s, and this one knows up to %d. Use a newer entrepot, or another directory",
		ErrFormat, format, format, needed, storeFormat)
}

// markFormat marks a store that has no format yet.
func (d *Dir) markFormat() error {
	return d.writeRecord(formatFile(d.path), fmt.Appendln(nil, storeFormat))
}
